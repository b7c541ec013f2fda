//! Error messages, and whether the commands that they suggest work.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use qshare_tests::binary;
use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::process::{Ended, Process, Signal, run};
use qshare_tests::world::World;

/// Returns the command in a message: from the binary's path to the end of its line.
fn command_in(ended: &Ended) -> String {
    let binary = binary::path().to_str().unwrap();
    let line = ended
        .err
        .lines()
        .find_map(|line| line.find(binary).map(|at| line[at..].to_owned()));
    line.unwrap_or_else(|| panic!("no command in {ended:?}"))
}

/// Runs the command of a message and waits until it is ready.
fn works(world: &World, place: &str, ended: &Ended) -> Process {
    let process = Process::start(world.shell(place, &command_in(ended)));
    process.ready();
    process
}

#[test]
fn a_port_in_use_comes_with_a_command_that_works() {
    let world = World::new();
    let tracker = world.tracker();
    let node = world.node("node", tracker.address);
    let (tracker_at, node_at) = (tracker.address.to_string(), node.address.to_string());
    let refused = world.run(
        "2",
        &[
            "tracker",
            "--json",
            "--certs",
            "it's mine",
            "--listen",
            &tracker_at,
        ],
    );
    let refused = refused.with(1).saying("in use");
    works(&world, "2", &refused);
    let refused = world.run(
        "3",
        &[
            "node",
            "--json",
            "--certs",
            "certs",
            "--listen",
            &node_at,
            "--tracker",
            &tracker_at,
        ],
    );
    let refused = refused.with(1).saying("in use");
    works(&world, "3", &refused);
    world.put("node", "x", b"1");
    tracker.client().until_complete("x", 1);
    let refused = world
        .get("4", tracker.address, &["x", "--listen", &node_at])
        .with(1);
    run(world.shell("4", &command_in(&refused))).well();
}

#[test]
fn an_identity_in_use_comes_with_a_command_that_works() {
    let world = World::new();
    let tracker = world.tracker();
    let node = world.node("place", tracker.address);
    let tracker_at = tracker.address.to_string();
    let arguments = [
        "node",
        "--json",
        "--certs",
        "certs",
        "--tracker",
        &tracker_at,
    ];
    // The same port as well, as a second start in the same directory would have it.
    let node_at = node.address.to_string();
    let mut again = world.command("place", arguments);
    again.args(["--listen", &node_at]);
    let refused = run(again).with(1).saying("in use by another process");
    let second = works(&world, "place", &refused);
    let mut third = world.command("place", arguments);
    third.args(["--listen", &node_at]);
    let refused = run(third).with(1);
    let third = works(&world, "place", &refused);
    let ids: Vec<_> = [&second, &third]
        .map(|node| node.ready()["id"].to_string())
        .into();
    assert_ne!(ids[0], ids[1]);

    let mut again = world.command("tracker", ["tracker", "--json", "--certs", "certs"]);
    again.args(["--listen", &tracker_at]);
    let refused = run(again).with(1).saying("in use by another process");
    works(&world, "tracker", &refused);
}

#[test]
fn a_tracker_and_two_nodes_start_in_one_place_with_what_the_messages_suggest() {
    // The default ports may be taken on the machine that runs this; the suggestions are not.
    let world = World::new();
    let tracker =
        Process::start(world.command("place", ["tracker", "--json", "--listen", "[::]:0"]));
    let port = tracker.ready()["listen"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let hint = tracker.err_line(|line| {
        line.split_once("on this machine:")
            .map(|(_, said)| said.trim().to_owned())
    });
    assert_eq!(hint, format!("qshare node --tracker 127.0.0.1:{port}"));
    let words: Vec<&str> = hint.split_whitespace().skip(1).collect();
    let start = |place: &str| {
        let mut command = world.command(place, &words);
        command.args(["--json", "--listen", "[::]:0"]);
        Process::start(command)
    };
    world.put("one", "hello", b"hello");
    // Both have the user's identity directory, since neither place has one of its own.
    let mut command = world.command("one", &words);
    command
        .args(["--json", "--listen", "[::]:0"])
        .env("HOME", world.path("place"));
    let one = Process::start(command);
    one.ready();
    one.says("connected");
    let two = start("two");
    two.ready();
    two.says("connected");
}

#[test]
fn an_ambiguous_name_comes_with_commands_that_pick_one() {
    let world = World::new();
    let tracker = world.tracker();
    let (one, two) = (noise(1000, 60), noise(2000, 61));
    world.put("one", "my file", &one);
    world.put("two", "my file", &two);
    let _nodes = ["one", "two"].map(|place| world.node(place, tracker.address));
    tracker.client().until("my file", |found| found.len() == 2);
    let refused = world
        .get("to", tracker.address, &["my file"])
        .with(3)
        .saying("2 different files");
    let binary = binary::path().to_str().unwrap();
    for bytes in [&one, &two] {
        let id = &info(bytes).id().to_string()[..10];
        let line = refused.err.lines().find(|line| line.contains(id)).unwrap();
        let command = &line[line.find(binary).unwrap()..];
        let place = format!("to-{id}");
        run(world.shell(&place, command)).well();
        assert_same(&world.path(&place).join("my file"), bytes);
    }
}

#[test]
fn an_unknown_name_comes_with_names_like_it() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "report-2026.pdf", b"1");
    let _node = world.node("node", tracker.address);
    tracker.client().until_complete("report-2026.pdf", 1);
    let got = world
        .get("to", tracker.address, &["reprot-2026.pdf"])
        .with(3);
    assert!(got.err.contains("report-2026.pdf"), "{got:?}");
    world.get("to", tracker.address, &["nothing/**"]).with(3);
    let address = tracker.address.to_string();
    let listed = world
        .run("to", &["ls", "reprot-2026.pdf", "--tracker", &address])
        .with(3);
    assert!(listed.err.contains("report-2026.pdf"), "{listed:?}");
}

#[test]
fn wrong_usage_is_code_2() {
    let world = World::new();
    for arguments in [
        &["get"][..],
        &["get", "id:xyz"],
        &["get", "qshare:nonsense"],
        &["get", "../x"],
        &["node", "--listen", "nonsense"],
        &["nonsense"],
    ] {
        let ended = world.run("place", arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}

#[test]
fn identities_are_told_and_stay() {
    let world = World::new();
    let first = world
        .run("place", &["id", "--json", "--certs", "certs"])
        .well();
    let again = world
        .run("place", &["id", "--json", "--certs", "certs"])
        .well();
    assert_eq!(first.out, again.out);
    let node = world.run("other", &["id", "--certs", "certs"]).well();
    assert!(node.out.starts_with("node "), "{node:?}");
    assert_eq!(first.json()[0]["node"].as_str().unwrap().len(), 52);
}

#[test]
fn ready_lines_have_exactly_the_documented_fields() {
    let world = World::new();
    let tracker = world.tracker();
    let node = world.node("node", tracker.address);
    for process in [&tracker.process, &node.process] {
        let ready = process.ready();
        let mut found: Vec<_> = ready.as_object().unwrap().keys().collect();
        found.sort_unstable();
        assert_eq!(found, ["id", "listen"]);
    }
    node.process.signal(Signal::TERM);
    node.process.end().well();
}
