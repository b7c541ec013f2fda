//! Shares that are handed to a running node: served, remembered, ended.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;

use qshare_content::Link;
use qshare_tests::controlled::Controlled;
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::process::{Ended, Process, eventually};
use serde_json::Value;

const MIB: usize = 1 << 20;
const NAME: &str = "report.bin";

/// A user who hands files over.
struct Scene(Controlled);

impl Deref for Scene {
    type Target = Controlled;

    fn deref(&self) -> &Controlled {
        &self.0
    }
}

impl Scene {
    fn new() -> Scene {
        Scene(Controlled::new())
    }

    /// Hands a path over, and returns what `share --json` prints.
    fn share(&self, arguments: &[&str]) -> Value {
        let arguments = [&["share", "--json"], arguments].concat();
        let mut printed = self.run(&arguments).well().json();
        assert_eq!(printed.len(), 1, "{printed:?}");
        printed.remove(0)
    }

    fn get(&self, place: &str, what: &str) -> Ended {
        self.world.get(place, self.tracker.address, &[what])
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        files::put(&self.world.path("user").join(name), bytes);
    }
}

#[test]
fn a_node_shares_what_is_handed_to_it_also_after_its_restart_until_it_is_unshared() {
    let scene = Scene::new();
    let mut node = scene.node("node");
    let bytes = noise(3 * MIB, 80);
    scene.put(NAME, &bytes);
    let shared = scene.share(&[NAME]);
    let text = |field: &str| shared[field].as_str().unwrap().to_owned();
    assert_eq!(shared["name"], NAME);
    assert_eq!(shared["bytes"], bytes.len());
    let (code, link) = (text("code"), text("link"));
    assert!(link.starts_with("qshare:2,"), "{link}");
    scene.get("one", &code).well();
    assert_same(&scene.world.path("one").join(NAME), &bytes);
    eventually("a receiver has it", || {
        (scene.shares()[0]["received"] == 1).then_some(())
    });
    // Nobody finds it by its name, and handing it over again is no second share.
    scene.get("two", NAME).with(3);
    let again = scene.share(&[NAME]);
    assert_eq!(
        (&again["link"], &again["code"]),
        (&shared["link"], &shared["code"])
    );
    assert_eq!(scene.shares().len(), 1);

    // A folder from where it lies, for people.
    scene.put("photos/a/one.jpg", b"one");
    scene.put("photos/two.jpg", b"two");
    let printed = scene.run(&["share", "photos/"]).well();
    assert!(
        printed.err.contains("2 files") && printed.err.contains("qshare unshare"),
        "{printed:?}"
    );
    let folder = printed
        .out
        .lines()
        .find(|line| line.starts_with("qshare:2,"))
        .unwrap();
    scene.get("two", folder).well();
    assert_same(&scene.world.path("two/photos/a/one.jpg"), b"one");

    let file = scene.world.path("node/certs/state/shares");
    let key = link.parse::<Link>().unwrap().key.unwrap().to_text();
    assert!(fs::read_to_string(&file).unwrap().contains(&key));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    node.process.kill();
    let node = scene.node("node");
    let codes = eventually("both are served again", || {
        let codes: Option<Vec<Value>> = scene
            .shares()
            .iter()
            .map(|share| share.get("code").cloned())
            .collect();
        codes.filter(|codes| codes.len() == 2)
    });
    assert_ne!(codes[0], shared["code"]);
    scene.get("three", &link).well();
    scene.get("four", codes[0].as_str().unwrap()).well();
    assert_same(&scene.world.path("four").join(NAME), &bytes);

    scene.run(&["unshare", &code]).with(3).saying("no share");
    scene
        .run(&["unshare", "./photos"])
        .well()
        .saying("ended 1 share");
    assert_eq!(scene.shares().len(), 1);
    scene.run(&["unshare", NAME]).well();
    assert!(scene.shares().is_empty());
    scene.get("five", &link).with(5);
    assert!(!fs::read_to_string(&file).unwrap().contains(&key));
    let logged = Process::end_of(node.process);
    assert!(
        !logged.contains(&key) && !logged.contains(&code),
        "{logged}"
    );
}

