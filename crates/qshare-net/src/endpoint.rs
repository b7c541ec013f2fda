//! One UDP socket that both serves and dials.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::{ALPN_PEER, ALPN_TRACKER, CloseCode};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Runtime, TokioRuntime, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::socket::address_proof::{AddressProof, AddressProofs};
use crate::socket::coalesce::CoalescingSocket;
use crate::socket::{AddressResponder, NonQuicSender, Socket as SharedSocket};
use crate::{Allowances, Identity, Pacing, TransportConfig, stateless_reset, tls};

/// Size of the socket buffers: holds a burst while the process is busy. The kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The configuration of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The address to listen at; port 0 lets the system choose. `[::]` serves both families, and
    /// falls back to `0.0.0.0` where there is no IPv6.
    pub listen: SocketAddr,
    /// The ALPN of accepted connections: [`ALPN_PEER`] for nodes, [`ALPN_TRACKER`] for trackers.
    pub accept_alpn: &'static [u8],
    /// QUIC settings.
    pub transport: TransportConfig,
}

/// Why an endpoint cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {} on {} is in use by another program", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// The system refused the socket.
    #[error("cannot listen on {address}: {cause}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        cause: io::Error,
    },
    /// The identity's key or certificate does not work with TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A QUIC endpoint: one UDP socket and one identity, which accepts connections and dials others.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    id: NodeId,
    to_tracker: quinn::ClientConfig,
    to_peer: quinn::ClientConfig,
    non_quic: NonQuicSender,
    address_proofs: Arc<AddressProofs>,
    allowances: Arc<Mutex<Allowances>>,
    pacing: Arc<Pacing>,
}

impl Endpoint {
    /// Binds the socket. The endpoint runs on the current tokio runtime.
    pub fn bind(identity: &Identity, config: &EndpointConfig) -> Result<Endpoint, BindError> {
        let transport = config.transport.to_quinn();
        let client = |alpn| -> Result<quinn::ClientConfig, BindError> {
            let crypto = QuicClientConfig::try_from(tls::client_config(identity, alpn)?)
                .map_err(|error| BindError::Tls(rustls::Error::General(error.to_string())))?;
            let mut client = quinn::ClientConfig::new(Arc::new(crypto));
            client.transport_config(transport.clone());
            Ok(client)
        };
        let (to_tracker, to_peer) = (client(ALPN_TRACKER)?, client(ALPN_PEER)?);

        let crypto = QuicServerConfig::try_from(tls::server_config(identity, config.accept_alpn)?)
            .map_err(|error| BindError::Tls(rustls::Error::General(error.to_string())))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport);

        let mut endpoint_config = stateless_reset::endpoint_config(identity);
        let payload_max = config.transport.receive_payload_max_bytes();
        endpoint_config
            .max_udp_payload_size(payload_max)
            .map_err(|error| BindError::Tls(rustls::Error::General(error.to_string())))?;

        // A cleared fixed bit (RFC 9287) marks datagrams that are not QUIC's.
        endpoint_config.grease_quic_bit(false);

        let io_error = |cause| BindError::Io {
            address: config.listen,
            cause,
        };
        let runtime = Arc::new(TokioRuntime);
        let socket = udp_socket(config.listen)?;
        let socket = runtime.wrap_udp_socket(socket).map_err(io_error)?;
        let socket = Arc::new(SharedSocket::new(CoalescingSocket::new(socket)).map_err(io_error)?);
        let pacing = Arc::clone(socket.pacing());
        let non_quic = socket.sender();
        let address_proofs = Arc::clone(socket.address_proofs());
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config,
            Some(server),
            socket,
            runtime,
        )
        .map_err(io_error)?;
        Ok(Endpoint {
            quinn,
            id: identity.id(),
            to_tracker,
            to_peer,
            non_quic,
            address_proofs,
            allowances: Arc::new(Mutex::new(Allowances::new(Instant::now()))),
            pacing,
        })
    }

    /// Returns our id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the address to which the socket is bound. An unspecified one means all interfaces.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.quinn.local_addr()?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Returns the sender of datagrams that are not QUIC's, where their handler is installed, too.
    pub fn non_quic(&self) -> &NonQuicSender {
        &self.non_quic
    }

    /// Returns the real address of a node that is dialled through an extra socket, and any other
    /// address unchanged.
    pub fn real_address(&self, address: SocketAddr) -> SocketAddr {
        self.non_quic.real_address(address)
    }

    /// Echoes the acceptor's address probes on a dialled connection until the result is dropped.
    pub(crate) fn answer_probes(&self, connection_id: u64) -> AddressResponder {
        self.address_proofs.answer(connection_id)
    }

    /// Begins to prove the address of an accepted connection.
    pub(crate) fn begin_proof(&self, connection_id: u64, address: SocketAddr) -> AddressProof {
        self.address_proofs
            .begin(connection_id, address, rand::random())
    }

    /// Returns the rate limits of the socket, which may be changed at any time.
    pub fn pacing(&self) -> &Arc<Pacing> {
        &self.pacing
    }

    /// Waits for the next incoming connection; None once the endpoint is closed.
    pub async fn accept(&self) -> Option<quinn::Incoming> {
        self.quinn.accept().await
    }

    /// Returns the limits on what is sent to destinations that do not answer.
    pub(crate) fn allowances(&self) -> &Arc<Mutex<Allowances>> {
        &self.allowances
    }

    /// Returns whether a node at this address may be dialled now, and counts the dial if so.
    pub(crate) fn permit_dial(&self, to: SocketAddr) -> bool {
        let mut allowances = self
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        allowances.permit_dial(Instant::now(), to)
    }

    /// Notes that a dial of this address was answered.
    pub(crate) fn dial_answered(&self, from: SocketAddr) {
        let mut allowances = self
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        allowances.handle_answered(Instant::now(), from);
    }

    /// Starts dialling a tracker. Accepts any id; the caller checks it after the handshake.
    pub(crate) fn connect_tracker(
        &self,
        address: SocketAddr,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        let name = tls::server_name(None);
        self.quinn
            .connect_with(self.to_tracker.clone(), address, &name)
    }

    /// Starts dialling a node. Accepts its id only.
    pub(crate) fn connect_peer(
        &self,
        address: SocketAddr,
        peer: NodeId,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        let name = tls::server_name(Some(peer));
        self.quinn
            .connect_with(self.to_peer.clone(), address, &name)
    }

    /// Closes every connection. Waits up to `deadline` until the peers have been notified.
    pub async fn close(&self, code: CloseCode, deadline: Duration) {
        self.quinn
            .close(VarInt::from_u32(code.code()), code.to_string().as_bytes());
        let _ = tokio::time::timeout(deadline, self.quinn.wait_idle()).await;
    }
}

/// Binds a UDP socket. `[::]` serves both families, and falls back to `0.0.0.0` where there is no
/// IPv6.
///
/// # Errors
///
/// When another program has the port, or the system refuses.
pub fn udp_socket(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let bound = try_bind(address);
    let bound = match bound {
        Err(cause)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && cause.kind() != io::ErrorKind::AddrInUse =>
        {
            try_bind(SocketAddr::new(
                Ipv4Addr::UNSPECIFIED.into(),
                address.port(),
            ))
        }
        bound => bound,
    };
    bound.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::PortInUse(address),
        _ => BindError::Io { address, cause },
    })
}

fn try_bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    widen_buffers(&socket);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Enlarges the buffers of a socket as far as the kernel allows.
pub(crate) fn widen_buffers(socket: &Socket) {
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
}
