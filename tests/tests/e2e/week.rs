//! A week of use, day by day, with the real program: add, limit, pause, restart, resume, a crash,
//! and a tidy end.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;

use qshare_tests::files::noise;
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Ended, eventually, run};
use qshare_tests::world::{Node, Tracker, World};
use serde_json::Value;

const MIB: usize = 1 << 20;
/// Chunk size of small files.
const CHUNK: usize = 128 << 10;
const LARGE: &str = "large.bin";
const LATER: &str = "later.bin";

/// The user's machine, and the others in the swarm.
struct Week {
    world: World,
    tracker: Tracker,
}

impl Week {
    fn start_node(&self) -> Node {
        let mut command = self.world.node_command("node", self.tracker.address);
        command.env("XDG_RUNTIME_DIR", self.world.dir("run"));
        Node::start(command)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.world.command("user", arguments);
        command.env("XDG_RUNTIME_DIR", self.world.dir("run"));
        run(command)
    }

    /// Stops the node as its user does.
    fn stop(&self, node: Node) {
        self.run(&["stop"]).well();
        node.process.end().with(0);
    }

    fn downloads(&self) -> Vec<Value> {
        let report = self.run(&["status", "--json"]).well().json().remove(0);
        report["downloads"].as_array().unwrap().clone()
    }

    fn download(&self, name: &str) -> Option<Value> {
        self.downloads()
            .into_iter()
            .find(|download| download["name"] == name)
    }

    fn until_stage(&self, name: &str, stage: &str) -> Value {
        eventually(&format!("{name} is {stage}"), || {
            self.download(name)
                .filter(|download| download["stage"] == stage)
        })
    }

    fn until_verified(&self, name: &str, bytes: usize) {
        eventually(&format!("{bytes} bytes of {name}"), || {
            let download = self.download(name)?;
            (download["verified_bytes"].as_u64()? >= bytes as u64).then_some(())
        });
    }
}

#[test]
fn nothing_is_lost_in_a_week() {
    let world = World::new();
    let tracker = world.tracker();
    let (large, later) = (noise(64 * CHUNK, 1), noise(3 * MIB, 2));
    world.put("node", "mine.txt", b"shared all week");
    world.put("friend", "note.txt", b"a small file");
    let friend = world.node("friend", tracker.address);
    let source = TestPeer::with_files(
        Manner::Gated,
        tracker.address,
        &[(LARGE, &large), (LATER, &later)],
    );
    let week = Week { world, tracker };

    // Monday: the node is started, and files are added. A small one is there at once.
    let node = week.start_node();
    let client = week.tracker.client();
    client.until_complete("mine.txt", 1);
    week.run(&["add", "note.txt", LARGE]).well();
    week.run(&["add", "--paused", LATER]).well();
    week.until_stage("note.txt", "complete");
    source.allow(10);
    week.until_verified(LARGE, 10 * CHUNK);

    // Tuesday: the line is needed for something else.
    week.run(&["limit", "--down", "3MB"]).well();
    week.run(&["limit", "--down", "900KB", "--priority", "high", LATER])
        .well();
    week.run(&["pause", LARGE]).well();
    week.until_stage(LARGE, "paused");

    // Wednesday: the machine is restarted. What was paused stays paused; what a download was told
    // stays with it, and what the node was told does not.
    week.stop(node);
    week.run(&["status"]).with(5).saying("qshare node");
    let node = week.start_node();
    let paused = week.until_stage(LARGE, "paused");
    assert_eq!(paused["verified_bytes"], 10 * CHUNK);
    let waiting = week.until_stage(LATER, "paused");
    assert_eq!(waiting["priority"], "high");
    assert_eq!(waiting["limit_bytes_per_second"], 900_000);
    let limits = week.run(&["limit", "--json"]).well().json().remove(0);
    assert!(limits["down_bytes_per_second"].is_null(), "{limits}");

    // Thursday: it goes on, and the machine crashes in the middle.
    week.run(&["resume", LARGE]).well();
    source.allow(20);
    week.until_verified(LARGE, 30 * CHUNK);
    let mut node = node;
    node.process.kill();
    let first: HashSet<u64> = asked(&source).into_iter().collect();
    let node = week.start_node();
    week.until_verified(LARGE, 30 * CHUNK);
    let resumed = week.download(LARGE).unwrap();
    assert_eq!(resumed["added_at"], paused["added_at"]);
    assert_ne!(resumed["stage"], "paused", "it runs by itself again");

    // Friday: it goes on where it was.
    // Requests of the crashed node may take some of the permits.
    source.allow(25);
    week.until_verified(LARGE, 32 * CHUNK);
    let again: HashSet<u64> = asked(&source).into_iter().collect();
    assert!(first.len() >= 30, "{first:?}");
    // Of what was verified before the crash nothing was fetched again: only requests that had no
    // answer were made once more.
    let twice = first.intersection(&again).count();
    assert!(twice <= first.len() - 30, "{twice} of {}", first.len());

    // Saturday: it is stopped as it should be.
    week.stop(node);
    drop(friend);
}

/// Returns the chunks of the large file that were requested since the last call.
fn asked(source: &TestPeer) -> Vec<u64> {
    let asked = source.take_asked();
    asked
        .iter()
        .map(|(_, range)| range.start / CHUNK as u64)
        .collect()
}
