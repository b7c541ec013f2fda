//! From a dialled or accepted connection to a peer that said Hello and proved its group.

pub mod framed;

use std::net::SocketAddr;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_wire::hello::{Hello, Role, VERSION};
use qshare_wire::limits::HELLO_DEADLINE;
use qshare_wire::{Candidate, CloseCode};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::identity::group::{EXPORTER_LABEL, ProofBinding};
use crate::socket::is_made_up;
use crate::{Endpoint, GroupSecret, tls};

/// What we say about ourselves to everybody.
#[derive(Debug, Clone)]
pub struct Greeting {
    /// What we are.
    pub role: Role,
    /// The group that everybody must belong to; None serves all.
    pub group: Option<GroupSecret>,
    /// Where we listen, beyond what others observe (at most 8).
    pub candidates: Vec<Candidate>,
    /// Feature bits of [`qshare_wire::hello`].
    pub features: u64,
}

/// An authenticated connection: certificate, version and group were checked.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// Who is at the other end, by its certificate.
    pub peer: NodeId,
    /// What it said.
    pub hello: Hello,
    /// Our half of the control stream. Keep it: dropping it ends the stream.
    pub control_send: SendStream,
    /// Their half of the control stream.
    pub control_recv: RecvStream,
}

/// Why a dialled connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be dialled at all.
    #[error("{0}")]
    Address(#[from] quinn::ConnectError),
    /// Nobody answered in time.
    #[error("no answer from {0}")]
    TimedOut(SocketAddr),
    /// Somebody else answered.
    #[error("{address} is {found}, not {wanted}")]
    WrongIdentity {
        /// Where.
        address: SocketAddr,
        /// Who was wanted.
        wanted: NodeId,
        /// Who was found.
        found: NodeId,
    },
    /// The group did not match.
    #[error("the group was refused: {0}")]
    GroupRefused(String),
    /// No protocol version in common.
    #[error("no protocol version in common: {0}")]
    Version(String),
    /// The other side closed, or broke the protocol.
    #[error("{0}")]
    Closed(String),
}

/// Why an accepted connection was turned away.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It never finished the handshake.
    #[error("handshake: {0}")]
    Handshake(#[from] ConnectionError),
    /// It was turned away with this code.
    #[error("{0}")]
    Refused(CloseCode),
}

/// Whom a dialler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialTarget {
    /// A tracker; without an id, whoever answers (and [`crate::KnownTrackers`] decides).
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
        let connection = shake_hands(endpoint, target, address).await?;
        greet(endpoint, greeting, connection).await
    };
    timeout(deadline, exchange)
        .await
        .map_err(|_| DialError::TimedOut(address))?
}

/// Dials `address` up to where it is known who is there. Of several such connections one can then
/// be chosen, before the other side takes any of them for the one: [`greet`] goes on from here.
pub async fn connect(
    endpoint: &Endpoint,
    target: DialTarget,
    address: SocketAddr,
    deadline: Duration,
) -> Result<Connection, DialError> {
    timeout(deadline, shake_hands(endpoint, target, address))
        .await
        .map_err(|_| DialError::TimedOut(address))?
}

async fn shake_hands(
    endpoint: &Endpoint,
    target: DialTarget,
    address: SocketAddr,
) -> Result<Connection, DialError> {
    let (connecting, pin) = match target {
        DialTarget::Tracker(pin) => (endpoint.connect_tracker(address)?, pin),
        DialTarget::Node(peer) => (endpoint.connect_peer(address, peer)?, Some(peer)),
    };
    let connection = connecting
        .await
        .map_err(|error| closed_to_dial_error(&error))?;
    let found = peer_id(&connection)
        .ok_or_else(|| DialError::Closed("the peer showed no certificate".into()))?;
    if let Some(wanted) = pin.filter(|&wanted| wanted != found) {
        refuse(&connection, CloseCode::WrongIdentity);
        return Err(DialError::WrongIdentity {
            address,
            wanted,
            found,
        });
    }
    Ok(connection)
}

/// Exchanges Hellos on a connection that [`connect`] made. Drop it after a while that seems
/// long enough: there is no deadline in it.
pub async fn greet(
    endpoint: &Endpoint,
    greeting: &Greeting,
    connection: Connection,
) -> Result<Session, DialError> {
    let peer = peer_id(&connection)
        .ok_or_else(|| DialError::Closed("the peer showed no certificate".into()))?;
    say_hello(endpoint.id(), greeting, connection, peer).await
}

async fn say_hello(
    us: NodeId,
    greeting: &Greeting,
    connection: Connection,
    peer: NodeId,
) -> Result<Session, DialError> {
    let lost = |connection: &Connection, text: String| match connection.close_reason() {
        Some(error) => closed_to_dial_error(&error),
        None => DialError::Closed(text),
    };
    let (mut control_send, mut control_recv) = connection
        .open_bi()
        .await
        .map_err(|error| closed_to_dial_error(&error))?;
    let ours = own_hello(greeting, &connection, Side::Dialler, us, peer);
    framed::write(&mut control_send, &ours)
        .await
        .map_err(|error| lost(&connection, error.to_string()))?;
    let hello: Hello = match framed::read(&mut control_recv).await {
        Ok(hello) => hello,
        Err(framed::ReadError::Wire(error)) => {
            refuse(&connection, CloseCode::Protocol);
            return Err(DialError::Closed(error.to_string()));
        }
        Err(error) => return Err(lost(&connection, error.to_string())),
    };
    match check_hello(greeting, &connection, &hello, Side::Acceptor, us, peer) {
        Ok(()) => Ok(Session {
            connection,
            peer,
            hello,
            control_send,
            control_recv,
        }),
        Err(code) => {
            refuse(&connection, code);
            Err(match code {
                CloseCode::GroupRefused => DialError::GroupRefused(group_reason(greeting, &hello)),
                CloseCode::Version => DialError::Version(hello.agent),
                other => DialError::Closed(other.to_string()),
            })
        }
    }
}

