//! NAT traversal: how nodes connect that cannot simply dial each other.
//!
//! - [`punch`] (pure) schedules hole-punching probes after an introduction, [`birthday`] (pure)
//!   those towards a symmetric NAT.
//! - [`channels`] keeps the channels through relays.
//! - [`driver`] runs both on the endpoint's socket.
//! - [`port_mapping`] asks the router to forward a port, and [`mod@knock`] has a tracker verify it.
//! - [`mdns`] finds nodes on the local network.

mod birthday;
mod channels;
mod driver;
pub(crate) mod knock;
mod mdns;
mod port_mapping;
mod probe_mac;
pub mod punch;

pub use driver::Traversal;
pub use knock::{KnockError, KnockTarget, Knocked, knock};
pub use mdns::{LanDiscovery, LanError, LanEvent, LocalNetworks};
pub use port_mapping::{MappingError, MappingFailure, MappingProtocol, PortMapping, map_port};
