//! The integration tests of this crate, one binary.

mod conformance;
mod leases;
mod memory;
