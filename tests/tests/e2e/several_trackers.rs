//! Several trackers over one registry in a real Redis, and nodes that lose theirs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::world::{Tracker, World};

/// A Redis server for one test. It ends when the value is dropped.
struct Redis {
    process: Child,
    url: String,
}

impl Redis {
    /// Starts one on a free port. None, with a message, where it is not installed.
    fn start(world: &World) -> Option<Redis> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let started = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(world.path("."))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "redis-server is not installed"
            );
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        eventually("Redis listens", || TcpStream::connect(address).ok());
        let url = format!("redis://{address}");
        Some(Redis { process, url })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a tracker that tells others where it is.
fn tracker(world: &World, redis: &Redis, place: &str) -> Tracker {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let arguments = ["--registry", &redis.url, "--advertise", &address];
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
    let Some(redis) = Redis::start(&world) else {
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
    let Some(redis) = Redis::start(&world) else {
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
    let Some(redis) = Redis::start(&world) else {
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
