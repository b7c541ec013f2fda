//! A library on a real directory: the events that it reports and the bytes that it serves.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use qshare_content::{Chunks, ContentId, tree};
use qshare_storage::{
    Asset, Durability, HashOptions, Library, LibraryConfig, LibraryEvent, Opened, Part,
    PartOptions, RECONCILE_EVERY, ReadError, SkipReason, Target, hash_file,
};

/// Deadline of every wait. No event takes this long, so only a failing test reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    temp: tempfile::TempDir,
}

pub(crate) struct Running {
    pub(crate) library: Library,
    events: Receiver<LibraryEvent>,
    pub(crate) seen: Vec<LibraryEvent>,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("assets")).unwrap();
        Fixture { temp }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes a file with a modification time of 100 s ago, so that the library does not treat it
    /// as still being written.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        settle(&path, 100);
        path
    }

    pub(crate) fn open(&self) -> Running {
        let (tell, events) = channel();
        let config = LibraryConfig {
            roots: vec![self.path("assets"), self.path("downloads")],
            exclude: vec![self.path("assets/certs")],
            state_dir: self.path("state"),
            hash_threads: 2,
            reconcile_every: RECONCILE_EVERY,
        };
        let library = Library::open(config, move |event| {
            let _ = tell.send(event);
        })
        .unwrap();
        Running {
            library,
            events,
            seen: Vec::new(),
        }
    }
}

/// Sets a file's modification time to `seconds` ago.
fn settle(path: &Path, seconds: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
        .unwrap();
}

