//! The conformance suite on the registry in memory.

use std::time::Instant;

use qshare_registry::{Registry, RegistryConfig};

#[path = "conformance/common.rs"]
mod common;
#[path = "conformance/full.rs"]
mod full;
#[path = "conformance/hostile.rs"]
mod hostile;
#[path = "conformance/metadata.rs"]
mod metadata;
#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/registry.rs"]
mod registry;
#[path = "conformance/topics.rs"]
mod topics;

/// The implementation that is tested.
type Backend = Registry;

fn backend(config: RegistryConfig, now: Instant) -> Backend {
    Registry::new(config, now, 1)
}
