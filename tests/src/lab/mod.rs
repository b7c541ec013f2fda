//! A network on one machine: hosts in network namespaces, links with a rate, a delay and a loss,
//! and routers that translate addresses as people's routers do.
//!
//! Hosts hang on one *internet*, a namespace that routes. Each has a /24 and a /48 of its own
//! there, addresses that look public, and the far end of its cable is where its link is shaped:
//!
//! ```text
//!  host a                      internet                         router of b        host b
//!  eth0 198.18.1.2 ── up ──▶ s1 ═ routes ═ d2 (delay) ═ s2 ── down ──▶ wan │ lan ──── eth0
//!                  ◀─ down ─                                  ◀── up ──
//! ```
//!
//! - A rate holds for each direction of a link on its own (`tbf`: a queue that drops its tail).
//! - Delay, jitter and loss belong to the *receiving* side. A packet from a to b crosses exactly
//!   one of them, b's; a round trip takes the delay of a plus that of b.
//! - A host behind a router has the router's link; the cable between the two is ideal.
//!
//! Everything lives in namespaces that nothing outside refers to, and every program in it hangs
//! on one process ([`isolation`]), so that not even SIGKILL leaves a trace.
//!
//! ```no_run
//! # use qshare_tests::lab::{HostPlan, Lab, Link, NatKind, isolation};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! isolation::prepare()?;
//! let lab = Lab::builder()
//!     .host(HostPlan::new("tracker"))
//!     .host(HostPlan::new("a").link(Link::with_rate("100mbit".parse()?)))
//!     .host(HostPlan::new("b").nat(NatKind::Cone))
//!     .build()?;
//! lab.host("a").command("qshare").arg("node").spawn()?;
//! println!("{} bytes so far", lab.host("a").counters()?.received_bytes);
//! # Ok(())
//! # }
//! ```

mod attachment;
mod bundle;
mod delay;
mod error;
mod host;
mod internet;
pub mod isolation;
mod namespace;
mod network;
mod plan;
mod port_mapping;
pub mod probe;
mod router;
mod units;

pub use error::LabError;
pub use host::{Counters, Host};
pub use network::Lab;
pub use plan::{HostPlan, LabBuilder, Link, NatKind};
pub use port_mapping::{Asked, Liar, PortMappingDaemon, missing_daemon};
pub use router::Router;
pub use units::{Loss, Rate, UnitError, parse_duration};
