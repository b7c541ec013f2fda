//! Connections to other nodes: one each, used in both directions, whoever dialled. While a node
//! is on its way from one path to a better one, or away from a dead one, it has two.

mod path_monitor;
pub(crate) mod path_race;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::{Session, framed, is_goodbye, is_virtual};
use qshare_swarm::PeerKey;
use qshare_wire::{CloseCode, is_private};
use quinn::{SendStream, VarInt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use crate::config::Limits;
use crate::node::Inner;
use crate::peers::path_monitor::{care, fall_silent};
use crate::peers::path_race::{PathsWanted, find_path};
use crate::uploads;
use crate::vocabulary::PathKind;

/// Two dials within this time of each other were simultaneous; later, the newest wins, because
/// the older one may be dead without our knowing.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// Of two dials that cross, the second is through so many round batch after the first at the latest,
/// if it gets through as easily.
const CROSSING_TRIPS: u32 = 3;
/// How long a connection that lost to another is left to what is in flight on it.
const DRAIN: Duration = Duration::from_secs(5);
/// A node that sent bad bytes for this many contents is not dealt with any more.
const LIES_MAX: u32 = 3;
/// Nodes whose lies are remembered.
const LIARS_MAX: usize = 4096;

/// Most that one connection may have in flight to us. 1 Gbit/s over 100 ms is 12.5 MB, and what stands
/// behind a lost packet in its stream is not read for another round trip: with 16 MiB one lost packet
/// in a thousand costs a quarter of that rate.
const WINDOW_MAX_BYTES: u32 = 32 << 20;

/// A connected node. The way to it may change while it stays the same peer.
pub(crate) struct Peer {
    /// Names the node for as long as there is some way to it; another key if it comes back.
    pub(crate) key: PeerKey,
    pub(crate) node: NodeId,
    link: watch::Sender<Arc<PeerConnection>>,
    /// Answers awaited from it, and answers being sent to it.
    activity: watch::Sender<usize>,
    /// Whether we ask things of it. Whoever only asks us is not given much room.
    asked: AtomicBool,
    /// Told when none of its requests waits here any more.
    pub(crate) served: Arc<Notify>,
}

/// One connection to a node: a way.
pub(crate) struct PeerConnection {
    pub(crate) connection: quinn::Connection,
    pub(crate) path: PathKind,
    /// Where the other side is, if the connection has a made-up address for it.
    real: Option<SocketAddr>,
    dialled: bool,
    since: Instant,
    /// Nothing has come in for a while although something should have.
    pub(crate) suspect: AtomicBool,
    /// Cancelled when another connection to the same node took over.
    pub(crate) retired: CancellationToken,
    /// Its receive window, once it has a share of the budget.
    window_bytes: AtomicU32,
    shortest_rtt_us: AtomicU64,
    losses: Mutex<Losses>,
    _control: SendStream,
}

impl PeerConnection {
    /// Where the other side is, now.
    pub(crate) fn address(&self) -> SocketAddr {
        let remote = self.real.unwrap_or(self.connection.remote_address());
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    /// Whether it was us who dialled.
    pub(crate) fn is_ours(&self) -> bool {
        self.dialled
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// The shortest round trip that was seen when this was asked: of the path with empty queues.
    pub(crate) fn shortest_round_trip(&self) -> Duration {
        let now = u64::try_from(self.connection.rtt().as_micros()).unwrap_or(u64::MAX);
        let before = self.shortest_rtt_us.fetch_min(now, Ordering::Relaxed);
        Duration::from_micros(before.min(now))
    }

    /// Whether packets to the other side were lost during the last round batch: that many are there.
    pub(crate) fn is_losing(&self, lost_packets: u64) -> bool {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.is_recent(Instant::now(), lost_packets, self.connection.rtt())
    }

    fn set_window(&self, bytes: u32) {
        if self.window_bytes.swap(bytes, Ordering::Relaxed) != bytes {
            self.connection.set_receive_window(bytes.into());
        }
    }
}

/// Packets that were lost on a connection, and until when that counts as recent.
#[derive(Debug, Default)]
struct Losses {
    packets: u64,
    recent_until: Option<Instant>,
}

impl Losses {
    /// Round batch from a loss that is noticed until what was sent after it is not held up any more.
    const TRIPS: u32 = 2;

    fn is_recent(&mut self, now: Instant, packets: u64, round_trip: Duration) -> bool {
        if packets > self.packets {
            self.packets = packets;
            self.recent_until = Some(now + round_trip * Losses::TRIPS);
        }
        self.recent_until.is_some_and(|until| now < until)
    }
}

/// While it is held, something is expected of a peer, or being sent to it.
pub(crate) struct Busy<'a>(&'a Peer);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.activity.send_modify(|count| *count -= 1);
    }
}

