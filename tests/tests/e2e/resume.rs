//! Downloads that are interrupted, killed or starved resume: no wrong byte, and no durable chunk is
//! fetched twice.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use qshare_content::Chunks;
use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::privilege::{SmallDisk, skip};
use qshare_tests::process::{Process, Signal, run};
use qshare_tests::terminal::OnTerminal;
use qshare_tests::world::World;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const MIB: usize = 1 << 20;

fn assert_adds_up(report: &Value, size: usize) {
    let number = |key: &str| report[key].as_u64().unwrap();
    let useful = number("received_bytes") - number("wasted_bytes");
    assert_eq!(number("resumed_bytes") + useful, size as u64, "{report}");
}

/// Returns which chunks of an unfinished download are complete and right.
fn written(part: &Path, bytes: &[u8]) -> Vec<bool> {
    let found = fs::read(part).unwrap_or_default();
    let chunks = Chunks::of_length(bytes.len() as u64);
    let is_there = |chunk| {
        let range = chunks.range(chunk);
        let range = range.start as usize..range.end as usize;
        found
            .get(range.clone())
            .is_some_and(|there| *there == bytes[range])
    };
    chunks.indices().map(is_there).collect()
}

/// When a download is killed.
#[derive(Debug)]
enum Moment {
    /// This long after its start.
    After(Duration),
    /// When the source has answered this many of its requests.
    Answered(usize),
}

fn moment(random: &mut StdRng) -> Moment {
    match random.random_range(0..3) {
        0 => Moment::After(Duration::from_micros(random.random_range(0..150_000))),
        _ => Moment::Answered(random.random_range(1..24)),
    }
}

#[test]
fn fifty_kills_at_random_moments_cost_nothing_that_was_written() {
    const KILLS: usize = 50;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new();
    let tracker = world.tracker();
    let mut killed = 0;
    for round in 0.. {
        if killed == KILLS {
            break;
        }
        let name = format!("file-{round}");
        let bytes = noise(12 * MIB, seed ^ round);
        let chunks = Chunks::of_length(bytes.len() as u64);
        let peer = TestPeer::start(Manner::Gated, tracker.address, &name, &bytes);
        let part = world.path("to").join(format!("{name}.qshare.part"));
        let target = world.path("to").join(&name);
        let mut there = vec![false; chunks.count() as usize];
        while killed < KILLS && !target.exists() {
            let moment = moment(&mut random);
            let before = peer.counts().answered.load(Relaxed);
            let mut getting = world.start_get("to", tracker.address, &["--no-sync", &name]);
            match moment {
                Moment::After(time) => {
                    peer.open();
                    // The process is killed at a random time, not at an event of the protocol.
                    thread::sleep(time);
                }
                Moment::Answered(count) => {
                    let left = there.iter().filter(|there| !**there).count();
                    peer.allow(count.min(left));
                    peer.until_answered(before + count.min(left));
                }
            }
            getting.kill();
            peer.close();
            killed += 1;
            for (content, range) in peer.take_asked() {
                assert_eq!(content, info(&bytes).id());
                let chunk = (range.start / chunks.chunk_bytes()) as usize;
                assert!(
                    !there[chunk],
                    "seed {seed}, kill {killed} at {moment:?}: chunk {chunk} was written before"
                );
            }
            if !target.exists() {
                there = written(&part, &bytes);
            }
        }
        peer.open();
        let there = there
            .iter()
            .zip(chunks.indices())
            .filter(|(there, _)| **there);
        let there: u64 = there.map(|(_, chunk)| chunks.size(chunk)).sum();
        let already = target.exists();
        let got = world.get("to", tracker.address, &[&name]).well();
        assert_same(&target, &bytes);
        let report = &got.json()[0];
        if already {
            assert_eq!(report["received_bytes"], 0, "seed {seed}");
        } else {
            assert_adds_up(report, bytes.len());
            assert_eq!(report["resumed_bytes"], there, "seed {seed}, round {round}");
        }
        fs::remove_file(&target).unwrap();
        let left: Vec<_> = fs::read_dir(world.path("to")).unwrap().collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
}

#[test]
fn an_edited_part_file_never_yields_a_wrong_byte() {
    let bytes = noise(4 * MIB, 20);
    let world = World::new();
    let tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "x", &bytes);
    let part = world.path("to/x.qshare.part");
    let mut getting = world.start_get("to", tracker.address, &["x"]);
    peer.allow(16);
    peer.until_answered(16);
    getting.kill();
    peer.open();
    let mut edited = fs::read(&part).unwrap();
    for byte in edited.iter_mut().step_by(100_000) {
        *byte ^= 1;
    }
    fs::write(&part, edited).unwrap();
    let got = world.get("to", tracker.address, &["x"]).well();
    assert_same(&world.path("to/x"), &bytes);
    assert_eq!(got.json()[0]["resumed_bytes"], 0);
}

