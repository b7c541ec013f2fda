//! Connections to other nodes: one each, used in both directions, whoever dialled.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::{Callee, Session, dial, framed};
use qshare_swarm::PeerKey;
use qshare_wire::{CloseCode, is_private};
use quinn::{SendStream, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use crate::node::Inner;
use crate::report::PathKind;
use crate::uploads;

/// Time for one attempt to reach a node at one address.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// Two dials within this time of each other were simultaneous; later, the newest wins, because
/// the older one may be dead without our knowing.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// How long a connection that lost to another is left to what is in flight on it.
const DRAIN: Duration = Duration::from_secs(5);
/// A node that sent bad bytes for this many contents is not dealt with any more.
const LIES_MAX: u32 = 3;
/// Nodes whose lies are remembered.
const LIARS_MAX: usize = 4096;

/// A connected node.
pub(crate) struct Peer {
    /// Names this connection; a later one to the same node has another key.
    pub(crate) key: PeerKey,
    pub(crate) node: NodeId,
    pub(crate) connection: quinn::Connection,
    pub(crate) address: SocketAddr,
    pub(crate) path: PathKind,
    dialled: bool,
    since: Instant,
    /// Cancelled when another connection to the same node took over.
    pub(crate) retired: CancellationToken,
    _control: SendStream,
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
    pub(crate) half_open: Arc<Semaphore>,
    accepted: Arc<Semaphore>,
}

impl Peers {
    pub(crate) fn new(half_open_max: usize, accepted_max: usize) -> Peers {
        Peers {
            slots: Mutex::default(),
            lies: Mutex::default(),
            next_key: AtomicU64::new(1),
            half_open: Arc::new(Semaphore::new(half_open_max)),
            accepted: Arc::new(Semaphore::new(accepted_max)),
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

    fn connected(&self, node: &NodeId) -> Option<Arc<Peer>> {
        let slots = self.lock();
        let peer = slots.get(node)?.connected.clone()?;
        peer.connection.close_reason().is_none().then_some(peer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection to `node`, dialled at one of `addresses` if there is none yet.
///
/// The error says for people what was tried.
pub(crate) async fn reach(
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
    let reached = race(inner, node, addresses).await;
    let result = match reached {
        Ok(session) => adopt(inner, session, true).ok_or_else(|| "it dialled us first".into()),
        Err(cause) => Err(cause),
    };
    let result = match (result, inner.peers.connected(&node)) {
        // The other side's dial won while ours was under way.
        (Err(_), Some(peer)) => Ok(peer),
        (result, _) => result,
    };
    forget_if_empty(inner, &node);
    result
}

/// Dials all addresses at once and takes the first that answers.
async fn race(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: &[SocketAddr],
) -> Result<Session, String> {
    if addresses.is_empty() {
        return Err("it has no address".into());
    }
    let mut dials = JoinSet::new();
    for &address in addresses {
        let inner = inner.clone();
        dials.spawn(async move {
            let callee = Callee::Node(node);
            let dialled = dial(
                &inner.endpoint,
                &inner.greeting,
                callee,
                address,
                DIAL_DEADLINE,
            )
            .await;
            dialled.map_err(|error| format!("{address}: {error}"))
        });
    }
    let mut causes = Vec::new();
    while let Some(dialled) = dials.join_next().await {
        match dialled {
            Ok(Ok(session)) => return Ok(session),
            Ok(Err(cause)) => causes.push(cause),
            Err(error) => causes.push(error.to_string()),
        }
    }
    Err(causes.join("; "))
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

/// Makes a session the connection to its node, unless another one stays.
fn adopt(inner: &Arc<Inner>, session: Session, dialled: bool) -> Option<Arc<Peer>> {
    let Session {
        connection,
        peer: node,
        hello: _,
        control_send,
        control_recv,
    } = session;
    if node == inner.endpoint.id() || inner.peers.is_shunned(&node) {
        close(&connection, CloseCode::Busy);
        return None;
    }
    let remote = connection.remote_address();
    let address = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let path = if is_private(address.ip()) {
        PathKind::Lan
    } else {
        PathKind::Direct
    };
    let peer = Arc::new(Peer {
        key: PeerKey(inner.peers.next_key.fetch_add(1, Ordering::Relaxed)),
        node,
        connection,
        address,
        path,
        dialled,
        since: Instant::now(),
        retired: CancellationToken::new(),
        _control: control_send,
    });
    {
        let mut slots = inner.peers.lock();
        let slot = slots.entry(node).or_default();
        if let Some(older) = slot.connected.take() {
            if keeps_older(inner.endpoint.id(), &older, &peer) {
                slot.connected = Some(older);
                close(&peer.connection, CloseCode::Duplicate);
                return None;
            }
            retire(inner, older);
        }
        slot.connected = Some(peer.clone());
    }
    debug!(peer = %node, %address, dialled, "connected");
    inner
        .tasks
        .spawn(uploads::serve(inner.clone(), peer.clone()));
    inner
        .tasks
        .spawn(attend(inner.clone(), peer.clone(), control_recv));
    Some(peer)
}

/// Of two simultaneous dials the one from the smaller id stays; else the newest.
fn keeps_older(us: NodeId, older: &Peer, newer: &Peer) -> bool {
    let alive = older.connection.close_reason().is_none();
    let crossed = older.dialled != newer.dialled && older.since.elapsed() < SIMULTANEOUS;
    let older_dialler = if older.dialled { us } else { older.node };
    let newer_dialler = if newer.dialled { us } else { newer.node };
    alive && crossed && older_dialler < newer_dialler
}

/// Ends the use of a connection that lost to another; what is in flight on it gets a while.
fn retire(inner: &Arc<Inner>, older: Arc<Peer>) {
    older.retired.cancel();
    inner.tasks.spawn(async move {
        let _ = tokio::time::timeout(DRAIN, older.connection.closed()).await;
        close(&older.connection, CloseCode::Duplicate);
    });
}

/// Keeps the control stream read, and cleans up when the connection is gone.
async fn attend(inner: Arc<Inner>, peer: Arc<Peer>, mut control: quinn::RecvStream) {
    let max = qshare_wire::limits::SMALL_BODY_MAX_BYTES;
    // Version 1 has nothing to say here after Hello; what later versions say is passed over.
    while let Ok(frame) = framed::read_frame(&mut control, max).await {
        trace!(peer = %peer.node, kind = frame.kind, "passed over on the control stream");
    }
    let cause = peer.connection.closed().await;
    debug!(peer = %peer.node, %cause, "disconnected");
    inner.uploads.client_left(&peer);
    {
        let mut slots = inner.peers.lock();
        if let Some(slot) = slots.get_mut(&peer.node)
            && slot
                .connected
                .as_ref()
                .is_some_and(|current| current.key == peer.key)
        {
            slot.connected = None;
        }
    }
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
