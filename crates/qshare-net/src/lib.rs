//! The network as qshare sees it: who am I, whom do I reach, and what did they say.
//!
//! [`Identity`] (a key pair and its certificate) makes an [`Endpoint`] (one UDP socket that both
//! serves and dials). Whoever dials or is dialled exchanges Hellos and comes out as a
//! [`Session`]: an authenticated connection whose group was checked. [`framed`] reads and writes
//! messages on its streams. [`KnownTrackers`] remembers keys as SSH does. Nodes behind routers
//! find each other, directly or through a relay, in a [`Traversal`]; a router can be asked to let
//! others in ([`map_port`]), and a tracker whether they really get in ([`knock()`]).
//!
//! Nothing here knows what is shared or who wants it.

mod coalesce;
mod congestion;
mod endpoint;
pub mod framed;
mod group;
mod identity;
mod knock;
mod known_trackers;
mod lan;
mod port_mapping;
pub mod punch;
mod resolve;
mod session;
mod socket;
mod tls;
mod transport;
mod traversal;

pub use congestion::{Congestion, UnknownCongestion, link_rate};
pub use endpoint::{BindError, Endpoint, EndpointConfig, udp_socket};
pub use group::{GroupError, GroupSecret};
pub use identity::{Identity, IdentityError, IdentityLock, IdentityRole, default_identity_dir};
pub use knock::{KnockError, KnockTarget, Knocked, knock};
pub use known_trackers::{KnownTrackers, TrustError};
pub use lan::{LanDiscovery, LanError, LanEvent, LocalNetworks};
pub use port_mapping::{MappingError, MappingProtocol, PortMapping, map_port};
pub use resolve::{ResolveError, resolve, resolve_host};
pub use session::{
    AcceptError, DialError, DialTarget, Greeting, Session, accept, close_reason, connect, dial,
    greet, is_goodbye,
};
pub use socket::{NonQuic, NonQuicSender, Route, Verdict, is_virtual, virtual_address};
pub use transport::TransportConfig;
pub use traversal::Traversal;