#[test]
fn a_damaged_meta_file_costs_no_byte() {
    let bytes = noise(4 * MIB, 21);
    let world = World::new();
    let tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "x", &bytes);
    let meta = world.path("to/x.qshare.meta");
    let getting = world.start_get("to", tracker.address, &["x"]);
    peer.allow(16);
    peer.until_answered(16);
    getting.signal(Signal::INT);
    getting.end().with(130);
    peer.open();
    let length = fs::metadata(&meta).unwrap().len() as usize;
    for at in [40, length / 2, length - 1] {
        let mut damaged = fs::read(&meta).unwrap();
        damaged[at] ^= 0xff;
        fs::write(&meta, damaged).unwrap();
    }
    world.get("to", tracker.address, &["x"]).well();
    assert_same(&world.path("to/x"), &bytes);
}

#[test]
fn ctrl_c_says_how_to_resume_and_the_printed_command_resumes() {
    let bytes = noise(8 * MIB, 22);
    let world = World::new();
    let tracker = world.tracker();
    let name = "it's a file.bin";
    let peer = TestPeer::start(Manner::Gated, tracker.address, name, &bytes);
    let getting = world.start_get("to", tracker.address, &[name]);
    peer.allow(20);
    peer.until_answered(20);
    getting.signal(Signal::INT);
    let ended = getting.end().with(130).saying("resume");
    peer.open();
    let binary = qshare_tests::binary::path().to_str().unwrap();
    let line = ended
        .err
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(binary));
    let line = line.unwrap_or_else(|| panic!("no command in {ended:?}"));
    let got = run(world.shell("to", line)).well();
    assert_same(&world.path("to").join(name), &bytes);
    let report = &got.json()[0];
    assert_adds_up(report, bytes.len());
    let chunk = Chunks::of_length(bytes.len() as u64).chunk_bytes();
    assert!(
        report["resumed_bytes"].as_u64().unwrap() >= 12 * chunk,
        "{report}"
    );
}

#[test]
fn ctrl_c_on_a_terminal_does_the_same() {
    let bytes = noise(4 * MIB, 27);
    let world = World::new();
    let tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "x.bin", &bytes);
    let command = world.get_command("to", tracker.address, &["x.bin"]);
    let mut getting = OnTerminal::start(&command);
    peer.allow(8);
    peer.until_answered(8);
    getting.shows("x.bin");
    getting.shows("%");
    getting.press("\u{3}");
    assert_eq!(getting.end(), Some(130));
    getting.shows("To resume:");
    peer.open();
    world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
}

#[test]
fn two_downloads_to_one_path_do_not_disturb_each_other() {
    let bytes = noise(4 * MIB, 23);
    let world = World::new();
    let tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "x", &bytes);
    let first = world.start_get("to", tracker.address, &["x"]);
    peer.until_asked(1);
    world
        .get("to", tracker.address, &["x"])
        .with(1)
        .saying("the other qshare");
    peer.open();
    first.end().well();
    assert_same(&world.path("to/x"), &bytes);
}

