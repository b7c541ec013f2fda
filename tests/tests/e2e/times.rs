//! Modification times and execute bits that travel with single files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use qshare_tests::files::noise;
use qshare_tests::world::{Node, Tracker, World};

/// 2 January 2020, and a fraction of a second.
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_577_934_245, 123_456_789)
}

fn set(path: &Path, modified: SystemTime, mode: u32) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().unwrap().permissions().mode() & 0o100 != 0
}

/// A node in `place` that shares `name` with this time, executable.
fn sharer(
    world: &World,
    place: &str,
    tracker: SocketAddr,
    name: &str,
    bytes: &[u8],
    modified: SystemTime,
) -> Node {
    world.put(place, name, bytes);
    set(&world.asset(place, name), modified, 0o755);
    world.node(place, tracker)
}

fn world() -> (World, Tracker) {
    let world = World::new();
    let tracker = world.tracker();
    (world, tracker)
}

#[test]
fn files_of_one_and_of_many_chunks_keep_their_time_and_only_a_named_node_makes_them_executable() {
    let (world, tracker) = world();
    for (place, name, size) in [("small", "run.sh", 30), ("large", "tool", 3 << 20)] {
        let bytes = noise(size, size as u64);
        let node = sharer(&world, place, tracker.address, name, &bytes, then());
        tracker.client().until_complete(name, 1);

        world.get("by-name", tracker.address, &[name]).well();
        let copy = world.path("by-name").join(name);
        assert_eq!((modified(&copy), is_executable(&copy)), (then(), false));

        let of_node = format!("{}/{name}", node.id);
        world.get("by-node", tracker.address, &[&of_node]).well();
        let copy = world.path("by-node").join(name);
        assert_eq!((modified(&copy), is_executable(&copy)), (then(), true));

        let plain = ["--no-times", "--no-exec", &of_node];
        world.get("plain", tracker.address, &plain).well();
        let copy = world.path("plain").join(name);
        assert!(modified(&copy) != then() && !is_executable(&copy));
    }
}

#[test]
fn a_link_states_the_time_and_makes_executable_only_what_one_node_stated() {
    let (world, tracker) = world();
    let node = sharer(&world, "s", tracker.address, "tool", b"#!/bin/sh\n", then());
    tracker.client().until_complete("tool", 1);
    let address = tracker.address.to_string();
    let link = |query: &str| {
        let listed = world.run("ls", &["ls", "--links", "--tracker", &address, query]);
        listed.well().out.trim().to_owned()
    };
    let (by_name, by_node) = (link("tool"), link(&format!("{}/tool", node.id)));
    assert!(by_name.contains(",d=1577934245.123456789"), "{by_name}");
    assert!(!by_name.contains(",x="), "{by_name}");
    assert!(
        by_node.ends_with(",d=1577934245.123456789,x=1"),
        "{by_node}"
    );
    for (place, link, executable) in [("a", by_name, false), ("b", by_node, true)] {
        world.get(place, tracker.address, &[&link]).well();
        let copy = world.path(place).join("tool");
        assert_eq!(
            (modified(&copy), is_executable(&copy)),
            (then(), executable)
        );
    }
}

#[test]
fn sources_that_state_different_times_set_none() {
    let (world, tracker) = world();
    let later = then() + Duration::from_secs(1);
    let _a = sharer(&world, "a", tracker.address, "f", b"same", then());
    tracker.client().until_complete("f", 1);
    let b = sharer(&world, "b", tracker.address, "f", b"same", later);
    tracker.client().until_complete("f", 2);
    world.get("to", tracker.address, &["f"]).well();
    let copy = modified(&world.path("to/f"));
    assert!(copy != then() && copy != later);
    let of_node = format!("{}/f", b.id);
    world.get("named", tracker.address, &[&of_node]).well();
    assert_eq!(modified(&world.path("named/f")), later);
}

#[test]
fn the_execute_bit_is_subject_to_the_umask() {
    let (world, tracker) = world();
    let node = sharer(&world, "s", tracker.address, "tool", b"#!/bin/sh\n", then());
    tracker.client().until_complete("tool", 1);
    let binary = qshare_tests::binary::path();
    let line = format!(
        "sh -c 'umask 0111; exec {} get --tracker {} {}/tool'",
        binary.display(),
        tracker.address,
        node.id
    );
    let ended = qshare_tests::process::run(world.shell("to", &line));
    ended.well();
    assert!(!is_executable(&world.path("to/tool")));
}
