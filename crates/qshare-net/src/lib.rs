//! The network layer of qshare: identities, authenticated QUIC sessions, and NAT traversal.
//!
//! [`Identity`] (a key pair and its certificate) makes an [`Endpoint`] (one UDP socket that both
//! serves and dials). [`dial`] and [`accept`] exchange Hellos and return a [`Session`]: an
//! authenticated connection whose group was checked. [`framed`] reads and writes messages on its
//! streams. [`KnownTrackers`] remembers tracker keys as SSH remembers host keys. [`Traversal`]
//! connects nodes behind NATs, directly (hole punching) or through a relay; [`map_port`] asks a
//! router to forward a port, and [`knock()`] has a tracker verify that a port is reachable.
//!
//! This crate knows neither what is shared nor who wants it.
//!
//! | module | contents |
//! |---|---|
//! | `identity` | keys and certificates on disk, group secrets, remembered tracker keys |
//! | `tls` | TLS 1.3 with pinned self-signed certificates |
//! | `endpoint`, `transport` | the QUIC endpoint and its settings |
//! | `stateless_reset` | keys by which a restarted process ends its earlier connections |
//! | `admission` | half-open and established connections, shared fairly between networks |
//! | `pacing` | the limits on what the socket sends and receives |
//! | `token_bucket`, `network_rates` | rate limits, and those by network |
//! | `pake` | the key exchange of codes |
//! | `session` | dial, accept, Hello, frames on streams |
//! | `socket` | the UDP socket below quinn: demultiplexing, relayed packets, coalescing |
//! | `traversal` | hole punching, relay channels, port mapping, knocks, multicast DNS |
//! | `admission` | which incoming connections get a slot |
//! | `allowance` | what may be sent to a destination that does not answer |
//! | `congestion` | congestion controllers |

mod admission;
mod allowance;
mod certificate;
mod congestion;
mod endpoint;
mod identity;
mod network_rates;
mod pacing;
mod pake;
mod resolve;
mod session;
mod socket;
mod stateless_reset;
mod tls;
mod token_bucket;
mod transport;
mod traversal;

pub use admission::{Admission, ConnectionSlots, HalfOpen, InUse, Slot};
pub use allowance::Allowances;
pub use congestion::{Congestion, UnknownCongestion, link_rate};
pub use endpoint::{BindError, Endpoint, EndpointConfig, udp_socket};
pub use identity::{
    GroupError, GroupSecret, Identity, IdentityDir, IdentityError, IdentityFault, IdentityLock,
    IdentityRole, KnownTrackers, TrustError, default_identity_dir, exclude_from_core_dumps,
};
pub use network_rates::NetworkRates;
pub use pacing::{Incoming, Pacing, RateError, RateLimit};
pub use pake::{
    OpenedLink, PakeAwaitingLink, PakeError, PakeReceiver, PakeSharer, SealedLink, VerifiedReceiver,
};
pub use resolve::{ResolveError, resolve, resolve_host};
pub use session::{
    AcceptError, DialError, DialTarget, Greeting, GroupMismatch, LostConnection, Session,
    ShareBinding, ShareRole, accept, close, close_because, close_reason, connect, dial, framed,
    greet, is_goodbye, prove_address,
};
pub use socket::{
    AddressResponder, NonQuic, NonQuicSender, Route, Verdict, is_virtual, virtual_address,
};
pub use token_bucket::TokenBucket;
pub use transport::{MTU_UPPER_BOUND_BYTES, TransportConfig};
pub use traversal::{
    KnockError, KnockTarget, Knocked, LanDiscovery, LanError, LanEvent, LocalNetworks,
    MappingError, MappingFailure, MappingProtocol, PortMapping, Traversal, knock, map_port, punch,
};