/// Takes an incoming connection through handshake and Hello, or turns it away with a reason.
pub async fn accept(
    us: NodeId,
    greeting: &Greeting,
    incoming: quinn::Incoming,
) -> Result<Session, AcceptError> {
    let connecting = incoming.accept()?;
    let connection = match timeout(HELLO_DEADLINE, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(AcceptError::Handshake(ConnectionError::TimedOut)),
    };
    let code = match timeout(HELLO_DEADLINE, hear_hello(us, greeting, &connection)).await {
        Ok(Ok((peer, hello, control_send, control_recv))) => {
            return Ok(Session {
                connection,
                peer,
                hello,
                control_send,
                control_recv,
            });
        }
        Ok(Err(code)) => code,
        Err(_) => CloseCode::HelloTimeout,
    };
    refuse(&connection, code);
    Err(AcceptError::Refused(code))
}

async fn hear_hello(
    us: NodeId,
    greeting: &Greeting,
    connection: &Connection,
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
    let ours = own_hello(greeting, connection, Side::Acceptor, us, peer);
    framed::write(&mut send, &ours)
        .await
        .map_err(|_| CloseCode::Protocol)?;
    Ok((peer, hello, send, recv))
}

#[derive(Clone, Copy)]
enum Side {
    Dialler,
    Acceptor,
}

fn own_hello(
    greeting: &Greeting,
    connection: &Connection,
    side: Side,
    us: NodeId,
    peer: NodeId,
) -> Hello {
    let group_proof = greeting.group.as_ref().and_then(|secret| {
        let binding = binding(connection, side, us, peer)?;
        Some(secret.prove(&binding))
    });
    let observed = connection.remote_address();
    Hello {
        versions: (VERSION, VERSION),
        features: greeting.features,
        role: greeting.role,
        agent: concat!("qshare/", env!("CARGO_PKG_VERSION")).into(),
        group_proof,
        candidates: greeting.candidates.clone(),
        observed: (!is_made_up(observed.ip()))
            .then(|| SocketAddr::new(observed.ip().to_canonical(), observed.port())),
        extensions: Vec::new(),
    }
}

fn check_hello(
    greeting: &Greeting,
    connection: &Connection,
    hello: &Hello,
    prover_side: Side,
    us: NodeId,
    peer: NodeId,
) -> Result<(), CloseCode> {
    hello.common_version().ok_or(CloseCode::Version)?;
    let proven = match (&greeting.group, &hello.group_proof) {
        (None, None) => true,
        (Some(secret), Some(proof)) => binding(connection, prover_side, peer, us)
            .is_some_and(|binding| secret.verify(&binding, proof)),
        _ => false,
    };
    if proven {
        Ok(())
    } else {
        Err(CloseCode::GroupRefused)
    }
}

fn binding(
    connection: &Connection,
    side: Side,
    prover: NodeId,
    verifier: NodeId,
) -> Option<ProofBinding> {
    let mut exported = [0; 32];
    connection
        .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
        .ok()?;
    let prover_side = match side {
        Side::Dialler => 0,
        Side::Acceptor => 1,
    };
    Some(ProofBinding {
        exported,
        prover_side,
        prover,
        verifier,
    })
}

fn group_reason(greeting: &Greeting, theirs: &Hello) -> String {
    match (&greeting.group, &theirs.group_proof) {
        (Some(_), None) => "the other side belongs to no group".into(),
        (None, Some(_)) => "the other side belongs to a group and we do not".into(),
        _ => "the other side belongs to another group".into(),
    }
}

/// The id of whoever is at the other end.
fn peer_id(connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    tls::node_id_of(chain.first()?).ok()
}

fn refuse(connection: &Connection, code: CloseCode) {
    connection.close(VarInt::from_u32(code.code()), code.to_string().as_bytes());
}

/// The code with which the other side closed the connection, if it did so and we know it.
pub fn close_reason(error: &ConnectionError) -> Option<CloseCode> {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_code(close.error_code.into()),
        _ => None,
    }
}

/// Whether the other side left in good order, as opposed to being lost.
pub fn is_goodbye(error: &ConnectionError) -> bool {
    close_reason(error) == Some(CloseCode::Goodbye)
}

fn closed_to_dial_error(error: &ConnectionError) -> DialError {
    match close_reason(error) {
        Some(CloseCode::GroupRefused) => {
            DialError::GroupRefused("the other side did not accept our group".into())
        }
        Some(CloseCode::Version) => DialError::Version("refused by the other side".into()),
        Some(code) => DialError::Closed(format!("the other side said: {code}")),
        None => DialError::Closed(error.to_string()),
    }
}
