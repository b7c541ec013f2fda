//! A long-running node: restarts, changes of its directory, the prompt.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::terminal::OnTerminal;
use qshare_tests::world::{Node, World};

const PROMPT: &str = "Enter the filename you want to download (or 'q' to quit): ";
const MIB: usize = 1 << 20;

#[test]
fn additions_changes_and_removals_are_announced_by_themselves() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "first", b"1");
    let _node = world.node("node", tracker.address);
    let client = tracker.client();
    client.until_complete("first", 1);

    world.put("node", "new/deep/second", b"2");
    client.until_complete("new/deep/second", 1);
    world.put("node", "first", b"changed");
    let changed = info(b"changed");
    client.until("first", |found| {
        found.len() == 1 && found[0].info == changed
    });
    fs::rename(world.asset("node", "new"), world.asset("node", "renamed")).unwrap();
    client.until_complete("renamed/deep/second", 1);
    client.until_gone("new/deep/second");
    fs::remove_file(world.asset("node", "first")).unwrap();
    client.until_gone("first");
    fs::remove_dir_all(world.asset("node", "renamed")).unwrap();
    client.until_gone("renamed/deep/second");
}

#[test]
fn threads_that_read_and_hash_are_nicer_than_the_networks() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "file", &noise(MIB, 31));
    let node = world.node("node", tracker.address);
    world.get("to", tracker.address, &["file"]).well();
    // A thread makes itself nicer as soon as it runs.
    eventually("threads that block are nicer", || {
        let threads = node.process.threads();
        let &(_, network) = threads.first()?;
        // 19 is as nice as can be.
        let nicer = (network + 1).min(19);
        let mut blocking = threads.iter().filter(|(name, _)| name == "tokio-rt-worker");
        let some = blocking.clone().next().is_some();
        (some && blocking.all(|&(_, nice)| nice >= nicer)).then_some(())
    });
}

#[test]
fn what_must_not_be_shared_is_not() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "shared", b"1");
    world.put("node", ".hidden", b"2");
    world.put("node", ".dir/inside", b"3");
    world.put("node", "half.qshare.part", b"4");
    files_outside(&world);
    // The certificate directory lies within the shared one.
    let tracker_at = tracker.address.to_string();
    let command = world.command(
        "node",
        [
            "node",
            "--json",
            "--no-prompt",
            "--certs",
            "assets/certs",
            "--listen",
            "127.0.0.1:0",
            "--tracker",
            &tracker_at,
        ],
    );
    let _node = Node::start(command);
    let client = tracker.client();
    client.until_complete("shared", 1);
    let names: Vec<String> = client
        .find("**")
        .iter()
        .map(|found| found.name.to_string())
        .collect();
    assert_eq!(names, ["shared"]);
}

fn files_outside(world: &World) {
    fs::write(world.path("secret"), b"secret").unwrap();
    symlink(world.path("secret"), world.asset("node", "link")).unwrap();
    fs::create_dir(world.path("outside")).unwrap();
    fs::write(world.path("outside/file"), b"outside").unwrap();
    symlink(world.path("outside"), world.asset("node", "linked-dir")).unwrap();
}

#[test]
fn a_restart_hashes_only_what_changed() {
    let world = World::new();
    let tracker = world.tracker();
    let client = tracker.client();
    let (large, small) = (32 * MIB, MIB);
    world.put("node", "same", &noise(large, 40));
    world.put("node", "edited", &noise(small, 41));
    let mut starts = 0;
    let mut start = |read: std::ops::Range<usize>| {
        // What only this start announces: the others' entries may be those of a killed session,
        // which this one has not superseded yet.
        starts += 1;
        let mark = format!("start {starts}");
        world.put("node", &mark, mark.as_bytes());
        let node = world.node("node", tracker.address);
        client.until_complete(&mark, 1);
        client.until_complete("same", 1);
        client.until_complete("edited", 1);
        let found = node.process.read_bytes() as usize;
        assert!(read.contains(&found), "{found} bytes were read");
        node.process.signal(Signal::TERM);
        node.process.end().well();
        client.until_gone("same");
    };
    start(large + small..usize::MAX);
    start(0..small);
    world.put("node", "edited", &noise(small, 42));
    start(small..large);
    // A node that was killed knows as much.
    let mut node = world.node("node", tracker.address);
    client.until_complete("same", 1);
    node.process.kill();
    start(0..small);
}