impl Peer {
    /// The way to it as it is now.
    pub(crate) fn link(&self) -> Arc<PeerConnection> {
        self.link.borrow().clone()
    }

    /// The connection to ask over now.
    pub(crate) fn connection(&self) -> quinn::Connection {
        self.link.borrow().connection.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.link.borrow().address()
    }

    pub(crate) fn path(&self) -> PathKind {
        self.link.borrow().path
    }

    /// Notes that something is under way with it, so that a dead way is noticed soon.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.activity.send_modify(|count| *count += 1);
        Busy(self)
    }

    pub(crate) fn activity(&self) -> watch::Receiver<usize> {
        self.activity.subscribe()
    }

    /// The ways to it, as they change.
    pub(crate) fn links(&self) -> watch::Receiver<Arc<PeerConnection>> {
        self.link.subscribe()
    }
}

#[derive(Default)]
struct Slot {
    /// Held while one task dials, so that others wait for its result.
    dialling: Arc<tokio::sync::Mutex<()>>,
    connected: Option<Arc<Peer>>,
}

/// All connected nodes.
pub(crate) struct Peers {
    slots: Mutex<HashMap<NodeId, Slot>>,
    lies: Mutex<HashMap<NodeId, u32>>,
    next_key: AtomicU64,
    /// Counts connections, for those who wait for one.
    adopted: watch::Sender<u64>,
    pub(crate) half_open: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
    /// What all who are asked may have in flight to us.
    windows_max_bytes: u32,
}

impl Peers {
    pub(crate) fn new(limits: &Limits) -> Peers {
        Peers {
            slots: Mutex::default(),
            lies: Mutex::default(),
            next_key: AtomicU64::new(1),
            adopted: watch::Sender::new(0),
            half_open: Arc::new(Semaphore::new(limits.half_open_max)),
            accepted: Arc::new(Semaphore::new(limits.accepted_connections_max)),
            windows_max_bytes: limits.windows_max_bytes,
        }
    }

    /// Number of nodes that are connected.
    pub(crate) fn count(&self) -> usize {
        self.lock()
            .values()
            .filter(|slot| slot.connected.is_some())
            .count()
    }

    /// Notes that a node sent bad bytes for one more content.
    pub(crate) fn note_lie(&self, node: NodeId) {
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        if lies.len() < LIARS_MAX || lies.contains_key(&node) {
            *lies.entry(node).or_default() += 1;
        }
    }

    /// Whether a node lied so often that it is not dealt with any more.
    pub(crate) fn is_shunned(&self, node: &NodeId) -> bool {
        let lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        lies.get(node).is_some_and(|&count| count >= LIES_MAX)
    }

    pub(crate) fn connected(&self, node: &NodeId) -> Option<Arc<Peer>> {
        let slots = self.lock();
        let peer = slots.get(node)?.connected.clone()?;
        peer.link().is_alive().then_some(peer)
    }

