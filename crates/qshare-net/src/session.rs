//! Sessions: from a dialled or accepted connection to a peer that sent its Hello and proved its
//! group.

mod address;
pub mod framed;
mod hello;
mod lost;
mod share_proof;

use std::net::SocketAddr;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_wire::hello::{Extensions, Hello, Role};
use qshare_wire::limits::HELLO_DEADLINE;
use qshare_wire::{Candidate, CloseCode, PeerText};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use self::framed::ReadError;
use self::hello::{Side, check_hello, own_hello};
use crate::socket::{AddressResponder, is_made_up};
use crate::{Endpoint, GroupSecret, certificate};

pub use self::address::prove_address;
pub use self::lost::{LostConnection, close_reason, is_goodbye};
pub use self::share_proof::{ShareBinding, ShareRole};

/// The properties that a node or tracker reports to every peer.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// Its role.
    pub role: Role,
    /// The group that every peer must belong to; None serves peers without a group.
    pub group: Option<GroupSecret>,
    /// Addresses at which it listens, besides those that others observe (at most 8).
    pub candidates: Vec<Candidate>,
    /// Feature bits of [`qshare_wire::hello`].
    pub features: u64,
    /// Extensions of [`qshare_wire::hello`].
    pub extensions: Extensions,
}

impl Greeting {
    /// Returns the greeting of a participant in no group, without candidates and features.
    pub fn new(role: Role) -> Greeting {
        Greeting {
            role,
            group: None,
            candidates: Vec::new(),
            features: 0,
            extensions: Vec::new(),
        }
    }
}

/// An authenticated connection: certificate, protocol version and group were checked.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// The peer's id, from its certificate.
    pub peer: NodeId,
    /// The peer's address during the handshake, which proved it. The connection's current address
    /// may differ, and may be forged: see [`prove_address`].
    pub address: SocketAddr,
    /// The peer's Hello.
    pub hello: Hello,
    /// Our half of the control stream. Keep it: dropping it ends the stream.
    pub control_send: SendStream,
    /// The peer's half of the control stream.
    pub control_recv: RecvStream,
    /// Answers the acceptor's probes when our address changes. Keep it as long as the connection.
    /// None if the connection was accepted.
    pub responder: Option<AddressResponder>,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be dialled at all.
    #[error(transparent)]
    Address(#[from] quinn::ConnectError),
    /// The address left too many recent dials unanswered; nothing was sent.
    #[error("{0} did not answer several dials; the next one is tried in some seconds")]
    Unanswered(SocketAddr),
    /// There was no answer before the deadline.
    #[error("no answer from {0}")]
    TimedOut(SocketAddr),
    /// Another peer than the wanted one answered.
    #[error("{address} is {found}, not {wanted}")]
    WrongIdentity {
        /// The address that was dialled.
        address: SocketAddr,
        /// The wanted id.
        wanted: NodeId,
        /// The id that was proven.
        found: NodeId,
    },
    /// The groups differ.
    #[error("group refused: {0}")]
    GroupRefused(GroupMismatch),
    /// The two sides have no protocol version in common. Names the peer's program if the peer sent
    /// it.
    #[error("no protocol version in common{}", .0.as_ref().map(|agent| format!(" with {agent}")).unwrap_or_default())]
    Version(Option<PeerText>),
    /// The peer closed the connection with this code.
    #[error("the peer closed the connection: {0}")]
    Refused(CloseCode),
    /// The connection was lost.
    #[error(transparent)]
    Lost(LostConnection),
    /// The peer's Hello could not be read.
    #[error("no Hello: {0}")]
    Hello(ReadError),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
}

/// How the groups of two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupMismatch {
    /// We belong to a group and the peer to none.
    #[error("the peer belongs to no group")]
    PeerHasNone,
    /// The peer belongs to a group and we to none.
    #[error("the peer belongs to a group, and this side to none")]
    WeHaveNone,
    /// Both belong to a group, but not to the same one.
    #[error("the peer belongs to another group")]
    Different,
    /// The peer did not accept our group, or that we have none.
    #[error("the peer did not accept this side's group")]
    RefusedByPeer,
}

