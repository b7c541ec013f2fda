//! Sessions with trackers: maintains them, announces over them, and sends requests.
//!
//! This module knows nothing about peers. It passes introductions to other nodes on through a
//! channel of [`IntroductionFrom`]. A watch reports that a session began or ended.

mod announce;
mod ask;
mod candidates;
mod dial;
mod open_spare;
mod registries;
mod session;
mod sessions;
mod siblings;
mod silence;
mod spare;

pub(crate) use ask::{Established, answers_to};
pub(crate) use candidates::{local_candidates, resolve_candidates};
pub(crate) use dial::{dial_tracker, resolve_tracker};
pub(crate) use registries::{Registries, RegistryClaim};
pub(crate) use session::{SessionState, TrackerSession};
pub(crate) use sessions::{IntroductionFrom, Trackers, TrackersConfig};
pub(crate) use silence::silent_for;
