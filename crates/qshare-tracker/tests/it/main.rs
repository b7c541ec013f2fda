//! The integration tests of this crate, one binary.

mod common;
#[path = "../../../qshare-registry/tests/it/conformance/mod.rs"]
mod conformance;
mod fairness;
mod hostile;
mod introductions;
mod knocks;
mod moves;
mod service;
mod shared;
