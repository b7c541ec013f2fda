//! A connected node, and one connection to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{NodeId, Topic};
use qshare_net::{AddressResponder, InUse, Slot, close};
use qshare_swarm::PeerKey;
use qshare_wire::CloseCode;
use quinn::SendStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::table::Claim;
use crate::vocabulary::PathKind;

/// A connected node. It stays the same peer when its connection is replaced.
pub(crate) struct Peer {
    /// Identifies the peer while it has any connection. A node that reconnects later gets another
    /// key.
    pub(crate) key: PeerKey,
    /// This node.
    pub(super) us: NodeId,
    pub(crate) node: NodeId,
    connection: watch::Sender<Arc<PeerConnection>>,
    /// Number of answers that this node awaits from the peer or sends to it.
    activity: watch::Sender<usize>,
    /// Whether this node requests anything from it. A peer that only requests from this node gets
    /// a small receive window.
    is_asked: AtomicBool,
}

/// A connection to a node, with the path that it takes.
pub(crate) struct PeerConnection {
    pub(crate) connection: quinn::Connection,
    pub(crate) path: PathKind,
    /// The real remote address, if the connection itself has a virtual one.
    pub(super) real: Option<SocketAddr>,
    /// Whether this node dialled.
    pub(super) is_dialled: bool,
    pub(super) since: Instant,
    /// Whether nothing was received for a while although an answer is outstanding.
    pub(super) is_suspect: AtomicBool,
    /// Cancelled when another connection to the same node takes over.
    pub(crate) retired: CancellationToken,
    /// Its receive window in bytes, once it has a share of the budget.
    window_bytes: AtomicU32,
    shortest_rtt_us: AtomicU64,
    losses: Mutex<Losses>,
    /// The topics that this node may request here: both sides have proven that they know the key.
    unlocked: Mutex<BTreeSet<Topic>>,
    /// The slot of an accepted connection.
    slot: Option<Arc<Slot>>,
    _control: SendStream,
    /// Answers the other side's probes when the address of this side changes.
    _responder: Option<AddressResponder>,
}

/// The parts of a new [`PeerConnection`].
pub(super) struct NewConnection {
    pub(super) connection: quinn::Connection,
    pub(super) path: PathKind,
    pub(super) real: Option<SocketAddr>,
    pub(super) is_dialled: bool,
    pub(super) slot: Option<Arc<Slot>>,
    pub(super) control: SendStream,
    pub(super) responder: Option<AddressResponder>,
}

impl PeerConnection {
    pub(super) fn new(new: NewConnection) -> PeerConnection {
        PeerConnection {
            connection: new.connection,
            path: new.path,
            real: new.real,
            is_dialled: new.is_dialled,
            since: Instant::now(),
            is_suspect: AtomicBool::new(false),
            retired: CancellationToken::new(),
            window_bytes: AtomicU32::new(0),
            shortest_rtt_us: AtomicU64::new(u64::MAX),
            losses: Mutex::default(),
            unlocked: Mutex::default(),
            slot: new.slot,
            _control: new.control,
            _responder: new.responder,
        }
    }

    /// Returns the current remote address.
    pub(crate) fn address(&self) -> SocketAddr {
        let remote = self.real.unwrap_or(self.connection.remote_address());
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Returns the properties that decide which of two connections to one node is kept.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            is_relayed: self.path == PathKind::Relay,
            is_dialled: self.is_dialled,
            since: self.since,
            is_suspect: self.is_suspect.load(Ordering::Relaxed),
        }
    }

    /// Returns the shortest RTT returned by any call so far: that of the path with empty queues.
    pub(crate) fn shortest_rtt(&self) -> Duration {
        let now = u64::try_from(self.connection.rtt().as_micros()).unwrap_or(u64::MAX);
        let before = self.shortest_rtt_us.fetch_min(now, Ordering::Relaxed);
        Duration::from_micros(before.min(now))
    }

    /// Whether packets to the other side were lost within the last RTTs. `lost_packets` counts all
    /// packets lost so far.
    pub(crate) fn is_losing(&self, lost_packets: u64) -> bool {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.is_recent(Instant::now(), lost_packets, self.connection.rtt())
    }

    /// Returns the receive window in bytes; 0 before it has a share of the budget.
    pub(crate) fn window_bytes(&self) -> u64 {
        self.window_bytes.load(Ordering::Relaxed).into()
    }

    pub(super) fn unlocked(&self) -> MutexGuard<'_, BTreeSet<Topic>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_window(&self, bytes: u32) {
        if self.window_bytes.swap(bytes, Ordering::Relaxed) != bytes {
            self.connection.set_receive_window(bytes.into());
        }
    }

    pub(super) fn close(&self, code: CloseCode) {
        close(&self.connection, code);
    }
}

