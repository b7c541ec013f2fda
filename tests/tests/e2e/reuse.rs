//! Chunks that local files hold are not fetched.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use qshare_tests::files::{assert_same, noise, put};
use qshare_tests::process::Process;
use qshare_tests::world::{Node, Tracker, World};
use serde_json::Value;

const MIB: usize = 1 << 20;
/// A chunk of a file of this size.
const CHUNK: usize = 128 << 10;

fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap()
}

fn sharing(name: &str, bytes: &[u8]) -> (World, Tracker, Node) {
    let world = World::new();
    let tracker = world.tracker();
    world.put("s", name, bytes);
    let node = world.node("s", tracker.address);
    tracker.client().until_complete(name, 1);
    (world, tracker, node)
}

/// Starts `qshare share --json` of a directory; returns it with its link.
fn share(world: &World, tracker: &Tracker, path: &str) -> (Process, String) {
    let address = tracker.address.to_string();
    let mut command = world.command("from", ["share", "--json", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &address, path]);
    let process = Process::start(command);
    let link = process.out_line(|line| {
        let value: Value = serde_json::from_str(line).ok()?;
        value["link"].as_str().map(str::to_owned)
    });
    (process, link)
}

#[test]
fn an_older_version_that_is_replaced_gives_its_chunks() {
    let new = noise(8 * MIB + 99, 80);
    let (world, tracker, _node) = sharing("disk.img", &new);
    let mut old = [new.clone(), noise(3 * CHUNK, 81)].concat();
    for changed in [3, 20] {
        old[changed * CHUNK + 7] ^= 1;
    }
    let there = world.path("to/disk.img");
    put(&there, &old);
    world.get("to", tracker.address, &["disk.img"]).with(1);
    assert_same(&there, &old);
    let got = world.get("to", tracker.address, &["--force", "disk.img"]);
    let got = got.well().saying("reused from local files");
    let report = got.json().remove(0);
    assert_eq!(
        number(&report, "reused_bytes"),
        (new.len() - 2 * CHUNK) as u64
    );
    let useful = number(&report, "received_bytes") - number(&report, "wasted_bytes");
    assert_eq!(useful, 2 * CHUNK as u64);
    assert_same(&there, &new);

    // Bytes that have moved are not found, and do no harm.
    put(&there, &[&[0], &new[..]].concat());
    let got = world.get("to", tracker.address, &["--force", "disk.img"]);
    assert_eq!(number(&got.well().json()[0], "reused_bytes"), 0);
    assert_same(&there, &new);
}

#[test]
fn a_file_that_was_renamed_at_its_source_is_copied_from_its_old_name() {
    let bytes = noise(9 * MIB, 82);
    let (world, tracker, _node) = sharing("new name.bin", &bytes);
    put(&world.path("to/old name.bin"), &bytes);
    let got = world.get("to", tracker.address, &["new name.bin"]).well();
    let report = got.json().remove(0);
    assert_eq!(number(&report, "reused_bytes"), bytes.len() as u64);
    assert_eq!(number(&report, "received_bytes"), 0);
    assert_same(&world.path("to/new name.bin"), &bytes);
    assert_same(&world.path("to/old name.bin"), &bytes);
}

#[test]
fn equal_files_of_a_folder_are_fetched_once_and_a_new_version_takes_from_the_old_one() {
    let (big, small) = (noise(3 * MIB, 83), noise(700, 84));
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/set");
    for at in 0..3 {
        put(&dir.join(format!("{at}/big.bin")), &big);
    }
    for at in 0..40 {
        put(&dir.join(format!("copies/{at}")), &small);
    }
    let (sharer, link) = share(&world, &tracker, "set");
    let got = world.get("to", tracker.address, &[&link]).well();
    let summary = got.json().pop().unwrap();
    assert_eq!(number(&summary, "files"), 43);
    assert_eq!(
        number(&summary, "reused_bytes"),
        (2 * big.len() + 39 * small.len()) as u64
    );
    assert_eq!(
        number(&summary, "received_bytes"),
        (big.len() + small.len()) as u64
    );
    for at in 0..3 {
        assert_same(&world.path(&format!("to/set/{at}/big.bin")), &big);
    }
    for at in 0..40 {
        assert_same(&world.path(&format!("to/set/copies/{at}")), &small);
    }

    drop(sharer);
    let mut newer = big.clone();
    newer[5] ^= 1;
    put(&dir.join("1/big.bin"), &newer);
    let (_sharer, link) = share(&world, &tracker, "set");
    let got = world.get("to", tracker.address, &["--force", &link]).well();
    let summary = got.json().pop().unwrap();
    assert_eq!(number(&summary, "already_there"), 42);
    assert_eq!(number(&summary, "reused_bytes"), (big.len() - CHUNK) as u64);
    assert_same(&world.path("to/set/1/big.bin"), &newer);
}

#[test]
fn a_similar_file_of_the_same_length_beside_the_target_gives_its_chunks() {
    let bytes = noise(9 * MIB, 85);
    let (world, tracker, _node) = sharing("a.bin", &bytes);
    put(
        &world.path("to/near.bin"),
        &[&bytes[..8 * MIB], &noise(MIB, 86)].concat(),
    );
    let got = world.get("to", tracker.address, &["a.bin"]).well();
    assert_eq!(number(&got.json()[0], "reused_bytes"), 8 * MIB as u64);
    assert_same(&world.path("to/a.bin"), &bytes);
}
