//! Links that name nodes, with the real program and without a tracker.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;

use qshare_tests::files::{assert_same, noise};
use qshare_tests::process::Process;
use qshare_tests::world::{Node, World};

const MIB: usize = 1 << 20;

/// A node that shares `a.bin` of 3 MiB and `b.txt`, the links to both without a tracker's address,
/// and no tracker.
fn alone(bytes: &[u8]) -> (World, Node, String, String) {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "a.bin", bytes);
    world.put("node", "b.txt", b"small");
    let node = world.node("node", tracker.address);
    for name in ["a.bin", "b.txt"] {
        tracker.client().until_complete(name, 1);
    }
    let address = tracker.address.to_string();
    let listed = world.run(
        "to",
        &["ls", "--links", "--addresses", "--tracker", &address],
    );
    let listed = listed.well().saying("works on this machine only");
    let mut links = listed.out.lines().map(|link| {
        let tracked = format!(",t={}@{}", tracker.id, tracker.address);
        assert!(link.contains(&tracked), "{link}");
        let here = format!(",a={}@{}", node.id, node.address);
        assert!(link.contains(&here), "{link}");
        link.replace(&tracked, "")
    });
    let (a, b) = (links.next().unwrap(), links.next().unwrap());
    (world, node, a, b)
}

#[test]
fn a_link_that_names_a_node_needs_no_tracker() {
    let bytes = noise(3 * MIB, 1);
    let (world, node, a, b) = alone(&bytes);
    let got = world.run("to", &["get", "--json", &a, &b]).well();
    assert_same(&world.path("to/a.bin"), &bytes);
    assert_same(&world.path("to/b.txt"), b"small");
    for file in got.json() {
        assert_eq!(file["sources"][0]["node"], node.id.as_str(), "{file}");
    }

    // A host's name is resolved, and without a name of its own a file goes by its id.
    let nameless = a.split(",n=").next().unwrap();
    let by_name = nameless.replace("127.0.0.1", "localhost");
    world.run("by-name", &["get", &by_name]).well();
    let id = &a["qshare:".len()..][..64];
    assert_same(&world.path("by-name").join(id), &bytes);
}

#[test]
fn at_the_prompt_such_a_link_works_while_the_tracker_is_away() {
    let bytes = noise(3 * MIB, 2);
    let (world, _node, a, _) = alone(&bytes);
    let listen = ["--certs", "certs", "--listen", "127.0.0.1:0"];
    let mut command = world.command("asking", ["node", "--tracker", "127.0.0.1:9"]);
    command.args(listen);
    let mut asking = Process::start(command);
    writeln!(asking.input(), "{a}\nq").unwrap();
    asking.end().well();
    assert_same(&world.path("asking/downloads/a.bin"), &bytes);
}

#[test]
fn nobody_but_the_node_that_the_link_names_will_do() {
    let bytes = noise(3 * MIB, 3);
    let (world, node, a, b) = alone(&bytes);
    let other = world
        .run("other", &["id", "--json", "--certs", "certs"])
        .well();
    let other = other.json()[0]["node"].as_str().unwrap().to_owned();
    for link in [a, b] {
        let forged = link.replace(&node.id, &other);
        world
            .run("to", &["get", &forged])
            .with(5)
            .saying("no reachable peer has");
    }
}
