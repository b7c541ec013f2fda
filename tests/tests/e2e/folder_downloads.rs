//! Folders as downloads of a running node: added, paused, resumed over a restart, served on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use qshare_content::{AssetName, FolderLink, Link};
use qshare_tests::files::{assert_same, info, noise, put};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Ended, Process, eventually, run};
use qshare_tests::world::{Node, Tracker, World};
use serde_json::Value;

const MIB: usize = 1 << 20;
/// So slow that a pause falls into the download.
const SLOW: &str = "2MB";

/// A tracker, and nodes whose control sockets are in the runtime directory `run`.
struct Scene {
    world: World,
    tracker: Tracker,
}

impl Scene {
    fn new() -> Scene {
        let world = World::new();
        let tracker = world.tracker();
        Scene { world, tracker }
    }

    fn node(&self, place: &str, more: &[&str]) -> Node {
        let mut command = self.world.node_command(place, self.tracker.address);
        command.arg("--no-lan").args(more);
        command.env("XDG_RUNTIME_DIR", self.world.dir("run"));
        Node::start(command)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command("user", arguments);
        command.env("XDG_RUNTIME_DIR", self.world.dir("run"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments))
    }

    /// Shares `from/NAME` in a process of its own; returns it with its link.
    fn share(&self, name: &str, more: &[&str]) -> (Process, String) {
        let tracker = self.tracker.address.to_string();
        let mut command = self
            .world
            .command("from", ["share", "--json", "--certs", "certs"]);
        command.args(["--listen", "127.0.0.1:0", "--tracker", &tracker, name]);
        command.args(more);
        let process = Process::start(command);
        let link = process.out_line(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            value["link"].as_str().map(str::to_owned)
        });
        (process, link)
    }

    fn downloads(&self) -> Vec<Value> {
        let report = self.run(&["status", "--json"]).well().json().remove(0);
        report["downloads"].as_array().unwrap().clone()
    }

    /// Returns the download of this name, if it is listed.
    fn download(&self, name: &str) -> Option<Value> {
        let mut downloads = self.downloads().into_iter();
        downloads.find(|one| one["name"] == name)
    }

    fn until_stage(&self, name: &str, stage: &str) -> Value {
        eventually(&format!("{name} is {stage}"), || {
            self.download(name).filter(|one| one["stage"] == stage)
        })
    }

    /// Returns the names that the tracker lists.
    fn listed(&self) -> Vec<String> {
        let tracker = self.tracker.address.to_string();
        let listed = self.run(&["ls", "--json", "--tracker", &tracker]).well();
        let names = listed.json().into_iter();
        names
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A folder in `from/NAME`: two small files of which one is executable, and two of several chunks.
fn put_folder(world: &World, name: &str, big: &[u8]) {
    let dir = world.dir(&format!("from/{name}"));
    put(&dir.join("a/b/deep.txt"), b"deep");
    put(&dir.join("tool"), b"#!/bin/sh\n");
    put(&dir.join("big.bin"), big);
    put(&dir.join("raw/other.bin"), &noise(3 * MIB, 802));
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.join("empty/inner")).unwrap();
    std::os::unix::fs::symlink("a/b", dir.join("inside")).unwrap();
}

