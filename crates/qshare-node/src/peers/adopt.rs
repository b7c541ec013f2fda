//! Makes a session the connection of a peer, and attends to the connection until it is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qshare_net::{Endpoint, Session, Slot, Traversal, close, framed, is_goodbye, is_virtual};
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::{CloseCode, is_private};
use tokio::sync::mpsc;
use tracing::{debug, trace};

use super::connection::{NewConnection, Peer, PeerConnection};
use super::liveness::fall_silent;
use super::table::{Inserted, PeerTable};
use crate::neighbours::Neighbours;
use crate::runtime::Tasks;
use crate::vocabulary::PathKind;

/// How long a replaced connection is kept for data that is in flight on it.
const DRAIN: Duration = Duration::from_secs(5);

/// A change among the connected nodes.
pub(crate) enum PeerEvent {
    /// A node is connected.
    Connected(Arc<Peer>, Arc<PeerConnection>),
    /// A node's connection was replaced by this one.
    Replaced(Arc<Peer>, Arc<PeerConnection>),
    /// A node is no longer connected.
    Gone(Arc<Peer>),
}

/// Makes sessions the connections of peers.
pub(crate) struct Adopter {
    endpoint: Endpoint,
    traversal: Traversal,
    neighbours: Arc<Neighbours>,
    table: Arc<PeerTable>,
    /// Unbounded, because each event belongs to a connection, and these are bounded.
    events: mpsc::UnboundedSender<PeerEvent>,
    tasks: Tasks,
}

impl Adopter {
    pub(crate) fn new(
        endpoint: Endpoint,
        traversal: Traversal,
        neighbours: Arc<Neighbours>,
        table: Arc<PeerTable>,
        events: mpsc::UnboundedSender<PeerEvent>,
        tasks: Tasks,
    ) -> Adopter {
        Adopter {
            endpoint,
            traversal,
            neighbours,
            table,
            events,
            tasks,
        }
    }

    /// Makes a session that this node dialled the connection to its node, unless an existing one is
    /// kept.
    pub(crate) fn adopt_dialled(self: &Arc<Self>, session: Session) -> Option<Arc<Peer>> {
        self.adopt(session, None)
    }

    /// Makes an accepted session the connection to its node, unless an existing one is kept.
    pub(crate) fn adopt_accepted(
        self: &Arc<Self>,
        session: Session,
        slot: Arc<Slot>,
    ) -> Option<Arc<Peer>> {
        self.adopt(session, Some(slot))
    }

    fn adopt(self: &Arc<Self>, session: Session, slot: Option<Arc<Slot>>) -> Option<Arc<Peer>> {
        let Session {
            connection,
            peer: node,
            control_send,
            control_recv,
            responder,
            ..
        } = session;
        if node == self.table.us() || self.table.is_shunned(&node) {
            close(&connection, CloseCode::Busy);
            return None;
        }
        let remote = connection.remote_address();
        let real = self.endpoint.real_address(remote);
        let ip = real.ip();
        let path = if is_virtual(ip) {
            PathKind::Relay
        } else if is_private(ip) || self.neighbours.is_near(ip) {
            PathKind::Lan
        } else {
            PathKind::Direct
        };
        let is_dialled = slot.is_none();
        let connection = Arc::new(PeerConnection::new(NewConnection {
            connection,
            path,
            real: (real != remote).then_some(real),
            is_dialled,
            slot,
            control: control_send,
            responder,
        }));
        let (peer, event) = match self.table.insert(node, connection.clone()) {
            Inserted::New(peer) => {
                let event = PeerEvent::Connected(peer.clone(), connection.clone());
                (peer, event)
            }
            Inserted::Replaced(peer, older) => {
                self.retire(older);
                let event = PeerEvent::Replaced(peer.clone(), connection.clone());
                (peer, event)
            }
            Inserted::Refused => {
                connection.close(CloseCode::Duplicate);
                return None;
            }
        };
        if peer.is_asked() {
            self.table.share_windows();
        }
        debug!(peer = %node, address = %connection.address(), ?path, is_dialled, "connected");
        // Fails only when the node stops.
        let _ = self.events.send(event);
        let (adopter, attended) = (self.clone(), peer.clone());
        self.tasks.spawn(async move {
            adopter.attend(attended, connection, control_recv).await;
        });
        Some(peer)
    }

    /// Retires a replaced connection. It is kept for a while for data in flight, as long as
    /// anything is received on it. The other side may have dialled because it found the path dead
    /// before this side did.
    fn retire(&self, older: Arc<PeerConnection>) {
        older.retired.cancel();
        if older.is_suspect.load(Ordering::Relaxed) {
            older.close(CloseCode::Duplicate);
            return;
        }
        self.tasks.spawn(async move {
            tokio::select! {
                _ = older.connection.closed() => return,
                () = fall_silent(&older) => {
                    debug!(address = %older.address(), "nothing gets through on the older path");
                }
                () = tokio::time::sleep(DRAIN) => {}
            }
            older.close(CloseCode::Duplicate);
        });
    }

    /// Reads the control stream, and removes the peer when its connection is lost.
    async fn attend(
        &self,
        peer: Arc<Peer>,
        connection: Arc<PeerConnection>,
        mut control: quinn::RecvStream,
    ) {
        // Version 1 sends nothing here after Hello; messages of later versions are ignored.
        while let Ok(frame) = framed::read_frame(&mut control, SMALL_BODY_MAX_BYTES).await {
            trace!(peer = %peer.node, kind = frame.kind, "ignored a control message");
        }
        let cause = connection.connection.closed().await;
        debug!(peer = %peer.node, path = ?connection.path, %cause, "disconnected");
        let remote = connection.connection.remote_address();
        self.endpoint.non_quic().end_socket(remote);
        if !self.table.remove(&peer, &connection) {
            return;
        }
        if is_goodbye(&cause) {
            self.traversal.left(peer.node);
        }
        self.table.share_windows();
        self.table.forget_if_empty(&peer.node);
        let _ = self.events.send(PeerEvent::Gone(peer));
    }
}
