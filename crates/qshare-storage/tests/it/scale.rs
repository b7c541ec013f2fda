//! A library of 100,000 assets. The test takes some seconds and prints its measurements with
//! `cargo test -p qshare-storage --test it scale -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::fs;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use qshare_content::{Chunks, ContentInfo, tree};
use qshare_storage::{
    Batch, Durability, Library, LibraryConfig, LibraryEvent, RECONCILE_EVERY, Target,
};
use tempfile::TempDir;

/// Returns the resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages.and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
}

/// Returns the CPU time of this process so far. On a busy machine, CPU time says more than wall
/// time.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Makes a directory for a hundred thousand small files: in memory where there is room for them,
/// since creating them on a disk that others write to takes minutes.
fn directory_of_many_files() -> TempDir {
    const MEMORY: &str = "/dev/shm";
    #[cfg(target_os = "linux")]
    let has_room = rustix::fs::statvfs(MEMORY)
        .is_ok_and(|at| at.f_bavail * at.f_frsize > 2 << 30 && at.f_favail > 200_000);
    #[cfg(not(target_os = "linux"))]
    let has_room = false;
    let made = match has_room {
        true => tempfile::tempdir_in(MEMORY),
        false => tempfile::tempdir(),
    };
    made.unwrap()
}

#[test]
fn a_hundred_thousand_assets_restart_without_hashing() {
    const FILES: u32 = 100_000;
    let (temp, assets) = (tempfile::tempdir().unwrap(), directory_of_many_files());
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    for at in 0..FILES {
        let directory = assets.path().join(format!("directory-{}", at % 1000));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("some-asset-{at}.bin"));
        fs::write(&path, at.to_le_bytes()).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    for round in ["first", "second"] {
        let before = resident_bytes();
        let (started, processor) = (Instant::now(), processor_time());
        let (tell, events) = channel();
        let config = LibraryConfig {
            roots: vec![assets.path().to_owned()],
            exclude: Vec::new(),
            state_dir: temp.path().join("state"),
            hash_threads: 0,
            reconcile_every: RECONCILE_EVERY,
        };
        let library = Library::open(config, move |event| {
            // Only these events are kept. Others would count as the library's memory.
            if let LibraryEvent::ScanFinished { .. } | LibraryEvent::Hashing { .. } = event {
                let _ = tell.send(event);
            }
        })
        .unwrap();
        let mut hashed = 0;
        loop {
            match events.recv_timeout(Duration::from_secs(120)).unwrap() {
                LibraryEvent::Hashing { hashed_bytes, .. } => hashed = hashed_bytes,
                LibraryEvent::ScanFinished { assets, .. } => {
                    assert_eq!(assets, u64::from(FILES));
                    break;
                }
                _ => {}
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        println!(
            "{round}: {:?}, {:?} of it computing, {hashed} bytes hashed, {} bytes an asset",
            started.elapsed(),
            processor_time() - processor,
            grown / u64::from(FILES),
        );
        assert_eq!(hashed, if round == "first" { 400_000 } else { 0 });
        drop(library);
    }
}

#[test]
fn ten_thousand_small_files_are_durable_with_one_sync() {
    let temp = tempfile::tempdir().unwrap();
    let bytes = vec![7; 4096];
    let info = ContentInfo {
        length: 4096,
        root: tree::chunk_hash(&Chunks::of_length(4096), &bytes),
    };
    let started = Instant::now();
    let mut batch = Batch::new(false);
    for at in 0..10_000 {
        let name = qshare_content::AssetName::new(format!("{}/{at}", at % 100)).unwrap();
        let target = Target::beneath(temp.path(), name);
        batch.add(&target, info, &bytes).unwrap();
    }
    let written = started.elapsed();
    let results = batch.commit(Durability::Immediate);
    assert!(results.iter().all(|(_, result)| result.is_ok()));
    println!("written {written:?}, with commit {:?}", started.elapsed());
}