#[test]
fn the_prompt_works_on_a_terminal() {
    let bytes = noise(MIB, 43);
    let world = World::new();
    let tracker = world.tracker();
    world.put("sharer", "dir/report one.bin", &bytes);
    world.put("sharer", "q", b"a file called q");
    let _sharer = world.node("sharer", tracker.address);
    tracker.client().until_complete("dir/report one.bin", 1);
    let mut node = OnTerminal::start(&world.prompt_command("asker", tracker.address));
    node.shows(PROMPT);
    node.press("dir/report one.bin\r");
    node.shows("saved as downloads/dir/report one.bin");
    node.shows(PROMPT);
    assert_same(&world.path("asker/downloads/dir/report one.bin"), &bytes);
    node.press("get q\r");
    node.shows("saved as downloads/q");
    node.shows(PROMPT);
    node.press("ls dir/*\r");
    node.shows("id:");
    node.shows(PROMPT);
    node.press("status\r");
    node.shows("sharing");
    node.shows(PROMPT);
    node.press("help\r");
    node.shows("unfinished downloads resume at the next start");
    node.shows(PROMPT);
    node.press("dir/reprot one.bin\r");
    node.shows("Similar names: dir/report one.bin");
    node.shows(PROMPT);
    node.press("q\r");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn tab_completes_a_name_and_ctrl_c_and_ctrl_d_quit() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("sharer", "unmistakable.bin", b"1");
    let _sharer = world.node("sharer", tracker.address);
    tracker.client().until_complete("unmistakable.bin", 1);
    let mut node = OnTerminal::start(&world.prompt_command("asker", tracker.address));
    node.shows("connected");
    node.shows(PROMPT);
    node.press("unm\t");
    node.shows("unmistakable.bin");
    node.press("\r");
    node.shows("saved as downloads/unmistakable.bin");
    node.shows(PROMPT);
    node.press("\u{3}");
    assert_eq!(node.end(), Some(0));

    let mut node = OnTerminal::start(&world.prompt_command("asker", tracker.address));
    node.shows(PROMPT);
    node.press("\u{4}");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn the_prompt_takes_lines_from_a_pipe_and_the_node_serves_on_after_its_end() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("sharer", "a", b"1");
    world.put("sharer", "b", b"2");
    let _sharer = world.node("sharer", tracker.address);
    let client = tracker.client();
    client.until_complete("b", 1);
    let mut node = Process::start(world.prompt_command("asker", tracker.address));
    node.says(PROMPT);
    node.input().write_all(b"a\nb\nnothing like it\n").unwrap();
    node.end_input();
    node.says("no node shares \"nothing like it\"");
    client.until_complete("a", 2);
    client.until_complete("b", 2);
    assert_same(&world.path("asker/downloads/b"), b"2");
    assert!(node.has_ended().is_none());
    node.signal(Signal::TERM);
    node.end().well();

    let mut node = Process::start(world.prompt_command("asker", tracker.address));
    node.input().write_all(b"q\n").unwrap();
    node.end().well();
}

#[test]
fn services_end_well_when_told_to_and_what_they_shared_is_gone_at_once() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "x", b"1");
    for signal in [Signal::TERM, Signal::INT] {
        let node = world.node("node", tracker.address);
        tracker.client().until_complete("x", 1);
        node.process.signal(signal);
        node.process.end().well();
        tracker.client().until_gone("x");
    }
    tracker.process.signal(Signal::TERM);
    tracker.process.end().well();
}