fn assert_folder(dir: &Path, big: &[u8]) {
    assert_same(&dir.join("a/b/deep.txt"), b"deep");
    assert_same(&dir.join("big.bin"), big);
    assert_same(&dir.join("raw/other.bin"), &noise(3 * MIB, 802));
    let mode = fs::metadata(dir.join("tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o100, 0o100);
    assert!(dir.join("empty/inner").is_dir());
    assert_eq!(fs::read_link(dir.join("inside")).unwrap(), Path::new("a/b"));
}

#[test]
fn a_private_folder_is_one_download_that_is_paused_and_resumed_after_a_kill() {
    let big = noise(12 * MIB, 801);
    let scene = Scene::new();
    put_folder(&scene.world, "photos", &big);
    let (mut sharer, link) = scene.share("photos", &[]);
    let mut node = scene.node("node", &["--limit-down", SLOW]);
    let added = scene.run(&["add", "--json", &link]).well().json().remove(0);
    assert_eq!(
        (&added["kind"], &added["name"]),
        (&"folder".into(), &"photos".into())
    );
    let begun = eventually("a part of the folder", || {
        let download = scene.download("photos")?;
        (download["verified_bytes"].as_u64()? > MIB as u64).then_some(download)
    });
    assert_eq!((&begun["id"], &begun["files"]), (&added["id"], &4.into()));
    assert_eq!(begun["size_bytes"], 15 * MIB + 14);
    assert_eq!(
        scene.downloads().len(),
        1,
        "its files are no downloads of their own"
    );
    scene
        .run(&["pause", "photos/"])
        .well()
        .saying("paused 1 download");
    scene.until_stage("photos", "paused");

    node.process.kill();
    let node = scene.node("node", &[]);
    let paused = scene.download("photos").unwrap();
    assert_eq!(
        (&paused["stage"], &paused["id"]),
        (&"paused".into(), &added["id"])
    );
    assert_eq!(
        (&paused["kind"], &paused["files"]),
        (&"folder".into(), &4.into())
    );
    assert!(
        paused["verified_bytes"].as_u64().unwrap() > MIB as u64,
        "{paused}"
    );
    scene
        .run(&["limit", "--priority", "high", "--down", "90MB", "photos"])
        .well();
    scene.run(&["resume", "photos"]).well();
    let done = scene.until_stage("photos", "complete");
    assert_eq!(
        (&done["complete_files"], &done["priority"]),
        (&4.into(), &"high".into())
    );
    assert_eq!(
        (&done["verified_bytes"], &done["size_bytes"]),
        (&done["size_bytes"], &begun["size_bytes"])
    );
    let downloads = scene.world.path("node/downloads/photos");
    assert_folder(&downloads, &big);
    let table = scene.run(&["status"]).well().out;
    assert!(
        table.contains("photos/") && table.contains("100 %"),
        "{table}"
    );

    // The node serves it when its first sharer is gone, also after its own restart, and lists
    // nothing of it.
    sharer.kill();
    scene
        .world
        .get("one", scene.tracker.address, &[&link])
        .well();
    assert_folder(&scene.world.path("one/photos"), &big);
    drop(node);
    let mut node = scene.node("node", &[]);
    scene
        .world
        .get("two", scene.tracker.address, &["--wait", &link])
        .well();
    assert_folder(&scene.world.path("two/photos"), &big);
    assert_eq!(scene.listed(), [""; 0]);
    node.process.kill();
}

#[test]
fn removing_a_private_folder_deletes_its_files_and_forgets_its_key() {
    let big = noise(2 * MIB, 803);
    let scene = Scene::new();
    put_folder(&scene.world, "photos", &big);
    let (_sharer, link) = scene.share("photos", &[]);
    let mut node = scene.node("node", &[]);
    scene.run(&["add", &link]).well();
    scene.until_stage("photos", "complete");
    let downloads = scene.world.path("node/downloads/photos");
    let keys = scene.world.path("node/certs/state/share_keys");
    assert!(fs::read_to_string(&keys).unwrap().contains(" photos/\n"));
    put(&downloads.join("mine.txt"), b"mine");
    fs::write(downloads.join("tool"), "changed").unwrap();
    scene.run(&["remove", "--files", "photos"]).well();
    assert_same(&downloads.join("mine.txt"), b"mine");
    assert_same(&downloads.join("tool"), b"changed");
    let left = fs::read_dir(&downloads).unwrap();
    assert_eq!(left.count(), 2, "only what was not downloaded is left");
    assert!(!fs::read_to_string(&keys).unwrap().contains("photos"));
    assert_eq!(scene.download("photos"), None);
    node.process.kill();
    let lists = scene.world.path("node/certs/state/folders");
    assert_eq!(fs::read_dir(lists).unwrap().count(), 0);
}

#[test]
fn a_folder_by_name_is_added_in_part_and_at_the_prompt() {
    let big = noise(2 * MIB, 804);
    let scene = Scene::new();
    put_folder(&scene.world, "album", &big);
    let (_sharer, _) = scene.share("album", &["--public"]);
    let mut node = scene.node("node", &[]);
    let options = [
        "add",
        "--include",
        "*.bin",
        "--exclude",
        "raw/",
        "--name",
        "some",
        "album/",
    ];
    scene.run(&options).well();
    let part = scene.until_stage("some", "complete");
    assert_eq!(
        (&part["files"], &part["size_bytes"]),
        (&1.into(), &(2 * MIB).into())
    );
    assert_same(&scene.world.path("node/downloads/some/big.bin"), &big);
    assert!(!scene.world.path("node/downloads/some/raw").exists());
    scene.run(&["add", "album"]).with(3).saying("album/");
    scene.run(&["add", "--include", "[", "album/"]).with(2);
    scene.run(&["add", "nothing/"]).with(3);

    // What is in the way is not replaced.
    put(&scene.world.path("node/downloads/album"), b"a file");
    scene.run(&["add", "album/"]).well();
    let failed = scene.until_stage("album", "failed");
    assert_eq!(failed["error_code"], "conflict", "{failed}");
    fs::remove_file(scene.world.path("node/downloads/album")).unwrap();
    scene.run(&["resume", "album"]).well();
    scene.until_stage("album", "complete");
    assert_folder(&scene.world.path("node/downloads/album"), &big);
    node.process.kill();

    let mut prompt = scene.world.prompt_command("typed", scene.tracker.address);
    prompt.arg("--no-lan");
    let mut prompt = Process::start(prompt);
    writeln!(prompt.input(), "get album/").unwrap();
    prompt.says("album/: 4 files");
    assert_folder(&scene.world.path("typed/downloads/album"), &big);
}

#[test]
fn a_hostile_list_fails_with_its_reason_and_nothing_is_written() {
    let entry = |kind: u8, name: &[u8], rest: &[u8]| {
        [&[kind, 0, name.len() as u8][..], name, rest].concat()
    };
    let file = [&[5u8][..], &[7; 32]].concat();
    let scene = Scene::new();
    let mut node = scene.node("node", &[]);
    let lists = [
        entry(0, b"../escape", &file),
        [entry(0, b"a", &file), entry(0, b"a", &file)].concat(),
        b"no entry at all".to_vec(),
    ];
    for (at, entries) in lists.iter().enumerate() {
        let bytes = [b"qshare\0c\x01\0\0\0", entries.as_slice()].concat();
        let name = format!("evil-{at}");
        let _peer = TestPeer::start(Manner::Honest, scene.tracker.address, &name, &bytes);
        let link = Link {
            info: info(&bytes),
            trackers: Vec::new(),
            nodes: Vec::new(),
            name: Some(AssetName::new(&name).unwrap()),
            key: None,
            folder: Some(FolderLink::default()),
            modified_ns: None,
            executable: false,
        };
        scene.run(&["add", &link.to_string()]).well();
        let failed = scene.until_stage(&name, "failed");
        assert_eq!(failed["error_code"], "unverified", "{failed}");
        let written = fs::read_dir(scene.world.path("node/downloads")).unwrap();
        assert_eq!(written.count(), 0, "{failed}");
    }
    node.process.kill();
}

#[test]
fn a_private_file_is_served_after_a_restart_and_forgotten_with_its_file() {
    let bytes = noise(2 * MIB, 805);
    let scene = Scene::new();
    put(&scene.world.dir("from").join("secret.bin"), &bytes);
    let (mut sharer, link) = scene.share("secret.bin", &[]);
    let node = scene.node("node", &[]);
    scene.run(&["add", &link]).well();
    scene.until_stage("secret.bin", "complete");
    sharer.kill();
    drop(node);
    let mut node = scene.node("node", &[]);
    scene
        .world
        .get("to", scene.tracker.address, &["--wait", &link])
        .well();
    assert_same(&scene.world.path("to/secret.bin"), &bytes);
    assert_eq!(scene.listed(), [""; 0]);

    // The file is here, so a second request ends at once; its removal deletes it.
    scene.run(&["add", &link]).well();
    scene.until_stage("secret.bin", "complete");
    let keys = scene.world.path("node/certs/state/share_keys");
    assert!(fs::read_to_string(&keys).unwrap().contains("secret.bin"));
    scene.run(&["remove", "--files", "secret.bin"]).well();
    assert!(!scene.world.path("node/downloads/secret.bin").exists());
    assert!(!fs::read_to_string(&keys).unwrap().contains("secret.bin"));
    node.process.kill();
}

/// Starts a slow node that offers `x.bin`, and waits until the tracker lists it.
fn source(scene: &Scene, bytes: &[u8]) -> Node {
    scene.world.put("source", "x.bin", bytes);
    let source = scene.world.node("source", scene.tracker.address);
    scene.tracker.client().until_complete("x.bin", 1);
    source
}

/// Adds `x.bin`, and waits until a part of it has arrived.
fn add_and_begin(scene: &Scene) {
    scene.run(&["add", "x.bin"]).well();
    eventually("a part of the file", || {
        let download = scene.download("x.bin")?;
        (download["verified_bytes"].as_u64()? > MIB as u64).then_some(())
    });
}

/// Replaces `x.bin` at its source.
fn replace(scene: &Scene, bytes: &[u8]) {
    let new = scene.world.path("source/new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, scene.world.asset("source", "x.bin")).unwrap();
}

#[test]
fn a_download_by_name_goes_on_with_the_version_that_replaced_the_file() {
    let (old, new) = (noise(16 * MIB, 811), noise(16 * MIB, 812));
    let scene = Scene::new();
    let _source = source(&scene, &old);
    let mut node = scene.node("node", &["--limit-down", SLOW]);
    add_and_begin(&scene);
    replace(&scene, &new);
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &new);
    let downloads = scene.downloads();
    assert_eq!(
        downloads.len(),
        1,
        "the old version is replaced: {downloads:?}"
    );
    node.process.kill();
}

#[test]
fn a_name_is_followed_after_a_restart_too() {
    let (old, new) = (noise(16 * MIB, 817), noise(16 * MIB, 818));
    let scene = Scene::new();
    let _source = source(&scene, &old);
    let mut node = scene.node("node", &["--limit-down", SLOW]);
    add_and_begin(&scene);
    node.process.kill();
    replace(&scene, &new);
    let wanted = info(&new).id();
    let client = scene.tracker.client();
    client.until("x.bin", |found| {
        found.iter().any(|one| one.info.id() == wanted)
    });
    let mut node = scene.node("node", &[]);
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &new);
    assert_eq!(scene.downloads().len(), 1);
    node.process.kill();
}

#[test]
fn a_name_that_is_added_again_means_the_present_version() {
    let (old, new) = (noise(2 * MIB, 813), noise(2 * MIB, 814));
    let scene = Scene::new();
    let _source = source(&scene, &old);
    let mut node = scene.node("node", &[]);
    let first = scene
        .run(&["add", "--json", "--paused", "x.bin"])
        .well()
        .json()
        .remove(0);
    replace(&scene, &new);
    let wanted = info(&new).id();
    let client = scene.tracker.client();
    client.until("x.bin", |found| {
        found.iter().all(|one| one.info.id() == wanted)
    });
    let second = scene
        .run(&["add", "--json", "x.bin"])
        .well()
        .json()
        .remove(0);
    assert_ne!(first["id"], second["id"]);
    scene.until_stage("x.bin", "complete");
    assert_same(&scene.world.path("node/downloads/x.bin"), &new);
    assert_eq!(scene.downloads().len(), 1);
    node.process.kill();
}

#[test]
fn a_folder_by_name_is_followed_by_get_and_by_a_node() {
    let (old, new) = (noise(12 * MIB, 815), noise(12 * MIB, 816));
    let scene = Scene::new();
    put_folder(&scene.world, "album", &old);
    let (_sharer, _) = scene.share("album", &["--public"]);
    let mut node = scene.node("node", &["--limit-down", SLOW]);
    scene.run(&["add", "album/"]).well();
    let tracker = scene.tracker.address;
    let getting = scene
        .world
        .start_get("to", tracker, &["--limit-down", SLOW, "album/"]);
    for place in ["node/downloads", "to"] {
        let part = scene.world.path(place).join("album/big.bin.qshare.part");
        eventually("a part of the folder", || part.exists().then_some(()));
    }
    put(&scene.world.path("from/album/big.bin"), &new);
    put(&scene.world.path("from/album/a/b/deep.txt"), b"deep");
    getting.says("album/ has changed at its source");
    node.process.kill();
    let mut node = scene.node("node", &[]);
    scene.until_stage("album", "complete");
    assert_folder(&scene.world.path("node/downloads/album"), &new);
    getting.end().well();
    assert_folder(&scene.world.path("to/album"), &new);
    node.process.kill();
}