#[test]
fn a_full_disk_is_code_6_and_the_download_goes_on_once_there_is_room() {
    let world = World::new();
    let disk = world.dir("to");
    let Some(_disk) = SmallDisk::mount(&disk, 8) else {
        return skip("mounting a small file system needs root");
    };
    let bytes = noise(7 * MIB, 24);
    fs::write(disk.join("ballast"), noise(4 * MIB, 25)).unwrap();
    let tracker = world.tracker();
    world.put("node", "x", &bytes);
    let _node = world.node("node", tracker.address);
    tracker.client().until_complete("x", 1);
    let full = world.get("to", tracker.address, &["x"]).with(6);
    assert!(full.err.contains("Free some space"), "{full:?}");
    assert!(!disk.join("x").exists());
    fs::remove_file(disk.join("ballast")).unwrap();
    let got = world.get("to", tracker.address, &["x"]).well();
    assert_same(&disk.join("x"), &bytes);
    assert_adds_up(&got.json()[0], bytes.len());
}

#[test]
fn a_node_that_is_killed_finishes_its_downloads_at_the_next_start_and_shares_them() {
    let bytes = noise(8 * MIB, 26);
    let world = World::new();
    let tracker = world.tracker();
    let peer = TestPeer::start(Manner::Gated, tracker.address, "d/x.bin", &bytes);
    let start = || {
        let mut command = world.command("node", ["node", "--json", "--certs", "certs"]);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--tracker",
            &tracker.address.to_string(),
        ]);
        Process::start(command)
    };
    let mut node = start();
    std::io::Write::write_all(node.input(), b"d/x.bin\n").unwrap();
    peer.allow(20);
    peer.until_answered(20);
    node.kill();
    assert!(world.path("node/downloads/d/x.bin.qshare.meta").exists());
    peer.open();
    peer.take_asked();
    let node = start();
    let report = node.out_line(|line| {
        let object: Value = serde_json::from_str(line).ok()?;
        object.get("content").is_some().then_some(object)
    });
    assert_adds_up(&report, bytes.len());
    let chunk = Chunks::of_length(bytes.len() as u64).chunk_bytes();
    assert!(
        report["resumed_bytes"].as_u64().unwrap() >= 12 * chunk,
        "{report}"
    );
    assert_same(&world.path("node/downloads/d/x.bin"), &bytes);
    // Shared from now on: it can be had without the first source.
    drop(peer);
    tracker.client().until_complete("d/x.bin", 1);
    world.get("to", tracker.address, &["d/x.bin"]).well();
    assert_same(&world.path("to/d/x.bin"), &bytes);
}

#[test]
fn a_sparse_file_of_4_gib_takes_little_memory_on_both_sides() {
    const MEMORY_MAX_BYTES: u64 = 150 << 20;
    let world = World::new();
    let tracker = world.tracker();
    let size: u64 = 4 << 30;
    fs::create_dir_all(world.path("node/assets")).unwrap();
    let file = fs::File::create(world.asset("node", "large.img")).unwrap();
    file.set_len(size).unwrap();
    let node = world.node("node", tracker.address);
    tracker.client().until_complete("large.img", 1);
    let mut command =
        world.get_command("to", tracker.address, &["--seed", "--no-sync", "large.img"]);
    command.stdin(Stdio::null());
    let getting = Process::start(command);
    let report = getting.ready();
    assert_adds_up(&report, size as usize);
    let (client, server) = (
        getting.peak_memory_bytes(),
        node.process.peak_memory_bytes(),
    );
    println!(
        "peak memory: get {} MiB, node {} MiB",
        client >> 20,
        server >> 20
    );
    assert!(
        client < MEMORY_MAX_BYTES && server < MEMORY_MAX_BYTES,
        "{client} {server}"
    );
    assert_eq!(
        fs::metadata(world.path("to/large.img")).unwrap().len(),
        size
    );
}
