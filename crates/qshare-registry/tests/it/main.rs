//! The integration tests of this crate, one binary: the conformance suite for each implementation
//! of [`qshare_registry::RegistryBackend`].

mod leases;
mod memory;
