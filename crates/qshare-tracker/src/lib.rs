//! The tracker: a service that knows which node holds what.
//!
//! [`Tracker::start`] listens; each node that comes has one session, in which it announces on the
//! control stream and asks on streams of its own. What it said is kept in a registry
//! ([`qshare_registry`]) that outlives the session by a lease. It introduces nodes to
//! each other, and carries their packets where they find no other way; what is in them it cannot
//! read.
//!
//! Whatever a stranger sends is bounded by [`TrackerLimits`] and the registry's configuration.

mod acceptor;
mod announcements;
mod budget;
mod client;
mod config;
mod contacts;
mod fair_budget;
mod fair_rate;
mod find;
mod introduce;
mod knock;
mod knocker;
mod member;
mod registry_service;
mod relay;
mod reply;
mod request;
mod session;
mod tracker;
mod turns;
mod watch;

pub use config::{DEFAULT_TRACKER_PORT, TrackerConfig, TrackerLimits};
pub use qshare_registry::{Counts, RegistryConfig};
pub use relay::{RelayCounts, RelayLimits};
pub use tracker::{StartError, Tracker};
