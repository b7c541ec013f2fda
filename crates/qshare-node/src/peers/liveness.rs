//! Detects whether anything is still received on a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_net::framed;
use qshare_wire::peer::Ping;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::PeerConnection;

/// Interval at which a connection in use is checked.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// Silence after which a ping is sent, if an answer from the other side is outstanding.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// A path is dead if something sent on it, such as the ping, has been unanswered for this long and
/// for this many RTTs. A transfer should continue within 3 s, so 2 s remain to find another path.
const DEAD_AFTER: Duration = Duration::from_millis(1000);
const DEAD_AFTER_RTTS: u32 = 4;
/// Longest wait for the answer to a ping.
const PING_DEADLINE: Duration = Duration::from_secs(30);

/// How many datagrams a connection has received and sent.
#[derive(Debug, Clone, Copy)]
struct Counts {
    received: u64,
    sent: u64,
}

impl Counts {
    fn of(connection: &PeerConnection) -> Counts {
        let stats = connection.connection.stats();
        Counts {
            received: stats.udp_rx.datagrams,
            sent: stats.udp_tx.datagrams,
        }
    }
}

/// The counts of received and sent datagrams at the last check.
#[derive(Debug)]
pub(super) struct Liveness {
    counts: Counts,
    heard_at: Instant,
    /// When the first datagram that is still unanswered was noticed.
    unanswered_since: Option<Instant>,
    asked: bool,
}

impl Liveness {
    pub(super) fn new(connection: &PeerConnection) -> Liveness {
        Liveness::starting_at(Instant::now(), Counts::of(connection))
    }

    fn starting_at(now: Instant, counts: Counts) -> Liveness {
        Liveness {
            counts,
            heard_at: now,
            unanswered_since: None,
            asked: false,
        }
    }

    /// Checks a connection again. Returns whether anything was received since the last check.
    pub(super) fn look(&mut self, connection: &PeerConnection) -> bool {
        self.update(Instant::now(), Counts::of(connection))
    }

    fn update(&mut self, now: Instant, counts: Counts) -> bool {
        let heard = counts.received != self.counts.received;
        if heard {
            (self.heard_at, self.unanswered_since, self.asked) = (now, None, false);
        } else if counts.sent != self.counts.sent {
            self.unanswered_since.get_or_insert(now);
        }
        self.counts = counts;
        heard
    }

    /// Returns how long nothing has been received.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// Whether a ping is due. Returns true once in each silence.
    pub(super) fn poll_ping(&mut self, now: Instant) -> bool {
        let due = !self.asked && self.silence(now) >= ASK_AFTER;
        self.asked |= due;
        due
    }

    /// Whether the path is dead.
    pub(super) fn is_dead(&self, now: Instant, rtt: Duration) -> bool {
        self.is_unanswered_for(now, DEAD_AFTER, rtt)
    }

    fn is_unanswered_for(&self, now: Instant, time: Duration, rtt: Duration) -> bool {
        let limit = time.max(DEAD_AFTER_RTTS * rtt);
        self.unanswered_since
            .is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }
}

/// Waits until nothing gets through on a replaced connection any more, so that data in flight on it
/// is lost. Sends a ping at once, since some time may have passed already.
pub(super) async fn fall_silent(connection: &Arc<PeerConnection>) {
    let mut liveness = Liveness::new(connection);
    let mut pings = JoinSet::new();
    loop {
        let now = Instant::now();
        if pings.is_empty() || liveness.poll_ping(now) {
            liveness.asked = true;
            liveness.unanswered_since.get_or_insert(now);
            pings.spawn(ping(connection.clone()));
        }
        sleep(LOOK).await;
        liveness.look(connection);
        let rtt = connection.connection.rtt();
        if liveness.is_unanswered_for(Instant::now(), ASK_AFTER, rtt) {
            return;
        }
    }
}

/// Sends a message that the other side's QUIC must acknowledge.
pub(super) async fn ping(connection: Arc<PeerConnection>) {
    let sent = async {
        let (mut send, mut recv) = connection.connection.open_bi().await.ok()?;
        framed::write(&mut send, &Ping {}).await.ok()?;
        send.finish().ok()?;
        // Nodes that do not know the message refuse it, which serves as well.
        let _ = recv.read_to_end(1024).await;
        Some(())
    };
    let _ = timeout(PING_DEADLINE, sent).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const RTT: Duration = Duration::from_millis(20);

    fn counts(received: u64, sent: u64) -> Counts {
        Counts { received, sent }
    }

    #[test]
    fn a_path_is_dead_once_something_sent_was_unanswered_for_long() {
        let start = Instant::now();
        let mut liveness = Liveness::starting_at(start, counts(10, 10));
        assert!(!liveness.update(start + 200 * MS, counts(10, 10)));
        // Silence alone proves nothing.
        assert!(!liveness.is_dead(start + 5000 * MS, RTT));
        liveness.update(start + 400 * MS, counts(10, 11));
        assert!(!liveness.is_dead(start + 1399 * MS, RTT));
        assert!(liveness.is_dead(start + 1400 * MS, RTT));
        // A longer RTT extends the time-out.
        assert!(!liveness.is_dead(start + 1400 * MS, 400 * MS));
        assert!(liveness.update(start + 1500 * MS, counts(11, 11)));
        assert!(!liveness.is_dead(start + 9000 * MS, RTT));
    }

    #[test]
    fn one_ping_is_due_in_each_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::starting_at(start, counts(0, 0));
        assert!(!liveness.poll_ping(start + 499 * MS));
        assert!(liveness.poll_ping(start + 500 * MS));
        assert!(!liveness.poll_ping(start + 600 * MS));
        liveness.update(start + 700 * MS, counts(1, 1));
        assert!(!liveness.poll_ping(start + 800 * MS));
        assert!(liveness.poll_ping(start + 1200 * MS));
        assert_eq!(liveness.silence(start + 1200 * MS), 500 * MS);
    }
}
