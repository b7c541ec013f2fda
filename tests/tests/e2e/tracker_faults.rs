//! Trackers and Redis that are killed, paused, full or read-only while nodes look files up.
//!
//! The nodes are the library, all in this process, each with one file of its own; the trackers are
//! processes of the program. The benchmark `tracker_faults` does the same for longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use qshare_tests::fleet::{Fleet, Load, Outcome, find};
use qshare_tests::process::{PATIENCE, Signal};
use qshare_tests::redis::Redis;
use qshare_tests::world::{Tracker, World};
use tokio::time::sleep;

/// Nodes of each test.
const NODES: usize = 40;
/// How long a fault lasts while nodes look files up.
const FAULT: Duration = Duration::from_millis(1_500);

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Returns an address that is free now.
fn free_address() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// A tracker that can be started again at its address.
struct Restartable<'a> {
    world: &'a World,
    place: &'static str,
    address: SocketAddr,
    registry: Option<String>,
    tracker: Tracker,
}

impl<'a> Restartable<'a> {
    fn start(world: &'a World, place: &'static str, redis: Option<&Redis>) -> Restartable<'a> {
        let address = free_address();
        let registry = redis.map(Redis::url);
        let tracker = start_tracker(world, place, address, registry.as_deref());
        Restartable {
            world,
            place,
            address,
            registry,
            tracker,
        }
    }

    fn kill(&mut self) {
        self.tracker.process.kill();
    }

    fn restart(&mut self) {
        let registry = self.registry.as_deref();
        self.tracker = start_tracker(self.world, self.place, self.address, registry);
    }
}

fn start_tracker(
    world: &World,
    place: &str,
    address: SocketAddr,
    registry: Option<&str>,
) -> Tracker {
    let address = address.to_string();
    match registry {
        Some(url) => {
            let arguments = ["--registry", url, "--advertise", &address];
            world.tracker_with(place, &address, &arguments)
        }
        None => world.tracker_with(place, &address, &[]),
    }
}