/// The packets lost on a connection, and the time until which the loss counts as recent.
#[derive(Debug, Default)]
struct Losses {
    packets: u64,
    recent_until: Option<Instant>,
}

impl Losses {
    /// RTTs from the detection of a loss until data that was sent after it is no longer held up.
    const RTTS: u32 = 2;

    fn is_recent(&mut self, now: Instant, packets: u64, rtt: Duration) -> bool {
        if packets > self.packets {
            self.packets = packets;
            self.recent_until = Some(now + rtt * Losses::RTTS);
        }
        self.recent_until.is_some_and(|until| now < until)
    }
}

/// While held, data from or to a peer is outstanding: a dead path is detected soon, and the
/// connection is not evicted.
pub(crate) struct Busy<'a> {
    peer: &'a Peer,
    _in_use: Option<InUse>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.peer.activity.send_modify(|count| *count -= 1);
    }
}

impl Peer {
    pub(super) fn new(
        key: PeerKey,
        us: NodeId,
        node: NodeId,
        connection: Arc<PeerConnection>,
    ) -> Peer {
        Peer {
            key,
            us,
            node,
            connection: watch::Sender::new(connection),
            activity: watch::Sender::new(0),
            is_asked: AtomicBool::new(false),
        }
    }

    /// Returns this node's own id.
    pub(crate) fn us(&self) -> NodeId {
        self.us
    }

    /// Returns the current connection.
    pub(crate) fn connection(&self) -> Arc<PeerConnection> {
        self.connection.borrow().clone()
    }

    /// Returns the current QUIC connection, to open streams on.
    pub(crate) fn quic(&self) -> quinn::Connection {
        self.connection.borrow().connection.clone()
    }

    pub(super) fn replace_connection(&self, connection: Arc<PeerConnection>) {
        self.connection.send_replace(connection);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.connection.borrow().address()
    }

    pub(crate) fn path(&self) -> PathKind {
        self.connection.borrow().path
    }

    /// Marks the connection as in use until the result is dropped.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.activity.send_modify(|count| *count += 1);
        let slot = self.connection.borrow().slot.clone();
        Busy {
            peer: self,
            _in_use: slot.map(|slot| slot.begin_use()),
        }
    }

    /// Records that the peer made a request: its connection counts as used just now.
    pub(crate) fn touch(&self) {
        if let Some(slot) = &self.connection.borrow().slot {
            slot.touch(Instant::now());
        }
    }

    /// Returns a watch of the number of outstanding answers.
    pub(super) fn activity(&self) -> watch::Receiver<usize> {
        self.activity.subscribe()
    }

    /// Returns a watch that reports when the connection is replaced.
    pub(super) fn connections(&self) -> watch::Receiver<Arc<PeerConnection>> {
        self.connection.subscribe()
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// Records that this node requests from the peer. Returns whether it did before.
    pub(super) fn set_asked(&self) -> bool {
        self.is_asked.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_recent_for_two_rtts() {
        let (start, rtt) = (Instant::now(), Duration::from_millis(100));
        let mut losses = Losses::default();
        assert!(!losses.is_recent(start, 0, rtt));
        assert!(losses.is_recent(start, 3, rtt));
        assert!(losses.is_recent(start + rtt, 3, rtt));
        assert!(!losses.is_recent(start + 2 * rtt, 3, rtt));
        assert!(losses.is_recent(start + 3 * rtt, 4, rtt));
    }
}
