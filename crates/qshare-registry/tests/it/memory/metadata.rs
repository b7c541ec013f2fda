//! Digests that nodes state, where memory for them is bounded.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::{FileMetadata, Hash};
use qshare_registry::{Announced, RegistryConfig};

use super::common::*;

fn with_digest(entry: Announced, digest: u8) -> Announced {
    Announced {
        metadata: FileMetadata {
            sha256: Some(Hash([digest; 32])),
            ..FileMetadata::default()
        },
        ..entry
    }
}

fn digest(byte: u8) -> String {
    format!("sha256:{}", Hash([byte; 32]))
}

#[test]
fn digests_without_room_are_left_out_and_their_files_are_not() {
    let config = RegistryConfig {
        name_bytes_total: 150,
        ..RegistryConfig::default()
    };
    let mut world = World::new(config);
    let one = world.open(1);
    let refused = world.announce(
        one,
        &[with_digest(entry("a", 1), 1), with_digest(entry("b", 2), 2)],
    );
    assert!(refused.is_empty());
    assert_eq!(world.names(&digest(1)), ["a"]);
    assert!(world.names(&digest(2)).is_empty());
    assert_eq!(world.names("b"), ["b"]);
}
