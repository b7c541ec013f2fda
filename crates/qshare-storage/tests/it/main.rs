//! The integration tests of this crate, one binary.

mod batch;
mod folder;
mod following;
mod isolated;
mod library;
mod scale;
