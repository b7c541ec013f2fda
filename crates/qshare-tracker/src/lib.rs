//! The tracker: a service that knows which node holds what.
//!
//! [`Tracker::start`] listens; each node that comes has one session, in which it announces on the
//! control stream and asks on streams of its own. What it said is kept in a registry
//! ([`qshare_registry`]) that outlives the session by a lease. It introduces nodes to
//! each other, and carries their packets where they find no other way; what is in them it cannot
//! read.
//!
//! Whatever a stranger sends is bounded by [`TrackerLimits`] and the registry's configuration.

mod announce;
mod budget;
mod buffers;
mod config;
mod contacts;
mod directory;
mod introduce;
mod knock;
mod relay;
mod request;
mod session;
mod tracker;
mod watch;

pub use config::{DEFAULT_TRACKER_PORT, TrackerConfig, TrackerLimits};
pub use qshare_registry::{Counts, RegistryConfig};
pub use relay::{RelayCounts, RelayLimits};
pub use tracker::{StartError, Tracker};
