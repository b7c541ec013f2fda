//! Trackers that restart, trackers side by side, changed keys, groups.

use std::net::SocketAddr;

use qshare_tests::files::{assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::privilege::{Namespace, skip};
use qshare_tests::process::{Process, Signal, run};
use qshare_tests::tracker_client::TrackerClient;
use qshare_tests::world::{Tracker, World};

const MIB: usize = 1 << 20;

/// Starts the tracker again with its identity and its port.
fn restart(world: &World, mut tracker: Tracker) -> Tracker {
    tracker.process.kill();
    let address = tracker.address;
    world.tracker_with("tracker", &address.to_string(), &[])
}

#[test]
fn a_restarted_tracker_hears_from_everybody_again() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "x", b"1");
    let _node = world.node("node", tracker.address);
    tracker.client().until_complete("x", 1);
    let tracker = restart(&world, tracker);
    tracker.client().until_complete("x", 1);
    world.get("to", tracker.address, &["x"]).well();
}

#[test]
fn a_node_may_start_before_its_tracker() {
    let world = World::new();
    // A port that is free: a tracker had it.
    let tracker = world.tracker();
    let address = tracker.address;
    drop(tracker);
    world.put("node", "x", b"1");
    let node = world.node("node", address);
    node.process.says("unreachable");
    let tracker = world.tracker_with("tracker", &address.to_string(), &[]);
    tracker.client().until_complete("x", 1);
    world.get("to", tracker.address, &["x"]).well();
}

#[test]
fn a_download_goes_on_while_the_tracker_is_away() {
    let bytes = noise(4 * MIB, 50);
    let world = World::new();
    let mut tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "x", &bytes);
    let getting = world.start_get("to", tracker.address, &["x"]);
    peer.until_asked(1);
    tracker.process.kill();
    peer.open();
    getting.end().well();
    assert_same(&world.path("to/x"), &bytes);
}

#[test]
fn a_node_announces_to_several_trackers_and_get_asks_all() {
    let world = World::new();
    let one = world.tracker();
    let mut two = world.tracker_with("tracker-2", "127.0.0.1:0", &[]);
    world.put("both", "both", b"1");
    world.put("second", "second", b"2");
    let address = two.address.to_string();
    let _both = world.node_with("both", one.address, &["--tracker", &address]);
    let _second = world.node("second", two.address);
    one.client().until_complete("both", 1);
    two.client().until_complete("both", 1);
    two.client().until_complete("second", 1);
    world
        .get(
            "to",
            one.address,
            &["--tracker", &address, "both", "second"],
        )
        .well();
    assert_same(&world.path("to/both"), b"1");
    assert_same(&world.path("to/second"), b"2");
    two.process.kill();
    world
        .get("again", one.address, &["--tracker", &address, "both"])
        .well();
}

#[test]
fn without_a_tracker_the_code_is_5_and_the_message_says_how_to_start_one() {
    let world = World::new();
    let tracker = world.tracker();
    let address = tracker.address;
    drop(tracker);
    let got = world.get("to", address, &["x"]).with(5);
    assert!(
        got.err.contains(&address.to_string()) && got.err.contains("qshare tracker"),
        "{got:?}"
    );
    let address = address.to_string();
    world
        .run("to", &["ls", "--tracker", &address])
        .with(5)
        .saying(&address);
}

#[test]
fn nobody_who_has_it_any_more_is_code_5() {
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(2 * MIB, 51);
    let gated = TestPeer::start(Manner::Gated, tracker.address, "x", &bytes);
    let getting = world.start_get("to", tracker.address, &["x"]);
    gated.until_asked(1);
    drop(gated);
    getting.end().with(5).saying("no reachable peer has x");
}

#[test]
fn a_group_serves_its_members_and_refuses_everybody_else() {
    let world = World::new();
    let dir = world.dir("keys");
    world
        .run("keys", &["group", "new", "team"])
        .well()
        .saying("qshare node --group");
    world
        .run("keys", &["group", "new", "team"])
        .with(1)
        .saying("exists");
    world.run("keys", &["group", "new", "others"]).well();
    let team = dir.join("team");
    let others = dir.join("others");
    let (team, others) = (team.to_str().unwrap(), others.to_str().unwrap());
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &["--group", team]);
    world.put("node", "x", b"secret");
    let _node = world.node_with("node", tracker.address, &["--group", team]);
    let client = TrackerClient::connect(tracker.address, Some(team.as_ref()));
    client.until_complete("x", 1);
    world
        .get("member", tracker.address, &["--group", team, "x"])
        .well();
    assert_same(&world.path("member/x"), b"secret");
    world
        .get("wrong", tracker.address, &["--group", others, "x"])
        .with(7)
        .saying("group");
    world
        .get("none", tracker.address, &["x"])
        .with(7)
        .saying("group");
    let address = tracker.address.to_string();
    world
        .run("none", &["ls", "--tracker", &address])
        .with(7)
        .saying("group");
    world
        .get("no-file", tracker.address, &["--group", "nowhere", "x"])
        .with(1)
        .saying("nowhere");

    // A node does not serve non-members that know its address, either.
    let open = world.tracker_with("open", "127.0.0.1:0", &[]);
    let stranger = world.node("stranger", tracker.address);
    stranger.process.says("refused");
    world
        .get("to", open.address, &["--group", team, "x"])
        .with(7);
}

#[test]
fn a_tracker_whose_key_changed_is_refused_until_it_is_forgotten() {
    let Some(namespace) = Namespace::new("qshare-key") else {
        return skip("a network namespace needs root");
    };
    // Beyond loopback, where keys are not remembered.
    let address: SocketAddr = "10.89.0.1:7000".parse().unwrap();
    let world = World::new();
    let start = |place: &str| {
        let listen = address.to_string();
        let command = world.command(
            place,
            ["tracker", "--json", "--certs", "certs", "--listen", &listen],
        );
        let process = Process::start(namespace.command(&command));
        let id = process.ready()["id"].as_str().unwrap().to_owned();
        (process, id)
    };
    let (first, first_id) = start("tracker-1");
    let node = world.command(
        "node",
        [
            "node",
            "--json",
            "--no-prompt",
            "--certs",
            "certs",
            "--listen",
            "10.89.0.1:0",
            "--tracker",
            "10.89.0.1:7000",
        ],
    );
    world.put("node", "x", b"1");
    let node = Process::start(namespace.command(&node));
    node.says("connected");
    let get = |more: &[&str]| {
        let mut command = world.get_command("to", address, &["--certs", "certs", "--force", "x"]);
        command.args(more);
        run(namespace.command(&command))
    };
    qshare_tests::process::eventually("the file", || (get(&[]).code == Some(0)).then_some(()));

    drop(first);
    let (_second, second_id) = start("tracker-2");
    let refused = get(&[]).with(7).saying(&first_id).saying(&second_id);
    let refused = refused.saying("qshare forget 10.89.0.1:7000");
    drop(refused);
    node.says("refused");
    world
        .run("to", &["forget", "10.89.0.1:7000", "--certs", "certs"])
        .well();
    // The node still refuses the tracker, so that there is nothing to find.
    get(&[]).with(3);
    world
        .run("to", &["forget", "10.89.0.1:7000", "--certs", "certs"])
        .well();
    world
        .run("to", &["forget", "10.89.0.1:7000", "--certs", "certs"])
        .with(3);
    node.signal(Signal::TERM);
    node.end().well();
}
