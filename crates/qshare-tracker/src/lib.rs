//! The tracker: a service that knows which node holds which content.
//!
//! [`Tracker::start`] listens. Each node has one session, in which it announces on the control
//! stream and asks on streams of its own. The registry ([`qshare_registry`]) keeps the announced
//! entries for a lease beyond the session. The tracker also introduces nodes to each other and
//! relays the packets of those that find no direct path; it cannot read these packets.
//!
//! [`TrackerLimits`], [`RelayLimits`] and [`RegistryConfig`] bound the resources that nodes may
//! use. When a resource is used up, the heaviest user of the heaviest network yields
//! ([`qshare_content::fair`]).
//!
//! | module | contents |
//! |---|---|
//! | `tracker`, `acceptor` | start, stop, admission of nodes |
//! | `session`, `announcements` | a connection, and its control stream |
//! | `requests`, `request` | the requests of a session, and one of them |
//! | `find`, `watch`, `introduce`, `knock` | the handlers, one a request type |
//! | `mailboxes` | where sharers and receivers of codes meet |
//! | `client`, `reply` | what handlers use of a session and of the services |
//! | `registry_service`, `member` | the registry behind its lock; nodes in session |
//! | `clock` | the time by which leases end |
//! | `contacts` | which addresses are sent to which node |
//! | `budget`, `turns` | limits of one session's requests; turns of lookups on the thread |
//! | `fair_budget`, `fair_rate` | shares of memory and streams; of introductions to a node |
//! | `access` | lists of nodes that may announce, or may not connect |
//! | `metrics`, `registry_metrics`, `operations` | counters, and what an operator sees |
//! | `shared` | the registry that several trackers share, in Redis |
//! | `tracker_peer` | what this tracker does for the others of its registry |
//! | `relay`, `knocker` | datagrams: the relay, and the second port |

mod acceptor;
mod access;
mod announcements;
mod answer_memory;
mod budget;
mod client;
mod clock;
mod config;
mod contacts;
mod fair_budget;
mod fair_rate;
mod find;
mod introduce;
mod knock;
mod knocker;
mod mailboxes;
mod member;
mod metrics;
mod operations;
mod registry_metrics;
mod registry_service;
mod relay;
mod reply;
mod request;
mod requests;
mod session;
mod shared;
mod tracker;
mod tracker_peer;
mod turns;
mod watch;

pub use access::AccessListError;
pub use clock::Clock;
pub use config::{DEFAULT_TRACKER_PORT, TrackerConfig, TrackerLimits};
pub use operations::{ListedFile, NotReady, Operations, RegistryReport, Sample, TrackerReport};
pub use qshare_registry::{Counts, RegistryConfig};
pub use relay::{RelayCounts, RelayLimits};
pub use shared::{
    InvalidRegistry, RegistryAddress, RegistryFault, SharedRegistryConfig, WriteRefusal,
};
pub use tracker::{StartError, Tracker};
