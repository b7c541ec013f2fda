//! What arguments mean: every name that is listed can be fetched, folders, globs and targets.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;

use qshare_tests::files::{assert_same, noise};
use qshare_tests::process::{Process, eventually};
use qshare_tests::world::{Tracker, World};

/// Waits until `count` files are listed, and returns their names as `ls --json` prints them.
fn listed(world: &World, tracker: &Tracker, count: usize) -> Vec<String> {
    let address = tracker.address.to_string();
    eventually("all files are listed", || {
        let listed = world.run("ls", &["ls", "--json", "--tracker", &address]);
        let names: Vec<String> = listed
            .json()
            .iter()
            .map(|file| file["name"].as_str().unwrap().to_owned())
            .collect();
        (names.len() == count).then_some(names)
    })
}

fn prompt(world: &World, tracker: &Tracker) -> Process {
    let address = tracker.address.to_string();
    let mut command = world.command("asker", ["node", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &address]);
    Process::start(command)
}

#[test]
fn every_name_that_ls_prints_is_fetched_by_get_and_at_the_prompt() {
    let world = World::new();
    let tracker = world.tracker();
    let mut names = vec![
        "0a".repeat(32),
        "id:abc".into(),
        "id:notes.txt".into(),
        "qshare:readme".into(),
        "name:x".into(),
        "7-amber-walrus".into(),
        "-o".into(),
        " lead.txt".into(),
        "trail.txt ".into(),
        "a*[b]".into(),
        "two words/q".into(),
    ];
    for name in &names {
        world.put("node", name, name.as_bytes());
    }
    let _node = world.node("node", tracker.address);
    let printed = listed(&world, &tracker, names.len());
    for name in &printed {
        world.get("to", tracker.address, &[name]).well();
    }
    for name in &names {
        assert_same(&world.path("to").join(name), name.as_bytes());
    }
    let mut node = prompt(&world, &tracker);
    for name in &printed {
        node.input()
            .write_all(format!("{name}\n").as_bytes())
            .unwrap();
    }
    for name in names.drain(..) {
        let path = world.path("asker/downloads").join(&name);
        eventually("it is downloaded at the prompt", || {
            path.exists().then_some(())
        });
        assert_same(&path, name.as_bytes());
    }
}

#[test]
fn a_folder_is_answered_with_the_command_that_fetches_its_files() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "photos/2024/a.jpg", b"a");
    world.put("node", "photos/b.jpg", b"b");
    let _node = world.node("node", tracker.address);
    listed(&world, &tracker, 2);
    for folder in ["photos", "photos/2024"] {
        let refused = world.get("to", tracker.address, &[folder]).with(3);
        refused.saying(&format!("{folder}/"));
    }
    world.get("folder", tracker.address, &["photos/"]).well();
    assert_same(&world.path("folder/photos/2024/a.jpg"), b"a");
    world.get("to", tracker.address, &["photos/**"]).well();
    world
        .get("to", tracker.address, &["./photos/b.jpg", "--force"])
        .well();
    assert_same(&world.path("to/photos/2024/a.jpg"), b"a");
}

#[test]
fn a_glob_with_a_new_output_makes_a_directory_whatever_matches() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "photos/only.jpg", b"p");
    let _node = world.node("node", tracker.address);
    listed(&world, &tracker, 1);
    world
        .get("to", tracker.address, &["photos/*", "-o", "album"])
        .well();
    assert_same(&world.path("to/album/photos/only.jpg"), b"p");
}

#[test]
#[cfg(unix)]
fn a_fifo_is_never_replaced_and_a_link_to_the_same_bytes_is_success() {
    let world = World::new();
    let tracker = world.tracker();
    let (small, big) = (noise(1000, 70), noise(1 << 20, 71));
    world.put("node", "small", &small);
    world.put("node", "big", &big);
    let _node = world.node("node", tracker.address);
    listed(&world, &tracker, 2);
    for (name, bytes) in [("small", &small), ("big", &big)] {
        let to = world.dir("to");
        fs::write(to.join(format!("same-{name}")), bytes).unwrap();
        std::os::unix::fs::symlink(format!("same-{name}"), to.join("link")).unwrap();
        world
            .get("to", tracker.address, &[name, "-o", "link"])
            .well();
        assert!(to.join("link").is_symlink());
        fs::remove_file(to.join("link")).unwrap();
        let fifo = to.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        for more in [&[][..], &["--force"]] {
            let arguments: Vec<&str> = [name, "-o", "fifo"].iter().chain(more).copied().collect();
            let refused = world.get("to", tracker.address, &arguments).with(1);
            refused.saying("fifo");
            assert!(!fs::symlink_metadata(&fifo).unwrap().is_file());
        }
        fs::remove_file(&fifo).unwrap();
    }
}

#[test]
fn a_huge_wait_neither_panics_nor_hangs() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "small", b"1");
    world.put("node", "big", &noise(1 << 20, 72));
    let _node = world.node("node", tracker.address);
    listed(&world, &tracker, 2);
    for wait in ["--wait=9223372036854775807", "--wait=99999999999999999999"] {
        world
            .get(wait, tracker.address, &["small", "big", wait])
            .well();
    }
}
