//! Detects a tracker that has died without a goodbye, before the idle time-out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qshare_wire::limits::KEEP_ALIVE;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// A tracker that sends nothing for this long is lost: it acknowledges a keep-alive, for which
/// QUIC sends several probes in 3 s. Shorter than a lease in a shared registry, which other
/// trackers drop 20 s after this one extended it for the last time.
pub(super) const SILENCE_MAX: Duration = KEEP_ALIVE.saturating_add(Duration::from_secs(3));
/// The same after a request that was not answered: its packets are sent again meanwhile.
pub(super) const SUSPECT_MAX: Duration = Duration::from_secs(3);
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Whether the tracker owes an answer, and has sent nothing since.
#[derive(Default)]
pub(super) struct Suspicion {
    is_raised: AtomicBool,
    raised: Notify,
}

impl Suspicion {
    /// A request was not answered in time.
    pub(super) fn raise(&self) {
        self.is_raised.store(true, Ordering::Relaxed);
        self.raised.notify_one();
    }

    pub(super) fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        self.is_raised.store(false, Ordering::Relaxed);
    }
}

/// How long a connection has been silent.
struct Silence {
    datagrams: u64,
    heard_at: Instant,
    suspected_at: Option<Instant>,
}

impl Silence {
    fn new(now: Instant, datagrams: u64) -> Silence {
        Silence {
            datagrams,
            heard_at: now,
            suspected_at: None,
        }
    }

    /// Returns for how long the tracker was silent if it is lost. `datagrams` counts those
    /// received so far.
    fn observe(&mut self, now: Instant, datagrams: u64) -> Option<Duration> {
        if datagrams != self.datagrams {
            *self = Silence::new(now, datagrams);
            return None;
        }
        let silent = now.duration_since(self.heard_at);
        let suspected = self.suspected_at.map(|at| now.duration_since(at));
        let is_lost = silent >= SILENCE_MAX || suspected.is_some_and(|time| time >= SUSPECT_MAX);
        is_lost.then_some(silent)
    }
}

/// Waits until the tracker is lost, and returns for how long it was silent.
pub(super) async fn until_silent(
    connection: &quinn::Connection,
    suspicion: &Suspicion,
) -> Duration {
    let received = || connection.stats().udp_rx.datagrams;
    let mut silence = Silence::new(Instant::now(), received());
    suspicion.clear();
    loop {
        tokio::select! {
            () = sleep(CHECK_EVERY) => {}
            () = suspicion.raised.notified() => {
                let now = Instant::now();
                // What was received before does not answer the request.
                let _ = silence.observe(now, received());
                silence.suspected_at.get_or_insert(now);
            }
        }
        if let Some(time) = silence.observe(Instant::now(), received()) {
            return time;
        }
        if silence.suspected_at.is_none() {
            suspicion.clear();
        }
    }
}

/// Waits until nothing has arrived for `time`, judging by the number of datagrams received so far.
/// Looks once in this time.
async fn nothing_within(time: Duration, received: impl Fn() -> u64) {
    let mut before = received();
    loop {
        sleep(time).await;
        let now = received();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Waits until nothing has arrived on a connection for `time`. It finds that out within twice that.
pub(crate) async fn silent_for(connection: &quinn::Connection, time: Duration) {
    nothing_within(time, || connection.stats().udp_rx.datagrams).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_lost_after_a_keep_alive_without_acknowledgement() {
        let start = Instant::now();
        let mut silence = Silence::new(start, 7);
        let almost = start + SILENCE_MAX - Duration::from_millis(1);
        assert_eq!(silence.observe(almost, 7), None);
        assert_eq!(silence.observe(almost, 8), None);
        assert_eq!(silence.observe(start + SILENCE_MAX, 8), None);
        let late = almost + SILENCE_MAX;
        assert_eq!(silence.observe(late, 8), Some(SILENCE_MAX));
    }

    #[test]
    fn a_tracker_that_owes_an_answer_is_lost_sooner_unless_it_sends_anything() {
        let start = Instant::now();
        let mut silence = Silence::new(start, 7);
        silence.suspected_at = Some(start);
        let soon = start + SUSPECT_MAX - Duration::from_millis(1);
        assert_eq!(silence.observe(soon, 7), None);
        assert_eq!(silence.observe(soon, 8), None);
        assert_eq!(silence.observe(soon + SUSPECT_MAX, 8), None);
        silence.suspected_at = Some(soon);
        assert!(silence.observe(soon + SUSPECT_MAX, 8).is_some());
    }

    #[tokio::test]
    async fn a_connection_is_silent_once_nothing_arrives() {
        use std::cell::Cell;

        let time = Duration::from_millis(10);
        let (looks, begun) = (Cell::new(0), Instant::now());
        // A datagram arrives before the second look and before the third one.
        let received = || {
            looks.set(looks.get() + 1);
            looks.get().min(3)
        };
        nothing_within(time, received).await;
        assert_eq!(looks.get(), 4);
        assert!(begun.elapsed() >= 3 * time);
    }
}
