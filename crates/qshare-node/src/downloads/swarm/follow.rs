//! Follows one peer: receives the chunks that the peer reports.

use std::sync::Arc;
use std::time::Instant;

use qshare_content::{Bitmap, ChunkIndex};
use qshare_net::{TokenBucket, framed};
use qshare_swarm::PeerKey;
use qshare_wire::Message;
use qshare_wire::peer::{Have, HaveMore, Interest};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::event::{ANSWER_DEADLINE, Event};
use crate::access::Access;
use crate::error::{AskError, SourceFault};
use crate::peers::{Peer, PeerConnection};

/// Burst and rate per second of the messages about new chunks that a peer may send. A node collects
/// new chunks for 20 ms, so it sends at most 50 messages a second. Messages that the network
/// delayed may arrive at once.
const HAVE_BURST: f64 = 500.0;
const HAVE_PER_SECOND: f64 = 100.0;
/// A bitmap of this many chunks is charged like one message about a single chunk.
const BITMAP_CHUNKS: f64 = 4096.0;

/// Rate limit for a peer's messages about its chunks. A message with all chunks is charged by the
/// length of its bitmap, which determines the cost of processing it. It may overdraw the bucket, so
/// that one such message is always accepted.
struct HaveBudget {
    bucket: TokenBucket,
    bitmap_cost: f64,
}

impl HaveBudget {
    fn new(now: Instant, chunks: u32) -> HaveBudget {
        HaveBudget {
            bucket: TokenBucket::new(now, HAVE_PER_SECOND, HAVE_BURST),
            bitmap_cost: 1.0 + f64::from(chunks) / BITMAP_CHUNKS,
        }
    }

    /// Charges for one message. Returns false if the rate limit is exceeded.
    fn charge(&mut self, now: Instant, is_bitmap: bool) -> bool {
        let cost = if is_bitmap { self.bitmap_cost } else { 1.0 };
        let is_left = self.bucket.available(now) >= 1.0;
        self.bucket.charge(now, cost);
        is_left
    }
}

/// Reports the chunks of a peer, and new ones as they come, until the peer is lost.
pub(super) async fn follow(
    peer: Arc<Peer>,
    access: Access,
    count: u32,
    events: mpsc::Sender<Event>,
) {
    let fault = loop {
        let connection = peer.connection();
        let fault = tokio::select! {
            fault = follow_until_lost(&peer, &connection, &access, count, &events) => fault,
            () = connection.retired.cancelled() => SourceFault::Lost,
        };
        // Continues on a new connection to the same node, if there is one.
        if Arc::ptr_eq(&connection, &peer.connection()) {
            break fault;
        }
    };
    let _ = events
        .send(Event::PeerGone {
            peer: peer.key,
            fault,
        })
        .await;
}

async fn follow_until_lost(
    peer: &Peer,
    connection: &PeerConnection,
    access: &Access,
    count: u32,
    events: &mpsc::Sender<Event>,
) -> SourceFault {
    if let Err(fault) = peer.unlock(connection, access).await {
        return fault;
    }
    let interest = Interest {
        content: access.wire_id(),
        extensions: Vec::new(),
    };
    let asked = async {
        let _busy = peer.busy();
        framed::ask::<Interest, Have>(&connection.connection, &interest).await
    };
    // The sending half is kept: closing it would end the interest.
    let (first, _send, mut recv) = match timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(error)) => return AskError::from(error).into(),
        Err(_) => return AskError::TimedOut(ANSWER_DEADLINE).into(),
    };
    let Some(event) = have_event(peer.key, count, first) else {
        return SourceFault::InvalidHave;
    };
    if events.send(event).await.is_err() {
        return SourceFault::Lost;
    }
    let mut budget = HaveBudget::new(Instant::now(), count);
    loop {
        let frame = match framed::read_frame(&mut recv, Have::BODY_MAX_BYTES).await {
            Ok(frame) => frame,
            Err(error) => return AskError::from(error).into(),
        };
        if !budget.charge(Instant::now(), frame.kind == Have::TYPE) {
            return SourceFault::HaveRate;
        }
        let event = match frame.kind {
            Have::TYPE => frame
                .decode()
                .ok()
                .and_then(|have| have_event(peer.key, count, have)),
            HaveMore::TYPE => frame.decode::<HaveMore>().ok().map(|more| Event::HaveMore {
                peer: peer.key,
                chunks: more.chunks.into_iter().map(ChunkIndex).collect(),
                queue_bytes: more.queue_bytes,
            }),
            // Later protocol versions may send other messages.
            _ => continue,
        };
        let Some(event) = event else {
            return SourceFault::InvalidHave;
        };
        if events.send(event).await.is_err() {
            return SourceFault::Lost;
        }
    }
}

fn have_event(peer: PeerKey, count: u32, have: Have) -> Option<Event> {
    let chunks = match have.complete {
        true => Bitmap::full(count),
        false => Bitmap::from_bytes(count, &have.bitmap)?,
    };
    Some(Event::Have {
        peer,
        chunks,
        queue_bytes: have.queue_bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn single_chunks_may_be_told_a_hundred_times_a_second() {
        let start = Instant::now();
        let mut budget = HaveBudget::new(start, 100);
        for message in 0..2000 {
            let at = start + message * Duration::from_millis(10);
            assert!(budget.charge(at, false), "message {message}");
        }
        let flood = (0..2000).filter(|_| budget.charge(start + Duration::from_secs(20), false));
        assert!(flood.count() <= HAVE_BURST as usize);
    }

    #[test]
    fn bitmaps_are_charged_by_their_length() {
        let now = Instant::now();
        let accepted = |chunks: u32| {
            let mut budget = HaveBudget::new(now, chunks);
            (0..1000).filter(|_| budget.charge(now, true)).count()
        };
        // 1 TiB has 262,144 chunks of 4 MiB, the largest content 4,194,304.
        assert!(accepted(100) > 400);
        assert!(
            (5..20).contains(&accepted(262_144)),
            "{}",
            accepted(262_144)
        );
        assert_eq!(accepted(4_194_304), 1);
    }

    #[test]
    fn a_bitmap_of_another_length_is_invalid() {
        let have = |bitmap: Vec<u8>, complete| Have {
            complete,
            bitmap,
            queue_bytes: 0,
            extensions: Vec::new(),
        };
        let peer = PeerKey(1);
        assert!(have_event(peer, 16, have(vec![0xff; 2], false)).is_some());
        assert!(have_event(peer, 16, have(vec![0xff; 3], false)).is_none());
        let complete = have_event(peer, 16, have(Vec::new(), true));
        assert!(matches!(complete, Some(Event::Have { chunks, .. }) if chunks.is_full()));
    }
}
