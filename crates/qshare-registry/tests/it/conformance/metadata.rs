//! What nodes state about files: times, execute bits, plain digests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::{FileMetadata, Hash};
use qshare_registry::{Announced, RegistryConfig};

use super::common::*;

fn stating(entry: Announced, modified_ns: i64) -> Announced {
    Announced {
        metadata: FileMetadata {
            modified_ns: Some(modified_ns),
            executable: true,
            ..FileMetadata::default()
        },
        ..entry
    }
}

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
fn what_all_sources_state_is_told_and_what_they_dispute_is_not() {
    let mut world = World::new(RegistryConfig::default());
    let (one, two, three) = (world.open(1), world.open(2), world.open(3));
    world.announce(one, &[stating(entry("a", 1), 5)]);
    // The same content by another name, and a partial holder, state nothing about this one.
    world.announce(two, &[stating(entry("b", 1), 6)]);
    world.announce(three, &[part("a", 1)]);
    let told = |world: &mut World, query: &str| world.find(query).matches[0].metadata;
    assert_eq!(told(&mut world, "a").modified_ns, Some(5));
    assert!(told(&mut world, "a").executable);
    world.announce(three, &[stating(entry("a", 1), 7)]);
    let disputed = told(&mut world, "a");
    assert_eq!((disputed.modified_ns, disputed.disputed), (None, true));
    let own = told(&mut world, &format!("{}/a", node_id(3)));
    assert_eq!((own.modified_ns, own.disputed), (Some(7), false));
    // A later statement replaces the earlier one, and a withdrawal takes it back.
    world.announce(three, &[stating(entry("a", 1), 5)]);
    assert_eq!(told(&mut world, "a").modified_ns, Some(5));
    world.announce(three, &[stating(entry("a", 1), 8)]);
    world.withdraw(three, &[entry("a", 1)]);
    assert_eq!(told(&mut world, "a").modified_ns, Some(5));
}

#[test]
fn a_digest_finds_the_contents_that_are_claimed_to_have_it() {
    let mut world = World::new(RegistryConfig::default());
    let (one, two) = (world.open(1), world.open(2));
    world.announce(one, &[with_digest(entry("a", 1), 9), entry("b", 2)]);
    assert_eq!(world.names(&digest(9)), ["a"]);
    let found = world.find(&digest(9)).matches[0].metadata.sha256;
    assert_eq!(found, Some(Hash([9; 32])));
    assert!(world.names(&digest(8)).is_empty());
    world.announce(
        two,
        &[with_digest(entry("a", 1), 9), with_digest(entry("c", 3), 9)],
    );
    assert_eq!(world.names(&digest(9)), ["a", "c"]);
    world.withdraw(one, &[entry("a", 1)]);
    assert_eq!(world.names(&digest(9)).len(), 2);
    world.announce(two, &[entry("c", 3)]);
    assert_eq!(world.names(&digest(9)), ["a"]);
    world.close(two, true);
    world.work_off();
    assert!(world.names(&digest(9)).is_empty());
    assert_eq!(world.registry.counts().name_bytes, "b".len());
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
