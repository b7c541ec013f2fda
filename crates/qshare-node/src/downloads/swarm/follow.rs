//! Following one peer: which chunks it has, as it tells.

use std::sync::Arc;
use std::time::Instant;

use qshare_content::{Bitmap, ChunkIndex, ContentId};
use qshare_net::framed::{self, ReadError};
use qshare_swarm::PeerKey;
use qshare_wire::Message;
use qshare_wire::peer::{Have, HaveMore, Interest};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ANSWER_DEADLINE, Event};
use crate::peers::{Peer, PeerConnection};

/// News that a peer may have at once, and a second. A node collects what is new for 20 ms, hence
/// has at most 50 a second; what the network held back may come at once.
const NEWS_BURST: f64 = 500.0;
const NEWS_PER_SECOND: f64 = 100.0;

/// How much news a peer may still tell.
struct NewsBudget {
    left: f64,
    since: Instant,
}

impl NewsBudget {
    fn new(now: Instant) -> NewsBudget {
        NewsBudget {
            left: NEWS_BURST,
            since: now,
        }
    }

    /// Charges for one message; false if it is one too many.
    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.since).as_secs_f64() * NEWS_PER_SECOND;
        self.left = (self.left + earned).min(NEWS_BURST) - 1.0;
        self.since = now;
        self.left >= 0.0
    }
}

/// Tells what a peer has, and as it gets more, until it is lost.
pub(super) async fn follow(
    peer: Arc<Peer>,
    content: ContentId,
    count: u32,
    events: mpsc::Sender<Event>,
) {
    let cause = loop {
        let link = peer.link();
        let cause = tokio::select! {
            cause = follow_until_lost(&peer, &link, content, count, &events) => cause,
            () = link.retired.cancelled() => String::new(),
        };
        // Over another connection to the same node it goes on.
        if Arc::ptr_eq(&link, &peer.link()) {
            break cause;
        }
    };
    let _ = events
        .send(Event::PeerGone {
            peer: peer.key,
            cause,
        })
        .await;
}

async fn follow_until_lost(
    peer: &Peer,
    link: &PeerConnection,
    content: ContentId,
    count: u32,
    events: &mpsc::Sender<Event>,
) -> String {
    let interest = Interest {
        content,
        extensions: Vec::new(),
    };
    let asked = async {
        let _busy = peer.busy();
        framed::ask::<Interest, Have>(&link.connection, &interest).await
    };
    // The sending half is kept: closing it would end the interest.
    let (first, _send, mut recv) = match timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(ReadError::Refused(refused))) => return format!("it says {:?}", refused.refusal()),
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "it did not say what it has".into(),
    };
    let Some(event) = have_event(peer.key, count, first) else {
        return "what it says to have makes no sense".into();
    };
    if events.send(event).await.is_err() {
        return String::new();
    }
    let mut budget = NewsBudget::new(Instant::now());
    loop {
        let frame = match framed::read_frame(&mut recv, Have::BODY_MAX_BYTES).await {
            Ok(frame) => frame,
            Err(error) => return error.to_string(),
        };
        if !budget.spend(Instant::now()) {
            return "it has more news than anybody can".into();
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
            // Later versions may say more.
            _ => continue,
        };
        let Some(event) = event else {
            return "what it says to have makes no sense".into();
        };
        if events.send(event).await.is_err() {
            return String::new();
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
