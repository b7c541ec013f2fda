//! Looking after the way to a connected node: a dead one is noticed and replaced, one through a
//! relay gives place to a direct one as soon as there is one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qshare_net::framed;
use qshare_wire::peer::Ping;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::node::Inner;
use crate::peers::path_race::{PathsWanted, find_path};
use crate::peers::{Peer, PeerConnection, adopt};
use crate::vocabulary::PathKind;

/// How often a way in use is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Silence after which we say something, where we wait for the other side.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// What we said and nobody acknowledged for this long, or for so many round batch, was lost with
/// all that followed it: the way is dead. Two seconds of transfer remain to find another.
const DEAD_AFTER: Duration = Duration::from_millis(1000);
const DEAD_AFTER_ROUND_TRIPS: u32 = 4;
/// Pause after no other way was found.
const AGAIN: Duration = Duration::from_secs(1);
/// Pauses between attempts to leave a relay: routers change, and so do networks.
const IMPROVE_FIRST: Duration = Duration::from_secs(1);
const IMPROVE_LAST: Duration = Duration::from_secs(60);

/// Looks after a peer until it is gone.
pub(crate) async fn care(inner: Arc<Inner>, peer: Arc<Peer>) {
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = gone(&peer) => {}
        () = watch_over(&inner, &peer) => {}
        () = improve(&inner, &peer) => {}
    }
}

/// Waits until there is no way to the peer any more.
async fn gone(peer: &Peer) {
    loop {
        let link = peer.link();
        link.connection.closed().await;
        if Arc::ptr_eq(&link, &peer.link()) {
            return;
        }
    }
}

/// What has come in and gone out on a connection, as it was seen last.
struct Liveness {
    received: u64,
    sent: u64,
    heard_at: Instant,
    /// Since when something that was sent is unanswered.
    unanswered_since: Option<Instant>,
    asked: bool,
}

impl Liveness {
    fn new(link: &PeerConnection) -> Liveness {
        let stats = link.connection.stats();
        Liveness {
            received: stats.udp_rx.datagrams,
            sent: stats.udp_tx.datagrams,
            heard_at: Instant::now(),
            unanswered_since: None,
            asked: false,
        }
    }

    /// Looks again; whether something came in.
    fn listen(&mut self, link: &PeerConnection) -> bool {
        let stats = link.connection.stats();
        let (received, sent) = (stats.udp_rx.datagrams, stats.udp_tx.datagrams);
        let now = Instant::now();
        let heard = received != self.received;
        if heard {
            (self.heard_at, self.unanswered_since, self.asked) = (now, None, false);
        } else if sent != self.sent {
            self.unanswered_since.get_or_insert(now);
        }
        (self.received, self.sent) = (received, sent);
        heard
    }

    /// Whether something waits for an answer for so long, and for some round batch.
    fn is_unanswered_for(&self, link: &PeerConnection, time: Duration) -> bool {
        let limit = time.max(DEAD_AFTER_ROUND_TRIPS * link.connection.rtt());
        self.unanswered_since
            .is_some_and(|since| since.elapsed() >= limit)
    }
}

/// Notices that a way is dead while something is expected of it, and finds another. Never
/// returns.
async fn watch_over(inner: &Arc<Inner>, peer: &Arc<Peer>) {
    let mut activity = peer.activity();
    loop {
        if activity.wait_for(|&count| count > 0).await.is_err() {
            return;
        }
        let link = peer.link();
        let mut liveness = Liveness::new(&link);
        while *activity.borrow() > 0 && Arc::ptr_eq(&link, &peer.link()) && link.is_alive() {
            sleep(LOOK).await;
            liveness.listen(&link);
            if liveness.heard_at.elapsed() >= ASK_AFTER && !liveness.asked {
                liveness.asked = true;
                inner.tasks.spawn(ask(link.clone()));
            }
            if liveness.is_unanswered_for(&link, DEAD_AFTER) {
                replace(inner, peer, &link, &mut liveness).await;
            }
        }
        if !link.is_alive() {
            // Until another way takes over, or the peer is gone.
            link.retired.cancelled().await;
        }
    }
}

