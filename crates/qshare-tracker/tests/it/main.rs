//! The integration tests of this crate, one binary.

mod common;
mod fairness;
mod hostile;
mod introductions;
mod knocks;
mod moves;
mod service;
mod shared;
