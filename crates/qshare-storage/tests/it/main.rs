//! The integration tests of this crate, one binary.

mod batch;
mod library;
mod scale;