    /// Divides the bytes that may be in flight to us among those who are asked.
    fn share_windows(&self) {
        let slots = self.lock();
        let asked = slots
            .values()
            .filter_map(|slot| slot.connected.as_ref())
            .filter(|peer| peer.asked.load(Ordering::Relaxed));
        let window = window_bytes(self.windows_max_bytes, asked.clone().count());
        asked.for_each(|peer| peer.link().set_window(window));
    }

    /// Waits until there is a connection to a node.
    async fn appearance(&self, node: &NodeId) -> Arc<Peer> {
        let mut adopted = self.adopted.subscribe();
        loop {
            if let Some(peer) = self.connected(node) {
                return peer;
            }
            if adopted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share of one of so many in a budget, in bytes. Halves, so that it changes rarely.
fn window_bytes(budget_bytes: u32, shares: usize) -> u32 {
    let shares = u32::try_from(shares.next_power_of_two()).unwrap_or(u32::MAX);
    (budget_bytes / shares).min(WINDOW_MAX_BYTES)
}

/// The connection to `node`, made if there is none yet: dialled at `addresses`, and by way of an
/// introduction. It is to be asked something, and has room for the answers.
///
/// The error says for people what was tried.
pub(crate) async fn reach(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: &[SocketAddr],
) -> Result<Arc<Peer>, String> {
    let peer = connect(inner, node, addresses).await?;
    if !peer.asked.swap(true, Ordering::Relaxed) {
        inner.peers.share_windows();
    }
    Ok(peer)
}

async fn connect(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: &[SocketAddr],
) -> Result<Arc<Peer>, String> {
    if node == inner.endpoint.id() {
        return Err("that is this node itself".into());
    }
    if inner.peers.is_shunned(&node) {
        return Err("it sent bad data before".into());
    }
    if let Some(peer) = inner.peers.connected(&node) {
        return Ok(peer);
    }
    let dialling = inner.peers.lock().entry(node).or_default().dialling.clone();
    let _turn = dialling.lock().await;
    if let Some(peer) = inner.peers.connected(&node) {
        return Ok(peer);
    }
    let mut addresses = addresses.to_vec();
    for near in inner.lan.addresses(&node) {
        if !addresses.contains(&near) {
            addresses.push(near);
        }
    }
    let mut way = {
        let inner = inner.clone();
        Box::pin(async move { find_path(&inner, node, &addresses, PathsWanted::All).await })
    };
    let reached = tokio::select! {
        reached = &mut way => reached,
        // The other side's dial came through while ours was under way.
        peer = inner.peers.appearance(&node) => {
            if node < inner.endpoint.id() {
                return Ok(peer);
            }
            // The other side gives its own up for ours: if we did the same, none would be left.
            let link = peer.link();
            match tokio::time::timeout(link.connection.rtt() * CROSSING_TRIPS, &mut way).await {
                Ok(reached) => reached,
                Err(_) => {
                    inner.tasks.spawn(finish_dial(inner.clone(), way));
                    return Ok(peer);
                }
            }
        }
    };
    let result = match reached {
        Ok(session) => adopt(inner, session, true).ok_or_else(|| "it dialled us first".into()),
        Err(cause) => Err(cause),
    };
    let result = match (result, inner.peers.connected(&node)) {
        (Err(_), Some(peer)) => Ok(peer),
        (result, _) => result,
    };
    forget_if_empty(inner, &node);
    result
}

/// Takes what a dial leads to, if it leads anywhere soon.
async fn finish_dial(inner: Arc<Inner>, way: impl Future<Output = Result<Session, String>>) {
    let way = inner.stopping.run_until_cancelled(way);
    if let Ok(Some(Ok(session))) = tokio::time::timeout(SIMULTANEOUS, way).await {
        adopt(&inner, session, true);
    }
}

/// Takes those who dial us until the node stops.
pub(crate) async fn accept_all(inner: Arc<Inner>) {
    loop {
        let incoming = tokio::select! {
            () = inner.stopping.cancelled() => return,
            incoming = inner.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let Ok(half_open) = inner.peers.half_open.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        // Under load, those whose address is not proven pay a round trip for it.
        if inner.peers.half_open.available_permits() < inner.limits.half_open_max / 2
            && incoming.may_retry()
            && !incoming.remote_address_validated()
        {
            let _ = incoming.retry();
            continue;
        }
        let Ok(accepted) = inner.peers.accepted.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let task_inner = inner.clone();
        inner.tasks.spawn(async move {
            let from = incoming.remote_address();
            let id = task_inner.endpoint.id();
            let session = qshare_net::accept(id, &task_inner.greeting, incoming).await;
            drop(half_open);
            match session {
                Ok(session) => {
                    let connection = session.connection.clone();
                    trace!(%from, "said Hello");
                    if adopt(&task_inner, session, false).is_some() {
                        connection.closed().await;
                    }
                }
                Err(error) => debug!(%from, %error, "turned away"),
            }
            drop(accepted);
        });
    }
}

/// Makes a session the way to its node, unless another one stays.
pub(crate) fn adopt(inner: &Arc<Inner>, session: Session, dialled: bool) -> Option<Arc<Peer>> {
    let Session {
        connection,
        peer: node,
        hello: _,
        control_send,
        control_recv,
        ..
    } = session;
    if node == inner.endpoint.id() || inner.peers.is_shunned(&node) {
        close(&connection, CloseCode::Busy);
        return None;
    }
    let remote = connection.remote_address();
    let real = inner.endpoint.real_address(remote);
    let ip = real.ip();
    let path = if is_virtual(ip) {
        PathKind::Relay
    } else if is_private(ip) || inner.lan.is_near(ip) {
        PathKind::Lan
    } else {
        PathKind::Direct
    };
    let link = Arc::new(PeerConnection {
        connection,
        path,
        real: (real != remote).then_some(real),
        dialled,
        since: Instant::now(),
        suspect: AtomicBool::new(false),
        retired: CancellationToken::new(),
        window_bytes: AtomicU32::new(0),
        shortest_rtt_us: AtomicU64::new(u64::MAX),
        losses: Mutex::default(),
        _control: control_send,
    });
    let peer = {
        let mut slots = inner.peers.lock();
        let slot = slots.entry(node).or_default();
        let living = slot.connected.clone().filter(|peer| peer.link().is_alive());
        match living {
            Some(peer) => {
                let older = peer.link();
                if keeps_older(inner.endpoint.id(), node, &older, &link) {
                    close(&link.connection, CloseCode::Duplicate);
                    return None;
                }
                peer.link.send_replace(link.clone());
                retire(inner, older);
                peer
            }
            None => {
                let peer = Arc::new(Peer {
                    key: PeerKey(inner.peers.next_key.fetch_add(1, Ordering::Relaxed)),
                    node,
                    link: watch::Sender::new(link.clone()),
                    activity: watch::Sender::new(0),
                    asked: AtomicBool::new(false),
                    served: Arc::default(),
                });
                slot.connected = Some(peer.clone());
                inner.tasks.spawn(care(inner.clone(), peer.clone()));
                peer
            }
        }
    };
    inner.peers.adopted.send_modify(|count| *count += 1);
    if peer.asked.load(Ordering::Relaxed) {
        inner.peers.share_windows();
    }
    debug!(peer = %node, address = %link.address(), ?path, dialled, "connected");
    inner.tasks.spawn(uploads::serve(
        inner.clone(),
        peer.clone(),
        link.connection.clone(),
    ));
    inner
        .tasks
        .spawn(attend(inner.clone(), peer.clone(), link, control_recv));
    Some(peer)
}

/// A direct way stays before one through a relay, and of two simultaneous dials the one from the
/// smaller id; else the newest.
fn keeps_older(us: NodeId, node: NodeId, older: &PeerConnection, newer: &PeerConnection) -> bool {
    if older.suspect.load(Ordering::Relaxed) {
        return false;
    }
    let crossed = older.dialled != newer.dialled && older.since.elapsed() < SIMULTANEOUS;
    let relayed = |link: &PeerConnection| link.path == PathKind::Relay;
    match (relayed(older), relayed(newer)) {
        (true, false) => false,
        (false, true) => crossed,
        _ => {
            let dialler = |link: &PeerConnection| if link.dialled { us } else { node };
            crossed && dialler(older) < dialler(newer)
        }
    }
}

/// Ends the use of a connection that lost to another; what is in flight on it gets a while, for as
/// long as anything gets through. The other side may have had a reason to dial that we have not
/// noticed yet.
fn retire(inner: &Arc<Inner>, older: Arc<PeerConnection>) {
    older.retired.cancel();
    if older.suspect.load(Ordering::Relaxed) {
        close(&older.connection, CloseCode::Duplicate);
        return;
    }
    inner.tasks.spawn(async move {
        tokio::select! {
            _ = older.connection.closed() => return,
            () = fall_silent(&older) => {
                debug!(address = %older.address(), "the older way is silent");
            }
            () = tokio::time::sleep(DRAIN) => {}
        }
        close(&older.connection, CloseCode::Duplicate);
    });
}

/// Keeps the control stream read, and cleans up when the connection is gone.
async fn attend(
    inner: Arc<Inner>,
    peer: Arc<Peer>,
    link: Arc<PeerConnection>,
    mut control: quinn::RecvStream,
) {
    let max = qshare_wire::limits::SMALL_BODY_MAX_BYTES;
    // Version 1 has nothing to say here after Hello; what later versions say is passed over.
    while let Ok(frame) = framed::read_frame(&mut control, max).await {
        trace!(peer = %peer.node, kind = frame.kind, "passed over on the control stream");
    }
    let cause = link.connection.closed().await;
    debug!(peer = %peer.node, path = ?link.path, %cause, "disconnected");
    let non_quic = inner.endpoint.non_quic();
    non_quic.end_socket(link.connection.remote_address());
    {
        let mut slots = inner.peers.lock();
        if !Arc::ptr_eq(&peer.link(), &link) {
            // Another way has taken over.
            return;
        }
        if let Some(slot) = slots.get_mut(&peer.node)
            && slot
                .connected
                .as_ref()
                .is_some_and(|current| current.key == peer.key)
        {
            slot.connected = None;
        }
    }
    if is_goodbye(&cause) {
        inner.traversal.left(peer.node);
    }
    inner.peers.share_windows();
    inner.uploads.client_left(&peer);
    forget_if_empty(&inner, &peer.node);
}

/// Keeps the map from growing with every node that was ever tried.
fn forget_if_empty(inner: &Arc<Inner>, node: &NodeId) {
    let mut slots = inner.peers.lock();
    if slots
        .get(node)
        .is_some_and(|slot| slot.connected.is_none() && Arc::strong_count(&slot.dialling) <= 2)
    {
        slots.remove(node);
    }
}

fn close(connection: &quinn::Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.code()), code.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_recent_for_two_round_trips() {
        let (start, trip) = (Instant::now(), Duration::from_millis(100));
        let mut losses = Losses::default();
        assert!(!losses.is_recent(start, 0, trip));
        assert!(losses.is_recent(start, 3, trip));
        assert!(losses.is_recent(start + trip, 3, trip));
        assert!(!losses.is_recent(start + 2 * trip, 3, trip));
        assert!(losses.is_recent(start + 3 * trip, 4, trip));
    }

    #[test]
    fn windows_together_stay_within_their_budget() {
        let budget = 64 << 20;
        for peers in 0..600 {
            let window = window_bytes(budget, peers);
            assert!(window <= WINDOW_MAX_BYTES);
            assert!(
                u64::from(window) * peers as u64 <= u64::from(budget),
                "{peers}"
            );
            // And no one gets less than half of what there is for each.
            assert!(peers < 4 || window >= budget / peers as u32 / 2, "{peers}");
        }
    }
}
