//! The integration tests of this crate, one binary.

mod common;
mod hostile;
mod model;
mod registry;