#[test]
fn the_code_leads_to_the_newest_version_and_once_ends_the_share() {
    let scene = Scene::new();
    let _node = scene.node("node");
    scene.put(NAME, b"first version");
    let shared = scene.share(&["--once=2", NAME]);
    let code = shared["code"].as_str().unwrap();
    scene.get("one", code).well();
    assert_same(&scene.world.path("one").join(NAME), b"first version");
    scene.put(NAME, b"second");
    eventually("the second version", || {
        (scene.shares()[0]["version"] == 2).then_some(())
    });
    // Nobody has what the first link means any more.
    scene.get("two", shared["link"].as_str().unwrap()).with(5);
    scene.get("two", code).well();
    assert_same(&scene.world.path("two").join(NAME), b"second");
    eventually("the end of the share", || {
        scene.shares().is_empty().then_some(())
    });
}

#[test]
fn a_public_share_is_found_by_its_name_until_it_ends() {
    let scene = Scene::new();
    let _node = scene.node("node");
    scene.put("plan.txt", b"for everybody");
    let shared = scene.share(&["--public", "--no-code", "--name", "plans.txt", "plan.txt"]);
    assert_eq!(shared["code"], Value::Null);
    let client = scene.tracker.client();
    client.until_complete("plans.txt", 1);
    scene.get("one", "plans.txt").well();
    assert_same(&scene.world.path("one/plans.txt"), b"for everybody");
    scene.run(&["unshare", "--all"]).well();
    client.until("plans.txt", |found| found.is_empty());
}

#[test]
fn a_command_with_another_tracker_or_without_a_node_shares_by_itself() {
    let scene = Scene::new();
    scene.put(NAME, b"mine");
    let foreground = |more: &[&str], words: &str| {
        let mut command = scene.command(&["share", "--json", "--no-code"]);
        command.args(more).arg(NAME);
        let process = Process::start(command);
        assert_eq!(process.ready()["bytes"], 4);
        if !words.is_empty() {
            process.says(words);
        }
        process
    };
    foreground(&[], "");
    scene.run(&["unshare", NAME]).with(5).saying("qshare node");
    let node = scene.node("node");
    foreground(&["--foreground"], "");
    let other = scene.world.tracker_with("other", "127.0.0.1:0", &[]);
    let address = other.address.to_string();
    foreground(&["--tracker", &address], "it does not have the tracker");
    scene
        .run(&["share", "--tracker", &address, "--node", &node.id, NAME])
        .with(2)
        .saying("--foreground");
    scene.run(&["unshare", NAME]).with(3);
    assert!(scene.shares().is_empty());

    let second = scene.node("second");
    scene
        .run(&["share", NAME])
        .with(2)
        .saying("2 nodes are running")
        .saying("--foreground");
    let arguments = ["share", "--json", "--node", &second.id, NAME];
    scene.run(&arguments).well();
    scene
        .run(&["unshare", "--node", &node.id, NAME])
        .with(3)
        .saying("no share");
    scene.run(&["unshare", "--node", &second.id, NAME]).well();
    scene.run(&["share", "--node", &node.id, "missing"]).with(6);
}

#[test]
fn a_second_private_link_to_a_content_that_is_there_is_served_too() {
    let scene = Scene::new();
    let mut node = scene.node("node");
    let bytes = noise(MIB, 81);
    let mut sharers = Vec::new();
    for (place, link) in [("first", 0), ("second", 1)] {
        files::put(&scene.world.path(place).join(NAME), &bytes);
        let address = scene.tracker.address.to_string();
        let mut command = scene
            .world
            .command(place, ["share", "--json", "--no-code", NAME]);
        command.args(["--tracker", &address, "--listen", "127.0.0.1:0"]);
        let sharer = Process::start(command);
        let text = sharer.ready()["link"].as_str().unwrap().to_owned();
        scene.run(&["add", &text]).well();
        eventually("it is there", || {
            let report = scene.run(&["status", "--json"]).well().json().remove(0);
            let complete = report["downloads"][0]["stage"] == "complete";
            complete.then_some(())
        });
        sharers.push((sharer, text));
        assert_eq!(sharers.len(), link + 1);
    }
    let links: Vec<String> = sharers
        .into_iter()
        .map(|(mut sharer, link)| {
            sharer.kill();
            link
        })
        .collect();
    for (place, link) in [("three", &links[0]), ("four", &links[1])] {
        scene.get(place, link).well();
        assert_same(&scene.world.path(place).join(NAME), &bytes);
    }
    // The node remembers both, and lists the content for nobody else.
    node.process.kill();
    let _node = scene.node("node");
    scene.get("five", &links[1]).well();
    scene.get("six", NAME).with(3);
}