/// Why an accepted connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The handshake failed.
    #[error("handshake: {}", LostConnection::from(.0.clone()))]
    Handshake(#[from] ConnectionError),
    /// The connection was closed with this code.
    #[error("{0}")]
    Refused(CloseCode),
    /// Its half-open slot went to a connection from a network that has fewer.
    #[error("too many unfinished connections; this one was dropped")]
    Evicted,
}

/// The peer that a dial must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialTarget {
    /// A tracker with this id; without an id, any tracker, and [`crate::KnownTrackers`] decides.
    Tracker(Option<NodeId>),
    /// Exactly this node.
    Node(NodeId),
}

/// Dials `address` and exchanges Hellos.
pub async fn dial(
    endpoint: &Endpoint,
    greeting: &Greeting,
    target: DialTarget,
    address: SocketAddr,
    deadline: Duration,
) -> Result<Session, DialError> {
    let exchange = async {
        let connection = perform_handshake(endpoint, target, address).await?;
        greet(endpoint, greeting, connection).await
    };
    timeout(deadline, exchange)
        .await
        .map_err(|_| DialError::TimedOut(address))?
}

/// Dials `address` up to the end of the handshake, which proves the peer's id. The caller may
/// choose among several such connections before the peer gets a Hello on any of them, and continues
/// with [`greet`].
pub async fn connect(
    endpoint: &Endpoint,
    target: DialTarget,
    address: SocketAddr,
    deadline: Duration,
) -> Result<Connection, DialError> {
    timeout(deadline, perform_handshake(endpoint, target, address))
        .await
        .map_err(|_| DialError::TimedOut(address))?
}

async fn perform_handshake(
    endpoint: &Endpoint,
    target: DialTarget,
    address: SocketAddr,
) -> Result<Connection, DialError> {
    // A tracker's address comes from the user, a node's from trackers and peers. Virtual addresses
    // lead to a relay that we have a ticket for.
    let is_limited = matches!(target, DialTarget::Node(_)) && !is_made_up(address.ip());
    if is_limited && !endpoint.permit_dial(address) {
        return Err(DialError::Unanswered(address));
    }
    let (connecting, pin) = match target {
        DialTarget::Tracker(pin) => (endpoint.connect_tracker(address)?, pin),
        DialTarget::Node(peer) => (endpoint.connect_peer(address, peer)?, Some(peer)),
    };
    let connection = connecting.await.map_err(DialError::from)?;
    if is_limited {
        endpoint.dial_answered(address);
    }
    let found = peer_id(&connection).ok_or(DialError::NoCertificate)?;
    if let Some(wanted) = pin.filter(|&wanted| wanted != found) {
        close(&connection, CloseCode::WrongIdentity);
        return Err(DialError::WrongIdentity {
            address,
            wanted,
            found,
        });
    }
    Ok(connection)
}

