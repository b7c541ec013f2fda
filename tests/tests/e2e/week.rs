//! A week of use, day by day, with the real program: add, limit, pause, restart, resume, a crash, a
//! source that vanishes, files of a newer program, and a tidy end.

use std::collections::HashSet;
use std::fs;

use qshare_tests::controlled::Controlled;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use serde_json::Value;

const MIB: usize = 1 << 20;
/// Chunk size of small files.
const CHUNK: usize = 128 << 10;
const LARGE: &str = "large.bin";
const LATER: &str = "later.bin";

#[test]
fn nothing_is_lost_in_a_week() {
    let week = Controlled::new();
    let (world, tracker) = (&week.world, &week.tracker);
    let (large, later) = (noise(64 * CHUNK, 1), noise(3 * MIB, 2));
    world.put("node", "mine.txt", b"shared all week");
    world.put("friend", "note.txt", b"a small file");
    let friend = world.node("friend", tracker.address);
    let source = TestPeer::with_files(
        Manner::Gated,
        tracker.address,
        &[(LARGE, &large), (LATER, &later)],
    );

    // Monday: the node is started, and files are added. A small one is there at once.
    let node = week.node("node");
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
    let node = week.node("node");
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
    let node = week.node("node");
    week.until_verified(LARGE, 30 * CHUNK);
    let resumed = week.download(LARGE).unwrap();
    assert_eq!(resumed["added_at"], paused["added_at"]);
    assert_ne!(resumed["stage"], "paused", "it runs by itself again");

    // Friday: the source goes away, and somebody else turns out to have the file.
    // Requests of the crashed node may take some of the permits.
    source.allow(25);
    week.until_verified(LARGE, 32 * CHUNK);
    let again: HashSet<u64> = asked(&source).into_iter().collect();
    assert!(first.len() >= 30, "{first:?}");
    // Of what was verified before the crash nothing was fetched again: only requests that had no
    // answer were made once more.
    let twice = first.intersection(&again).count();
    assert!(twice <= first.len() - 30, "{twice} of {}", first.len());
    drop(source);
    week.until_stage(LARGE, "searching");
    week.world.put("colleague", LARGE, &large);
    let colleague = week.world.node("colleague", week.tracker.address);
    week.until_stage(LARGE, "complete");
    assert_same(&week.world.path("node/downloads").join(LARGE), &large);
    client.until_complete(LARGE, 2);

    // Saturday: a newer program is tried, and its predecessor comes back. The predecessor does not
    // understand the list, which is not lost either; nor the index, which can be made again.
    week.stop(node);
    let state = week.world.path("node/certs/state");
    let list = state.join("downloads");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(state.join("index.redb"), b"of another time").unwrap();
    let newer = text.replacen("\"qshare_downloads\":1", "\"qshare_downloads\":99", 1);
    assert_ne!(newer, text);
    fs::write(&list, &newer).unwrap();
    let node = week.node("node");
    assert_eq!(week.download(LATER), None);
    let kept = fs::read_to_string(state.join("downloads.unknown"));
    assert_eq!(kept.unwrap(), newer);
    for words in ["unknown format", "index is damaged and replaced"] {
        node.process.says(words);
    }
    client.until_complete("mine.txt", 1);
    client.until_complete(LARGE, 2);
    week.stop(node);
    // Its program comes back.
    fs::write(&list, &text).unwrap();
    let node = week.node("node");

    // Sunday: the rest is fetched, and what is not needed any more is removed.
    week.world.put("colleague", LATER, &later);
    client.until_complete(LATER, 1);
    week.run(&["resume", "--all"]).well();
    week.until_stage(LATER, "complete");
    assert_same(&week.world.path("node/downloads").join(LATER), &later);
    week.run(&["remove", "--files", LATER]).well();
    assert!(!week.world.path("node/downloads").join(LATER).exists());
    assert_eq!(week.downloads(), Vec::<Value>::new());
    assert_same(&week.world.path("node/downloads").join(LARGE), &large);
    week.stop(node);
    drop((friend, colleague));
}

/// Returns the chunks of the large file that were requested since the last call.
fn asked(source: &TestPeer) -> Vec<u64> {
    let asked = source.take_asked();
    asked
        .iter()
        .map(|(_, range)| range.start / CHUNK as u64)
        .collect()
}
