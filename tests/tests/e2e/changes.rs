//! A shared file changes while it is downloaded: `get NAME` goes on with the new version, and what
//! names a content ends.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::process::{Ended, eventually};
use qshare_tests::world::World;
use serde_json::Value;

const MIB: usize = 1 << 20;
const SIZE: usize = 16 * MIB;
/// So slow that the change falls into the download.
const RATE: &str = "4MB";
/// Bytes that arrive before the change.
const BEFORE: u64 = 3 << 20;

/// Downloads `x.bin`, which `change` changes at its node after a part of it was fetched.
fn get_while(world: &World, old: &[u8], wanted: &str, change: impl Fn(&World)) -> Ended {
    let tracker = world.tracker();
    world.put("node", "x.bin", old);
    let node = world.node_with("node", tracker.address, &["--limit-up", RATE]);
    tracker.client().until_complete("x.bin", 1);
    let getting = world.start_get("to", tracker.address, &["-o", "x.bin", wanted]);
    let part = world.path("to/x.bin.qshare.part");
    eventually("a part of the file", || {
        let blocks = fs::metadata(&part).ok()?.blocks();
        (blocks * 512 >= BEFORE).then_some(())
    });
    change(world);
    let ended = getting.end();
    drop(node);
    ended
}

fn assert_has_only(world: &World, bytes: &[u8]) {
    assert_same(&world.path("to/x.bin"), bytes);
    let left = fs::read_dir(world.path("to")).unwrap();
    let left = left
        .map(|entry| entry.unwrap().file_name())
        .collect::<Vec<_>>();
    assert_eq!(left, ["x.bin"]);
}

fn number(ended: &Ended, key: &str) -> u64 {
    let report: &Value = &ended.json()[0];
    report[key].as_u64().unwrap()
}

/// A version in which every second MiB differs. Wherever a download begins, soon some of what it
/// has is equal and some is not.
fn half_changed(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    for (at, part) in new.chunks_mut(MIB).enumerate() {
        if at % 2 == 1 {
            part.copy_from_slice(&noise(MIB, 3010 + at as u64));
        }
    }
    new
}

#[test]
fn a_file_rewritten_in_place_is_fetched_anew_and_equal_chunks_are_not() {
    let old = noise(SIZE, 300);
    let new = half_changed(&old);
    let world = World::new();
    let got = get_while(&world, &old, "x.bin", |world| {
        fs::write(world.asset("node", "x.bin"), &new).unwrap();
    });
    let got = got.well();
    let got = got.saying("x.bin has changed at its source; fetching the new version");
    assert_has_only(&world, &new);
    assert_eq!(got.json()[0]["content"], info(&new).id().to_string());
    let (kept, useful) = (
        number(&got, "resumed_bytes"),
        number(&got, "received_bytes") - number(&got, "wasted_bytes"),
    );
    assert!(kept > 0, "{got:?}");
    assert_eq!(kept + useful, SIZE as u64, "{got:?}");
}

#[test]
fn a_file_replaced_by_a_rename_is_fetched_anew() {
    let (old, new) = (noise(SIZE, 302), noise(SIZE + 77, 303));
    let world = World::new();
    let got = get_while(&world, &old, "x.bin", |world| {
        let beside = world.path("node/fresh");
        fs::write(&beside, &new).unwrap();
        fs::rename(beside, world.asset("node", "x.bin")).unwrap();
    });
    got.well();
    assert_has_only(&world, &new);
}

#[test]
fn a_file_cut_to_less_than_a_chunk_leaves_nothing_of_the_old_version() {
    let old = noise(SIZE, 304);
    let world = World::new();
    let got = get_while(&world, &old, "x.bin", |world| {
        let file = File::options()
            .write(true)
            .open(world.asset("node", "x.bin"));
        file.unwrap().set_len(1000).unwrap();
    });
    got.well();
    assert_has_only(&world, &old[..1000]);
}

#[test]
fn a_file_that_was_only_touched_is_downloaded_to_its_end() {
    let old = noise(SIZE, 305);
    let world = World::new();
    let got = get_while(&world, &old, "x.bin", |world| {
        let file = File::options()
            .write(true)
            .open(world.asset("node", "x.bin"));
        let time = SystemTime::now() - Duration::from_secs(1);
        file.unwrap().set_modified(time).unwrap();
    });
    let got = got.well();
    assert_has_only(&world, &old);
    let useful = number(&got, "received_bytes") - number(&got, "wasted_bytes");
    assert_eq!(useful, SIZE as u64, "{got:?}");
}

#[test]
fn a_download_by_id_ends_when_its_content_is_gone() {
    let old = noise(SIZE, 306);
    let id = info(&old).id().to_string();
    let world = World::new();
    let got = get_while(&world, &old, &id, |world| {
        fs::write(world.asset("node", "x.bin"), noise(SIZE, 307)).unwrap();
    });
    got.with(3).saying("the file has changed at its source");
    assert!(!world.path("to/x.bin").exists());
}
