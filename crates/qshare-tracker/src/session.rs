//! One node's session: from its Hello to the end of its connection.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_net::{Session, is_goodbye};
use qshare_registry::SessionId;
use qshare_wire::CloseCode;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tracing::{Instrument, debug, debug_span, warn};

use crate::TrackerLimits;
use crate::announce::hear_announcements;
use crate::budget::{Budget, Verdict};
use crate::buffers::Buffers;
use crate::contacts::{canonical, claimed};
use crate::directory::{Directory, Member};
use crate::knock::Knocker;
use crate::relay::Relay;
use crate::request::answer_stream;

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) directory: Arc<Directory>,
    /// Announcements being read.
    pub(crate) announcements: Buffers,
    /// Answers being written.
    pub(crate) answers: Buffers,
    /// None where nothing is relayed.
    pub(crate) relay: Option<Relay>,
    /// None where there is no second port.
    pub(crate) knocker: Option<Knocker>,
    pub(crate) limits: TrackerLimits,
}

/// Our half of a control stream: acknowledgements, and introductions between them.
pub(crate) type Control = Arc<tokio::sync::Mutex<SendStream>>;

/// One session, as its streams see it.
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SessionId,
    pub(crate) node: NodeId,
    pub(crate) connection: Connection,
    budget: Mutex<Budget>,
}

/// Why the tracker ends a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The node broke the protocol.
    #[error("{0}")]
    Protocol(String),
    /// It asked for far too much.
    #[error("too many requests")]
    Flood,
    /// It left, or a newer session of it came.
    #[error("the session has ended")]
    Gone,
}

impl Client {
    /// Where the node is seen now.
    pub(crate) fn seen_at(&self) -> IpAddr {
        canonical(self.connection.remote_address()).ip()
    }

    /// Charges a request.
    pub(crate) fn request(&self, cost: f64) -> Verdict {
        self.budget().request(Instant::now(), cost)
    }

    /// Charges what is slowed down rather than refused.
    pub(crate) fn charge(&self, cost: f64) -> Duration {
        self.budget().charge(Instant::now(), cost)
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session with a reason that the node's user can read.
    fn end(&self, fault: &Fault) {
        let code = match fault {
            Fault::Protocol(_) => CloseCode::Protocol,
            Fault::Flood => CloseCode::Flood,
            Fault::Gone => return,
        };
        debug!(reason = %fault, "closing");
        let reason = fault.to_string();
        self.connection
            .close(VarInt::from_u32(code.code()), reason.as_bytes());
    }
}

/// Closes a connection with a code and its words.
pub(crate) fn close(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.code()), code.to_string().as_bytes());
}

/// Serves a node until its connection ends.
pub(crate) async fn serve(session: Session, shared: Arc<Shared>) {
    let Session {
        connection,
        peer,
        hello,
        control_send,
        control_recv,
        ..
    } = session;
    let span = debug_span!("session", peer = %peer.short());
    let control = Control::new(control_send.into());
    let member = Member::new(
        connection.clone(),
        control.clone(),
        claimed(&hello.candidates),
        hello.features,
    );
    let opened = shared.directory.open(peer, member);
    let id = match opened {
        Ok(id) => id,
        Err(error) => {
            warn!(parent: &span, %error, "turned away");
            let code = VarInt::from_u32(CloseCode::Busy.code());
            connection.close(code, error.to_string().as_bytes());
            return;
        }
    };
    let client = Arc::new(Client {
        budget: Mutex::new(Budget::new(&shared.limits, Instant::now())),
        shared,
        id,
        node: peer,
        connection,
    });
    attend(client, control, control_recv).instrument(span).await;
}

async fn attend(client: Arc<Client>, control: Control, control_recv: RecvStream) {
    debug!(id = %client.id, address = %client.connection.remote_address(), "opened");
    // A fault closes the connection before the stream that it came on is dropped, which would
    // look like the end of an answer.
    let mut streams = JoinSet::new();
    streams.spawn({
        let client = Arc::clone(&client);
        let mut recv = control_recv;
        async move {
            if let Err(fault) = hear_announcements(&client, &control, &mut recv).await {
                client.end(&fault);
            }
        }
    });
    let reason = loop {
        tokio::select! {
            accepted = client.connection.accept_bi() => match accepted {
                Ok((mut send, mut recv)) => {
                    let client = Arc::clone(&client);
                    streams.spawn(async move {
                        if let Err(fault) = answer_stream(&client, &mut send, &mut recv).await {
                            client.end(&fault);
                        }
                    });
                }
                Err(reason) => break reason,
            },
            Some(_) = streams.join_next() => {}
        }
    };
    streams.shutdown().await;
    let clean = is_goodbye(&reason);
    let by_us = matches!(reason, ConnectionError::LocallyClosed);
    debug!(%reason, clean, by_us, "ended");
    if client
        .shared
        .directory
        .closed(client.id, client.node, clean)
        && let Some(relay) = &client.shared.relay
    {
        relay.left(client.node);
    }
}
