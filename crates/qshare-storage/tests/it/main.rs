//! The integration tests of this crate, one binary.

mod batch;
mod following;
mod isolated;
mod library;
mod scale;
