//! Several trackers over one registry in a real Redis, and nodes that lose theirs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, UdpSocket};

use qshare_tests::process::{Ended, Process, Signal};
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

/// Starts `share` of a file of this content at these trackers. Returns it and the code.
fn share(world: &World, content: &[u8], trackers: &[&Tracker]) -> (Process, String) {
    world.put("sharer", "shared.bin", content);
    let mut command = world.command("sharer", ["share", "assets/shared.bin", "--json", "-v"]);
    command.args(["--no-lan", "--listen", "127.0.0.1:0"]);
    for tracker in trackers {
        command.args(["--tracker", &tracker.address.to_string()]);
    }
    let sharer = Process::start(command);
    let code = sharer.ready()["code"].as_str().unwrap().to_owned();
    (sharer, code)
}

fn get(world: &World, place: &str, tracker: &Tracker, code: &str) -> Ended {
    let address = tracker.address.to_string();
    world.run(place, &["get", "--no-lan", "--tracker", &address, code])
}

fn assert_fetched(world: &World, place: &str, content: &[u8]) {
    let fetched = std::fs::read(world.path(place).join("shared.bin")).unwrap();
    assert!(fetched == content, "another content");
}

#[test]
fn a_code_is_redeemed_at_any_tracker_of_the_registry_and_guesses_are_counted_over_all() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let (a, b) = (tracker(&world, &redis, "a"), tracker(&world, &redis, "b"));
    // A sharer that knows both trackers claims its number once.
    let (both, code) = share(&world, b"of two trackers", &[&a, &b]);
    for (place, tracker) in [("to-a", &a), ("to-b", &b)] {
        get(&world, place, tracker, &code).well();
        assert_fetched(&world, place, b"of two trackers");
    }
    both.signal(Signal::TERM);
    both.end();
    let (_sharer, code) = share(&world, b"of one tracker", &[&a]);
    get(&world, "one", &b, &code).well();
    assert_fetched(&world, "one", b"of one tracker");
    // Nobody gets further guesses by asking another tracker.
    let number = code.split('-').next().unwrap();
    let words = if code.ends_with("-zoo-zebra") {
        "zebra-zoo"
    } else {
        "zoo-zebra"
    };
    let wrong = format!("{number}-{words}");
    for tracker in [&b, &a, &b] {
        let refused = get(&world, "wrong", tracker, &wrong).with(7);
        refused.saying("the words are wrong");
    }
    let ended = get(&world, "late", &b, &code).with(3);
    ended.saying("three wrong guesses");
}

#[test]
fn a_code_goes_on_working_at_a_sibling_when_the_sharers_tracker_is_killed() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let (mut a, b) = (tracker(&world, &redis, "a"), tracker(&world, &redis, "b"));
    let (sharer, code) = share(&world, b"kept", &[&a]);
    sharer.says("knows siblings of its tracker");
    a.process.kill();
    // Without an option: the receiver's tracker knows that the sharer's tracker was lost.
    get(&world, "to", &b, &code).well();
    assert_fetched(&world, "to", b"kept");
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
