//! The integration tests of this crate, one binary.

mod globs;
mod proofs;
mod vectors;
