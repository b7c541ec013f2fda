//! Several trackers over one registry in a real Redis, and nodes that lose theirs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, UdpSocket};

use qshare_tests::process::{Process, Signal};
use qshare_tests::redis::Redis;
use qshare_tests::world::{Tracker, World};

/// Starts a tracker that tells others where it is.
fn tracker(world: &World, redis: &Redis, place: &str) -> Tracker {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let arguments = ["--registry", &redis.url(), "--advertise", &address];
    world.tracker_with(place, &address, &arguments)
}

/// Stops a tracker, which says goodbye to its nodes.
fn stop(tracker: Tracker) {
    let process: Process = tracker.process;
    process.signal(Signal::TERM);
    process.end().well();
}

#[test]
fn a_file_is_downloaded_from_a_node_of_another_tracker() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let (a, b) = (tracker(&world, &redis, "a"), tracker(&world, &redis, "b"));
    world.put("node", "x", b"over two trackers");
    let _node = world.node("node", a.address);
    a.client().until_complete("x", 1);
    world.get("to", b.address, &["x"]).well();
    assert_eq!(
        std::fs::read(world.path("to/x")).unwrap(),
        b"over two trackers"
    );
}

#[test]
fn a_node_whose_tracker_stops_goes_to_a_sibling_that_nobody_named() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let (a, b) = (tracker(&world, &redis, "a"), tracker(&world, &redis, "b"));
    world.put("node", "x", b"1");
    let node = world.node_with("node", a.address, &["-v"]);
    a.client().until_complete("x", 1);
    // The trackers find each other within seconds, and tell the node.
    node.process.says("knows siblings of its tracker");
    stop(a);
    b.client().until_complete("x", 1);
    // What is shared from now on is announced to the sibling.
    world.put("node", "y", b"2");
    b.client().until_complete("y", 1);
    world.get("to", b.address, &["x", "y"]).well();
}

#[test]
fn a_node_announces_to_one_tracker_of_a_registry_and_keeps_the_other_in_reserve() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let (a, b) = (tracker(&world, &redis, "a"), tracker(&world, &redis, "b"));
    world.put("node", "x", b"1");
    let second = b.address.to_string();
    let _node = world.node_with("node", a.address, &["--tracker", &second]);
    // Each tracker counts the node once.
    for tracker in [&a, &b] {
        let found = tracker.client().until_complete("x", 1);
        assert_eq!(found.holders.len(), 1);
    }
    stop(a);
    world.put("node", "y", b"2");
    b.client().until_complete("y", 1);
    b.client().until_complete("x", 1);
}
