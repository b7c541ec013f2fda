//! Writes an answer to its stream in pieces, so that few bytes are unsent, and other answers go on
//! while one is blocked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qshare_net::{framed, link_rate};
use qshare_wire::peer::{ChunkData, Sending};
use quinn::SendStream;
use tokio::time::timeout;

use super::queue::Turn;
use crate::peers::PeerConnection;

/// An answer is written to its stream in pieces of an eighth of the congestion window, within these
/// bounds.
const PIECE_MIN_BYTES: u64 = 32 * 1024;
const PIECE_MAX_BYTES: u64 = 256 * 1024;
/// An answer is abandoned when a blocked piece makes no progress for this long (2 KB/s).
pub(super) const PIECE_DEADLINE: Duration = Duration::from_secs(15);
/// An answer counts as blocked, so that other answers may start, when a piece takes this many times
/// longer than its fair share of this node's link allows. The path of that answer is then slow.
const BLOCKED_TIMES: f64 = 2.0;
/// Time after which an answer counts as blocked while the rate of this node's link is unknown.
const BLOCKED_AFTER: Duration = Duration::from_millis(50);
/// Bounds of that time while the rate is known.
const BLOCKED_AFTER_MIN: Duration = Duration::from_millis(5);
const BLOCKED_AFTER_MAX: Duration = Duration::from_millis(500);
/// Time after which an answer counts as blocked where its congestion window is the limit, not the
/// link. Other answers can use the link until the next acknowledgement.
const WINDOW_FULL_AFTER: Duration = Duration::from_millis(2);
/// On a path with a shorter RTT, the congestion window is not the limit for long.
const LONG_PATH: Duration = Duration::from_millis(5);

/// Limits the bytes that connections buffer.
pub(super) struct Pacing {
    send_window_max_bytes: u64,
    rates: Arc<qshare_net::Pacing>,
}

impl Pacing {
    pub(super) fn new(send_window_max_bytes: u64, rates: Arc<qshare_net::Pacing>) -> Pacing {
        Pacing {
            send_window_max_bytes,
            rates,
        }
    }

    /// Returns what limits sending on a connection now.
    pub(super) fn sending(&self, connection: &PeerConnection) -> Sending {
        if self.rates.is_up_limiting() {
            return Sending::Limited;
        }
        let lost_packets = connection.connection.stats().path.lost_packets;
        // A full queue, which shows in the RTT, drops packets at any rate: that is the path's
        // limit.
        let has_queue = connection.connection.rtt() >= connection.shortest_rtt() * 3 / 2;
        match connection.is_losing(lost_packets) && !has_queue {
            true => Sending::Losing,
            false => Sending::Unknown,
        }
    }

    /// Lets a connection buffer little more than its path holds. More buffered data could not be
    /// reordered any more, and a running answer would look finished. Returns the size of the next
    /// piece.
    pub(super) fn next_piece_bytes(&self, connection: &PeerConnection) -> usize {
        let path = connection.connection.stats().path;
        let piece_bytes = (path.cwnd / 8).clamp(PIECE_MIN_BYTES, PIECE_MAX_BYTES);
        let is_long = connection.shortest_rtt() >= LONG_PATH;
        let held_bytes = match is_long && connection.is_losing(path.lost_packets) {
            true => held_up_bytes(path.cwnd),
            false => path.cwnd,
        };
        // A congestion window grows beyond what a rate limit lets pass.
        let limit = self.rates.up();
        let held_bytes = held_bytes.min(limit.bytes_within(connection.connection.rtt() * 2));
        let window_bytes = (held_bytes + piece_bytes).min(self.send_window_max_bytes);
        connection.connection.set_send_window(window_bytes);
        piece_bytes as usize
    }
}

/// Returns the bytes that a connection buffers while `in_flight_bytes` are in flight and some of
/// them are lost. quinn keeps acknowledged data until everything before it in its stream is
/// acknowledged, too, which takes another RTT.
fn held_up_bytes(in_flight_bytes: u64) -> u64 {
    in_flight_bytes * 2
}

/// Writes one piece to the stream. Returns false if the other side does not accept it.
/// `running_max` is the number of answers that share this node's link.
pub(super) async fn write_piece(
    turn: &Turn,
    running_max: u32,
    connection: &PeerConnection,
    send: &mut SendStream,
    piece: Bytes,
) -> bool {
    let answers = f64::from(running_max.max(1));
    let blocked_after = blocked_after(
        piece.len(),
        link_rate(&connection.connection).map(|rate| rate / answers),
        connection.connection.rtt(),
        connection.shortest_rtt(),
    );
    matches!(
        written(turn, blocked_after, send.write_chunk(piece)).await,
        Some(Ok(()))
    )
}

