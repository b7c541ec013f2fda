//! Sessions with trackers: kept up, announced over, asked.
//!
//! Trackers know nothing about peers. What a tracker says about another node goes up through a
//! channel of [`IntroductionFrom`]; that a session began or ended is told by a watch.

mod announce;
mod ask;
mod candidates;
mod dial;
mod session;
mod sessions;

pub(crate) use ask::{Established, answers_to};
pub(crate) use candidates::{local_candidates, resolve_candidates};
pub(crate) use dial::{dial_tracker, resolve_tracker};
pub(crate) use session::{SessionState, TrackerSession};
pub(crate) use sessions::{IntroductionFrom, Trackers, TrackersConfig};