/// Waits until a lookup by `asker` has an answer that is `wanted`, for each of `targets`.
async fn until_all(fleet: &Fleet, asker: usize, targets: &[usize], wanted: &Outcome, when: &str) {
    let deadline = Instant::now() + PATIENCE;
    for &target in targets {
        let member = &fleet.members()[target];
        let asker = &fleet.members()[asker].node;
        loop {
            let outcome = find(asker, &member.name, member.content).await;
            if outcome == *wanted {
                break;
            }
            let name = &member.name;
            assert!(Instant::now() < deadline, "{when}: {name}: {outcome:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The numbers of nodes, with and without those whose file is gone.
fn present(gone: &[usize]) -> Vec<usize> {
    (0..NODES).filter(|node| !gone.contains(node)).collect()
}

/// Two trackers, nodes at both, some files withdrawn, and both trackers know everything.
async fn start_fleet(a: &Restartable<'_>, b: &Restartable<'_>) -> (Fleet, Vec<usize>) {
    let places = [a.address, b.address];
    let fleet = Fleet::start(NODES, |number| places[number % 2]).await;
    let everybody = present(&[]);
    for asker in [0, 1] {
        until_all(&fleet, asker, &everybody, &Outcome::Found, "at the start").await;
    }
    let gone = vec![4, 5, 6, 7];
    for &node in &gone {
        fleet.members()[node].withdraw();
    }
    for asker in [0, 1] {
        until_all(&fleet, asker, &gone, &Outcome::Missing, "after withdrawal").await;
    }
    (fleet, gone)
}

/// Has nodes look files up for the time of a fault. While Redis takes no entries nothing is known
/// to be missing, which takes long to find out.
async fn look_up(fleet: &Fleet, gone: &[usize], asks_for_gone: bool, when: &str) {
    let load = Load {
        per_second: 60,
        gone: gone.to_vec(),
        asks_for_gone,
        seed: 1,
    };
    let audit = fleet.look_up(&load, Instant::now() + FAULT).await;
    audit.must_be_right(when);
}

#[test]
fn lookups_find_every_live_file_while_trackers_are_killed_and_paused() {
    let world = World::new();
    let Some(redis) = Redis::start() else {
        return;
    };
    let mut a = Restartable::start(&world, "a", Some(&redis));
    let b = Restartable::start(&world, "b", Some(&redis));
    runtime().block_on(async {
        let (fleet, gone) = start_fleet(&a, &b).await;
        // Nodes of the dead tracker go to the other one, with what they look up.
        a.kill();
        look_up(&fleet, &gone, true, "a tracker was killed").await;
        a.restart();
        look_up(&fleet, &gone, true, "it was started again").await;
        // Its nodes come back one by one. One that is opening a session with a tracker that is
        // paused now, and was with the former one, is known to nobody.
        for asker in [0, 1] {
            until_all(
                &fleet,
                asker,
                &present(&gone),
                &Outcome::Found,
                "all came back",
            )
            .await;
        }
        b.tracker.process.signal(Signal::STOP);
        look_up(&fleet, &gone, true, "the other one is paused").await;
        b.tracker.process.signal(Signal::CONT);
        look_up(&fleet, &gone, true, "it goes on").await;
        let live = present(&gone);
        for asker in [0, 1] {
            until_all(&fleet, asker, &live, &Outcome::Found, "at the end").await;
        }
    });
}

#[test]
fn lookups_find_every_live_file_while_redis_fails_in_every_way() {
    let world = World::new();
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let a = Restartable::start(&world, "a", Some(&redis));
    let b = Restartable::start(&world, "b", Some(&redis));
    runtime().block_on(async {
        let (fleet, gone) = start_fleet(&a, &b).await;
        let live = present(&gone);
        redis.kill();
        look_up(&fleet, &gone, false, "Redis was killed").await;
        redis.restart();
        for asker in [0, 1] {
            until_all(
                &fleet,
                asker,
                &live,
                &Outcome::Found,
                "Redis came back empty",
            )
            .await;
        }
        redis.pause();
        look_up(&fleet, &gone, false, "Redis is paused").await;
        redis.resume();
        for asker in [0, 1] {
            until_all(&fleet, asker, &live, &Outcome::Found, "Redis goes on").await;
        }
        redis.command("CONFIG SET maxmemory 1");
        look_up(&fleet, &gone, false, "Redis is full").await;
        redis.command("CONFIG SET maxmemory 0");
        redis.command("REPLICAOF 127.0.0.1 1");
        look_up(&fleet, &gone, false, "Redis is read-only").await;
        redis.command("REPLICAOF NO ONE");
        for asker in [0, 1] {
            until_all(&fleet, asker, &live, &Outcome::Found, "Redis is well").await;
            until_all(&fleet, asker, &gone, &Outcome::Missing, "Redis is well").await;
        }
    });
}

#[test]
fn nodes_come_back_to_a_tracker_that_was_killed_and_started_again() {
    let world = World::new();
    let mut tracker = Restartable::start(&world, "a", None);
    runtime().block_on(async {
        let address = tracker.address;
        let fleet = Fleet::start(NODES, |_| address).await;
        until_all(&fleet, 0, &present(&[]), &Outcome::Found, "at the start").await;
        tracker.kill();
        tracker.restart();
        // A packet of an earlier session is answered with a stateless reset. Each node sends one:
        // it looks for its neighbour's file, which is there again once that node has come back.
        for asker in 0..NODES {
            let target = [(asker + 1) % NODES];
            until_all(&fleet, asker, &target, &Outcome::Found, "after the restart").await;
        }
    });
}

#[test]
fn a_lookup_waits_for_idle_nodes_of_a_tracker_that_was_started_again() {
    let world = World::new();
    let mut tracker = Restartable::start(&world, "a", None);
    runtime().block_on(async {
        let address = tracker.address;
        let fleet = Fleet::start(2, |_| address).await;
        until_all(&fleet, 0, &[1], &Outcome::Found, "at the start").await;
        tracker.kill();
        tracker.restart();
        // The other node sends nothing before its next keep-alive.
        let idle = &fleet.members()[1];
        let outcome = find(&fleet.members()[0].node, &idle.name, idle.content).await;
        assert_eq!(outcome, Outcome::Found);
    });
}