/// Writes the header of an answer to the stream. Returns false if the other side does not accept
/// it.
pub(super) async fn write_head(turn: &Turn, send: &mut SendStream, head: &ChunkData) -> bool {
    matches!(
        written(turn, BLOCKED_AFTER, framed::write(send, head)).await,
        Some(Ok(()))
    )
}

/// Waits for a write to a stream. After `blocked_after`, its answer counts as blocked. Returns None
/// if the other side has taken nothing for [`PIECE_DEADLINE`] since.
async fn written<T>(
    turn: &Turn,
    blocked_after: Duration,
    write: impl Future<Output = T>,
) -> Option<T> {
    let mut write = std::pin::pin!(write);
    if let Ok(written) = timeout(blocked_after, &mut write).await {
        return Some(written);
    }
    let _blocked = turn.block();
    timeout(PIECE_DEADLINE, write).await.ok()
}

/// Returns how long a piece may take before its answer counts as blocked. This node's link carries
/// `share_of_link` bytes of the answer per second. On a long path without queues, the link is not
/// full.
fn blocked_after(
    piece_bytes: usize,
    share_of_link: Option<f64>,
    rtt: Duration,
    shortest_rtt: Duration,
) -> Duration {
    if shortest_rtt >= LONG_PATH && rtt < shortest_rtt * 3 / 2 {
        return WINDOW_FULL_AFTER;
    }
    share_of_link.map_or(BLOCKED_AFTER, |share| {
        let seconds = BLOCKED_TIMES * piece_bytes as f64 / share;
        let bounds = (
            BLOCKED_AFTER_MIN.as_secs_f64(),
            BLOCKED_AFTER_MAX.as_secs_f64(),
        );
        Duration::from_secs_f64(seconds.clamp(bounds.0, bounds.1))
    })
}

#[cfg(test)]
mod tests {
    use qshare_content::{ChunkIndex, ContentInfo, tree};
    use qshare_swarm::{PeerKey, ServeConfig};

    use super::*;
    use crate::uploads::queue::UploadQueue;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn others_start_at_once_where_only_the_congestion_window_is_full() {
        let after = |rtt, shortest| blocked_after(32 << 10, None, rtt, shortest);
        assert_eq!(after(42 * MS, 40 * MS), WINDOW_FULL_AFTER);
        // The RTT shows a queue: the link is full.
        assert_eq!(after(70 * MS, 40 * MS), BLOCKED_AFTER);
        // A local network, before its queue is measured.
        assert_eq!(after(MS, MS), BLOCKED_AFTER);
    }

    #[test]
    fn others_start_where_the_path_of_one_is_slower_than_its_share_of_the_link() {
        let after = |mbit: f64| blocked_after(25_000, Some(mbit * 1e6 / 8.0), MS, MS);
        // 25 kB take 4 ms at 50 Mbit/s.
        assert_eq!(after(50.0), 8 * MS);
        assert_eq!(after(10.0), 40 * MS);
        assert_eq!(after(10_000.0), BLOCKED_AFTER_MIN);
        assert_eq!(after(0.1), BLOCKED_AFTER_MAX);
    }

    #[tokio::test]
    async fn an_answer_whose_header_cannot_be_sent_gives_its_place_to_another() {
        let config = ServeConfig {
            small_active_max: 1,
            ..ServeConfig::default()
        };
        let queue = Arc::new(UploadQueue::new(config, 1));
        let running = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run().await }
        });
        let root = tree::leaf_hash(&[]);
        let content = ContentInfo { length: 1, root }.id();
        let enqueue = |client| queue.enqueue(PeerKey(client), content, ChunkIndex(0), 1);
        let (first, _) = enqueue(1).unwrap();
        let (_second, mut started) = enqueue(2).unwrap();
        assert!(started.try_recv().is_err());
        let never = std::future::pending::<()>();
        let writing = tokio::spawn(async move { written(&first, BLOCKED_AFTER, never).await });
        timeout(PIECE_DEADLINE, &mut started)
            .await
            .unwrap()
            .unwrap();
        writing.abort();
        running.abort();
    }
}
