//! Downloads that share a rate limit, one of which has a limit of its own. What is compared are bytes
//! of two downloads at one moment, never bytes and time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use qshare_tests::files::noise;
use qshare_tests::process::{Ended, eventually, run};
use qshare_tests::world::{Node, Tracker, World};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Low enough that it is the limit that is shared, not a busy machine.
const LIMIT: &str = "400kB";
/// Bytes of the first download for which the second is looked at.
const MEASURED: u64 = 2 * MIB;
/// The download that the other is compared with.
const FIRST: &str = "first.bin";
const SECOND: &str = "second.bin";

/// A node with a limit, and a source of two files.
struct Scene {
    world: World,
    _others: (Tracker, Node, Node),
}

impl Scene {
    fn new() -> Scene {
        let world = World::new();
        let tracker = world.tracker();
        for (seed, name) in [(1, FIRST), (2, SECOND)] {
            world.put("source", name, &noise(12 * MIB as usize, seed));
        }
        let source = world.node("source", tracker.address);
        tracker.client().until_complete(FIRST, 1);
        tracker.client().until_complete(SECOND, 1);
        let mut command = world.node_command("node", tracker.address);
        command
            .args(["--limit-down", LIMIT])
            .env("XDG_RUNTIME_DIR", world.dir("run"));
        let node = Node::start(command);
        Scene {
            world,
            _others: (tracker, source, node),
        }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.world.command("user", arguments);
        command.env("XDG_RUNTIME_DIR", self.world.dir("run"));
        run(command)
    }

    /// Returns the verified bytes of both downloads at one moment.
    fn verified(&self) -> (u64, u64) {
        let report = self.run(&["status", "--json"]).well().json().remove(0);
        let downloads = report["downloads"].as_array().unwrap();
        let of = |name: &str| {
            let found: Option<&Value> = downloads.iter().find(|one| one["name"] == name);
            found.map_or(0, |download| download["verified_bytes"].as_u64().unwrap())
        };
        (of(FIRST), of(SECOND))
    }

    /// Returns how many bytes of the second are verified while [`MEASURED`] of the first are. The
    /// MiB before does not count: what was requested before the other download began still arrives.
    fn second_meanwhile(&self) -> u64 {
        let after = |bytes: u64| {
            eventually("bytes of the first download", || {
                Some(self.verified()).filter(|(first, _)| *first >= bytes)
            })
        };
        let begin = after(self.verified().0 + MIB);
        let end = after(begin.0 + MEASURED);
        (end.1 - begin.1) * MEASURED / (end.0 - begin.0)
    }
}

#[test]
fn a_limit_of_its_own_leaves_the_rest_to_others() {
    let scene = Scene::new();
    scene.run(&["add", FIRST, SECOND]).well();
    scene.run(&["limit", "--down", "40KB", SECOND]).well();
    let second = scene.second_meanwhile();
    assert!(second < MEASURED / 2, "{second}");
    assert!(second > 0, "a limited download goes on");
}