/// Waits until nothing gets through any more on a way that another one has replaced: what is in
/// flight on it waits in vain. Asks at once, since some time may have passed already.
pub(crate) async fn fall_silent(link: &Arc<PeerConnection>) {
    let mut liveness = Liveness::new(link);
    let mut questions = JoinSet::new();
    loop {
        let is_quiet = liveness.heard_at.elapsed() >= ASK_AFTER;
        if questions.is_empty() || (is_quiet && !liveness.asked) {
            liveness.asked = true;
            liveness.unanswered_since.get_or_insert(Instant::now());
            questions.spawn(ask(link.clone()));
        }
        sleep(LOOK).await;
        liveness.listen(link);
        if liveness.is_unanswered_for(link, ASK_AFTER) {
            return;
        }
    }
}

/// Says something to which the other side's QUIC must answer.
async fn ask(link: Arc<PeerConnection>) {
    let said = async {
        let (mut send, mut recv) = link.connection.open_bi().await.ok()?;
        framed::write(&mut send, &Ping {}).await.ok()?;
        send.finish().ok()?;
        // A refusal, from those who do not know what it means.
        let _ = recv.read_to_end(1024).await;
        Some(())
    };
    let _ = timeout(Duration::from_secs(30), said).await;
}

/// Finds another way in place of a dead one.
async fn replace(
    inner: &Arc<Inner>,
    peer: &Arc<Peer>,
    link: &Arc<PeerConnection>,
    liveness: &mut Liveness,
) {
    debug!(peer = %peer.node, address = %link.address(), "silent, looking for another way");
    link.suspect.store(true, Ordering::Relaxed);
    let addresses = [link.address()];
    let found = tokio::select! {
        found = find_path(inner, peer.node, &addresses, PathsWanted::All) => Some(found),
        () = link.retired.cancelled() => return,
        _ = link.connection.closed() => return,
        () = heard_again(link, liveness) => None,
    };
    match found {
        None => debug!(peer = %peer.node, "heard again"),
        Some(Ok(session)) => {
            let silence = liveness.heard_at.elapsed();
            if adopt(inner, session, true).is_some() {
                let path = peer.path();
                info!(peer = %peer.node, ?path, ?silence, "took another way to a peer");
            }
            return;
        }
        Some(Err(cause)) => {
            debug!(peer = %peer.node, %cause, "no other way");
            sleep(AGAIN).await;
        }
    }
    link.suspect.store(false, Ordering::Relaxed);
}

async fn heard_again(link: &PeerConnection, liveness: &mut Liveness) {
    loop {
        sleep(LOOK).await;
        if liveness.listen(link) {
            return;
        }
    }
}

/// Looks for a direct way while there is only one through a relay. Never returns.
async fn improve(inner: &Arc<Inner>, peer: &Arc<Peer>) {
    let mut links = peer.links();
    loop {
        let link = links.borrow_and_update().clone();
        // One of both is enough.
        if link.path == PathKind::Relay && link.is_ours() {
            tokio::select! {
                () = leave_relay(inner, peer) => {}
                _ = links.changed() => {}
            }
        } else if links.changed().await.is_err() {
            return;
        }
    }
}

async fn leave_relay(inner: &Arc<Inner>, peer: &Arc<Peer>) {
    let mut pause = IMPROVE_FIRST;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(IMPROVE_LAST);
        match find_path(inner, peer.node, &[], PathsWanted::Direct).await {
            Ok(session) => {
                if adopt(inner, session, true).is_some() {
                    info!(peer = %peer.node, path = ?peer.path(), "left the relay");
                    return;
                }
            }
            Err(cause) => debug!(peer = %peer.node, %cause, "the relay stays"),
        }
    }
}
