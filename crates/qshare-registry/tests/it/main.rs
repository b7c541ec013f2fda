//! The integration tests of this crate, one binary.

mod common;
mod model;
mod registry;