/// Exchanges Hellos on a connection that [`connect`] established. Has no deadline: drop the future
/// to give up.
pub async fn greet(
    endpoint: &Endpoint,
    greeting: &Greeting,
    connection: Connection,
) -> Result<Session, DialError> {
    let us = endpoint.id();
    let peer = peer_id(&connection).ok_or(DialError::NoCertificate)?;
    // Only a dialler's address may change: the one that was dialled stays proven.
    let address = connection.remote_address();
    let responder = address::connection_id(&connection).map(|id| endpoint.answer_probes(id));
    // The close code is more specific than the error of the stream that ended with the connection.
    let lost = |error: ReadError| match connection.close_reason() {
        Some(closed) => DialError::from(closed),
        None => DialError::Hello(error),
    };
    let (mut control_send, mut control_recv) =
        connection.open_bi().await.map_err(DialError::from)?;
    let ours = own_hello(greeting, &connection, Side::Dialler, us, peer, address);
    framed::write(&mut control_send, &ours)
        .await
        .map_err(|error| lost(error.into()))?;
    let hello: Hello = match framed::read(&mut control_recv).await {
        Ok(hello) => hello,
        Err(error @ ReadError::Wire(_)) => {
            close(&connection, CloseCode::Protocol);
            return Err(DialError::Hello(error));
        }
        Err(error) => return Err(lost(error)),
    };
    match check_hello(greeting, &connection, &hello, Side::Acceptor, us, peer) {
        Ok(()) => Ok(Session {
            connection,
            peer,
            address,
            hello,
            control_send,
            control_recv,
            responder,
        }),
        Err(code) => {
            close(&connection, code);
            Err(match code {
                CloseCode::GroupRefused => DialError::GroupRefused(mismatch(greeting, &hello)),
                CloseCode::Version => DialError::Version(Some(hello.agent)),
                other => DialError::Refused(other),
            })
        }
    }
}

/// Performs the handshake and Hello of an incoming connection, or closes it with a code.
pub async fn accept(
    us: NodeId,
    greeting: &Greeting,
    incoming: quinn::Incoming,
) -> Result<Session, AcceptError> {
    // The handshake proves this address; the peer cannot change it before it is complete.
    let address = incoming.remote_address();
    let connecting = incoming.accept()?;
    let connection = match timeout(HELLO_DEADLINE, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(AcceptError::Handshake(ConnectionError::TimedOut)),
    };
    let exchange = exchange_hellos(us, greeting, &connection, address);
    let code = match timeout(HELLO_DEADLINE, exchange).await {
        Ok(Ok((peer, hello, control_send, control_recv))) => {
            return Ok(Session {
                connection,
                peer,
                address,
                hello,
                control_send,
                control_recv,
                responder: None,
            });
        }
        Ok(Err(code)) => code,
        Err(_) => CloseCode::HelloTimeout,
    };
    close(&connection, code);
    Err(AcceptError::Refused(code))
}

/// Reads the dialler's Hello, checks it and answers it.
async fn exchange_hellos(
    us: NodeId,
    greeting: &Greeting,
    connection: &Connection,
    address: SocketAddr,
) -> Result<(NodeId, Hello, SendStream, RecvStream), CloseCode> {
    let peer = peer_id(connection).ok_or(CloseCode::Protocol)?;
    let (mut send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(|_| CloseCode::Protocol)?;
    let hello: Hello = framed::read(&mut recv)
        .await
        .map_err(|_| CloseCode::Protocol)?;
    check_hello(greeting, connection, &hello, Side::Dialler, us, peer)?;
    let ours = own_hello(greeting, connection, Side::Acceptor, us, peer, address);
    framed::write(&mut send, &ours)
        .await
        .map_err(|_| CloseCode::Protocol)?;
    Ok((peer, hello, send, recv))
}

fn mismatch(greeting: &Greeting, theirs: &Hello) -> GroupMismatch {
    match (&greeting.group, &theirs.group_proof) {
        (Some(_), None) => GroupMismatch::PeerHasNone,
        (None, Some(_)) => GroupMismatch::WeHaveNone,
        _ => GroupMismatch::Different,
    }
}

/// Returns the id of the peer's certificate.
fn peer_id(connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    certificate::node_id_of(chain.first()?).ok()
}

/// Closes a connection with a code; the reason that the other side reads is the code's text.
pub fn close(connection: &Connection, code: CloseCode) {
    close_because(connection, code, &code.to_string());
}

/// Closes a connection with a code and a readable reason.
pub fn close_because(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> DialError {
        match close_reason(&error) {
            Some(CloseCode::GroupRefused) => DialError::GroupRefused(GroupMismatch::RefusedByPeer),
            Some(CloseCode::Version) => DialError::Version(None),
            Some(code) => DialError::Refused(code),
            None => DialError::Lost(error.into()),
        }
    }
}