impl Running {
    /// Waits for the next event for which `pick` returns a value. Returns that value.
    pub(crate) fn wait<T>(&mut self, pick: impl Fn(&LibraryEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("nothing came after {:?}", self.seen);
            };
            let picked = pick(&event);
            self.seen.push(event);
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    pub(crate) fn scanned(mut self) -> Running {
        self.wait(|event| matches!(event, LibraryEvent::ScanFinished { .. }).then_some(()));
        self
    }

    pub(crate) fn added(&mut self, name: &str) -> Arc<Asset> {
        self.wait(|event| match event {
            LibraryEvent::Added(asset) if asset.name.as_str() == name => Some(asset.clone()),
            _ => None,
        })
    }

    pub(crate) fn removed(&mut self, name: &str) -> Arc<Asset> {
        self.wait(|event| match event {
            LibraryEvent::Removed(asset) if asset.name.as_str() == name => Some(asset.clone()),
            _ => None,
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .library
            .assets()
            .iter()
            .map(|asset| asset.name.to_string())
            .collect();
        names.sort();
        names
    }

    /// Waits until the library offers exactly these names.
    pub(crate) fn until_named(&mut self, names: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        while self.names() != names {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{:?} after {:?}", self.names(), self.seen);
            // A reader may have withdrawn an asset, without a further event.
            let step = left.min(Duration::from_millis(100));
            if let Ok(event) = self.events.recv_timeout(step) {
                self.seen.push(event);
            }
        }
    }

    /// Returns the largest number of hashed bytes among the events seen so far.
    fn hashed_bytes(&self) -> u64 {
        let hashed = self.seen.iter().filter_map(|event| match event {
            LibraryEvent::Hashing { hashed_bytes, .. } => Some(*hashed_bytes),
            _ => None,
        });
        hashed.max().unwrap_or(0)
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

#[test]
fn files_are_offered_with_their_hashes_and_bytes() {
    let fixture = Fixture::new();
    let bytes = noise(1_000_001, 5);
    fixture.write("assets/dir/big", &bytes);
    fixture.write("assets/empty", b"");
    fixture.write("assets/certs/node.key", b"secret");
    fixture.write("assets/bad\nname", b"x");
    let running = fixture.open().scanned();
    assert_eq!(running.names(), ["dir/big", "empty"]);
    assert!(running.seen.iter().any(|event| matches!(
        event,
        LibraryEvent::Skipped {
            reason: SkipReason::Name(_),
            ..
        }
    )));

    let library = &running.library;
    let assets = library.assets();
    let big = assets.iter().find(|asset| asset.info.length > 0).unwrap();
    let chunks = Chunks::of_length(big.info.length);
    let hashes = library.chunk_hashes(&big.id, 0..chunks.count()).unwrap();
    assert_eq!(tree::root_of_chunks(&chunks, &hashes), big.info.root);
    let page = library.hash_page(&big.id, 0).unwrap();
    let proven = tree::verify_page(&chunks, &big.info.root, 0, &page.hashes, &page.path);
    assert!(proven);
    for chunk in chunks.indices() {
        let range = chunks.range(chunk);
        let read = read_range(library, &big.id, range.clone()).unwrap();
        assert_eq!(read, bytes[range.start as usize..range.end as usize]);
        assert_eq!(tree::chunk_hash(&chunks, &read), hashes[chunk.get()]);
    }
    assert_eq!(read_range(library, &big.id, 10..20).unwrap(), bytes[10..20]);
    for range in [0..1_000_002, u64::MAX - 1..u64::MAX] {
        assert!(matches!(
            read_range(library, &big.id, range),
            Err(ReadError::NotHere)
        ));
    }
    let nothing = ContentId([0; 32]);
    assert!(library.find(&nothing).is_none());
    assert!(matches!(
        read_range(library, &nothing, 0..0),
        Err(ReadError::NotHere)
    ));
}

#[test]
fn a_restart_hashes_only_what_has_changed() {
    let fixture = Fixture::new();
    for at in 0..20 {
        fixture.write(&format!("assets/{at}"), &noise(200_000, at));
    }
    let first = fixture.open().scanned();
    assert_eq!(first.hashed_bytes(), 20 * 200_000);
    let before = first.library.assets();
    drop(first);

    // The second library takes every file's hashes from the state directory.
    let again = fixture.open().scanned();
    assert_eq!(again.hashed_bytes(), 0);
    assert_eq!(again.library.assets(), before);
    let hashes = again.library.chunk_hashes(&before[0].id, 0..2).unwrap();
    assert_eq!(hashes.len(), 2);
    drop(again);

    fixture.write("assets/7", &noise(300_000, 77));
    let third = fixture.open().scanned();
    assert_eq!(third.hashed_bytes(), 300_000);
}

#[test]
fn changes_appear_as_they_happen() {
    let fixture = Fixture::new();
    let mut running = fixture.open().scanned();

    fixture.write("assets/one", b"one");
    let one = running.added("one");
    assert_eq!(running.library.find(&one.id), Some(one.clone()));

    fixture.write("assets/one", b"other");
    assert_eq!(running.removed("one"), one);
    let other = running.added("one");
    assert_ne!(other.id, one.id);

    fs::rename(fixture.path("assets/one"), fixture.path("assets/two")).unwrap();
    assert_eq!(running.removed("one").id, other.id);
    assert_eq!(running.added("two").id, other.id);

    fs::remove_file(fixture.path("assets/two")).unwrap();
    running.removed("two");
    assert!(running.names().is_empty());

    fixture.write("elsewhere/d/e/x", b"x");
    fixture.write("elsewhere/y", b"y");
    fs::rename(fixture.path("elsewhere"), fixture.path("assets/moved")).unwrap();
    running.added("moved/d/e/x");
    if running.names().len() < 2 {
        running.added("moved/y");
    }
    fixture.write("assets/moved/d/z", b"z");
    running.added("moved/d/z");

    fs::rename(fixture.path("assets/moved/d"), fixture.path("assets/d")).unwrap();
    // The library adds the new name first, so that the content is never missing.
    running.added("d/z");
    running.removed("moved/d/z");
    fs::rename(fixture.path("assets/d"), fixture.path("gone")).unwrap();
    running.removed("d/z");
    assert_eq!(running.names(), ["moved/y"]);
}

#[test]
fn a_root_may_come_later_and_go_again() {
    let fixture = Fixture::new();
    let mut running = fixture.open().scanned();
    fixture.write("downloads/a", b"a");
    running.added("a");
    fs::remove_dir_all(fixture.path("downloads")).unwrap();
    running.removed("a");
    fixture.write("downloads/b", b"b");
    running.added("b");
    fixture.write("downloads/c", b"c");
    running.added("c");
}

#[test]
fn a_file_that_is_still_being_written_is_offered_when_it_is_complete() {
    use std::io::Write;
    let fixture = Fixture::new();
    let mut running = fixture.open().scanned();
    let path = fixture.path("assets/growing");
    let mut file = fs::File::create(&path).unwrap();
    for at in 0..5 {
        file.write_all(&noise(100_000, at)).unwrap();
    }
    drop(file);
    let asset = running.added("growing");
    assert_eq!(asset.info.length, 500_000);
    let hashed = hash_file(&path, &HashOptions::default()).unwrap();
    assert_eq!(asset.info, hashed.info);
}

#[test]
fn a_file_that_changed_is_withdrawn_at_the_read_and_hashed_anew() {
    let fixture = Fixture::new();
    fixture.write("assets/a", &noise(300_000, 1));
    let mut running = fixture.open().scanned();
    let old = running.library.assets().remove(0);
    assert!(read_range(&running.library, &old.id, 0..100).is_ok());

    // The new bytes have the same length and modification time. Only the change time differs.
    let modified = fs::metadata(fixture.path("assets/a")).unwrap();
    fs::write(fixture.path("assets/a"), noise(300_000, 2)).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(fixture.path("assets/a"))
        .unwrap();
    file.set_modified(modified.modified().unwrap()).unwrap();

    let read = read_range(&running.library, &old.id, 0..100);
    assert!(matches!(read, Err(ReadError::Changed | ReadError::NotHere)));
    assert_eq!(running.removed("a"), old);
    let new = running.added("a");
    assert_ne!(new.id, old.id);
    assert_eq!(
        read_range(&running.library, &new.id, 0..300_000).unwrap(),
        noise(300_000, 2)
    );
}

#[test]
fn one_content_at_two_paths_survives_the_loss_of_one() {
    let fixture = Fixture::new();
    fixture.write("assets/same", b"bytes");
    fixture.write("downloads/same", b"bytes");
    let mut running = fixture.open().scanned();
    assert_eq!(running.names(), ["same"]);
    let id = running.library.assets()[0].id;
    fs::remove_file(fixture.path("assets/same")).unwrap();
    // The library reports this file after it has processed the removal.
    fixture.write("assets/then", b"then");
    running.added("then");
    assert_eq!(read_range(&running.library, &id, 0..5).unwrap(), b"bytes");
    assert_eq!(running.names(), ["same", "then"]);
    assert!(
        !running
            .seen
            .iter()
            .any(|event| matches!(event, LibraryEvent::Removed(_)))
    );
    fs::remove_file(fixture.path("downloads/same")).unwrap();
    running.removed("same");
}

#[test]
fn a_completed_download_is_adopted_without_hashing() {
    let fixture = Fixture::new();
    let mut running = fixture.open().scanned();
    let bytes = noise(500_000, 3);
    let source = fixture.write("source", &bytes);
    let hashed = hash_file(&source, &HashOptions::default()).unwrap();
    let name = qshare_content::AssetName::new("sub/file").unwrap();
    let target = Target::beneath(fixture.path("downloads"), name);
    let Opened::Part(part) = Part::open(&target, hashed.info, &PartOptions::default()).unwrap()
    else {
        panic!("nothing is there yet");
    };
    part.set_hashes(hashed.hashes.clone()).unwrap();
    let chunks = Chunks::of_length(hashed.info.length);
    for chunk in chunks.indices() {
        let range = chunks.range(chunk);
        let bytes = &bytes[range.start as usize..range.end as usize];
        part.write_verified(chunk, bytes).unwrap();
    }
    let path = part.finish(Durability::Immediate).unwrap();
    let asset = (running.library)
        .adopt(&path, hashed.info, &hashed.hashes)
        .unwrap();
    assert_eq!(*running.added("sub/file"), asset);
    assert_eq!(
        read_range(&running.library, &asset.id, 0..500_000).unwrap(),
        bytes
    );
    assert!(
        running
            .library
            .adopt(&source, hashed.info, &hashed.hashes)
            .is_err()
    );
    assert!(running.library.adopt(&path, hashed.info, &[]).is_err());
    fixture.write("downloads/then", b"then");
    running.added("then");
    drop(running);
    let again = fixture.open().scanned();
    assert_eq!(again.hashed_bytes(), 0);
    assert_eq!(again.names(), ["sub/file", "then"]);
}

#[cfg(unix)]
#[test]
fn links_are_neither_shared_nor_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new();
    let secret = fixture.write("secret", b"secret");
    fixture.write("private/x", b"x");
    fixture.write("assets/d/a", b"a");
    symlink(&secret, fixture.path("assets/link")).unwrap();
    symlink(fixture.path("private"), fixture.path("assets/dir")).unwrap();
    let running = fixture.open().scanned();
    assert_eq!(running.names(), ["d/a"]);
    let id = running.library.assets()[0].id;
    // The path now leads to the same file through a symbolic link.
    fs::rename(fixture.path("assets/d"), fixture.path("moved")).unwrap();
    symlink(fixture.path("moved"), fixture.path("assets/d")).unwrap();
    let read = read_range(&running.library, &id, 0..1);
    assert!(matches!(read, Err(ReadError::Changed | ReadError::NotHere)));
}

#[test]
fn two_thousand_small_files_are_found() {
    let fixture = Fixture::new();
    for at in 0..2_000u32 {
        let name = format!("assets/{}/{}/{at}", at % 7, at % 11);
        fixture.write(&name, &at.to_le_bytes());
    }
    let mut running = fixture.open();
    let found = running.wait(|event| match event {
        LibraryEvent::ScanFinished { assets, bytes } => Some((*assets, *bytes)),
        _ => None,
    });
    assert_eq!(found, (2_000, 8_000));
    assert_eq!(running.library.assets().len(), 2_000);
}

fn read_range(library: &Library, id: &ContentId, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    library.read_into(id, range.start, &mut bytes)?;
    Ok(bytes)
}
