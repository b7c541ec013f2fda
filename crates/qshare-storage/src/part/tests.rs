//! Parts on a disk that fails, tears writes and forgets what was not flushed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use qshare_content::{AssetName, Bitmap, ChunkIndex, Chunks, ContentInfo, Hash, tree};

use super::{Durability, FinishError, OpenError, Opened, Part, PartError, PartOptions, unfinished};
use crate::disk::{Disk, RealDisk, SharedDisk};
use crate::hashing::{HashOptions, HashedFile, hash_file};
use crate::system::{self, Dir};
use crate::{FileAttributes, ReadError, Target};

/// A disk on which the k-th operation fails, a write after half its bytes, and everything after
/// it too: as if the process had been killed there. [`cut_power`](Self::cut_power) then takes
/// back writes that were not flushed.
struct FaultyDisk {
    fails_at: u64,
    operations: AtomicU64,
    unflushed: Mutex<Vec<Undo>>,
}

/// What a file was like before a write that has not been flushed.
struct Undo {
    file: File,
    inode: u64,
    offset: u64,
    bytes: Vec<u8>,
    length: u64,
}

impl FaultyDisk {
    fn new(fails_at: u64) -> Arc<FaultyDisk> {
        Arc::new(FaultyDisk {
            fails_at,
            operations: AtomicU64::new(0),
            unflushed: Mutex::default(),
        })
    }

    fn count(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    /// How the next operation goes: well, half, or not at all.
    fn fate(&self) -> Fate {
        let at = self.operations.fetch_add(1, Ordering::SeqCst);
        match at.cmp(&self.fails_at) {
            std::cmp::Ordering::Less => Fate::Works,
            std::cmp::Ordering::Equal => Fate::Tears,
            std::cmp::Ordering::Greater => Fate::Fails,
        }
    }

    fn whole(&self) -> io::Result<()> {
        match self.fate() {
            Fate::Works => Ok(()),
            Fate::Tears | Fate::Fails => Err(io::Error::other("the test said so")),
        }
    }

    fn note(&self, file: &File, offset: u64, length: usize) {
        let metadata = file.metadata().unwrap();
        let kept = metadata.len().saturating_sub(offset).min(length as u64);
        let mut bytes = vec![0; kept as usize];
        system::read_exact_at(file, &mut bytes, offset).unwrap();
        self.unflushed.lock().unwrap().push(Undo {
            file: file.try_clone().unwrap(),
            inode: metadata.ino(),
            offset,
            bytes,
            length: metadata.len(),
        });
    }

    /// Takes back unflushed writes: all, or those that `lost` picks by their place. Closes the
    /// files, as whoever holds them open holds their locks.
    fn cut_power(&self, lost: impl Fn(usize) -> bool) {
        let writes = std::mem::take(&mut *self.unflushed.lock().unwrap());
        for (at, undo) in writes.into_iter().enumerate().rev() {
            if lost(at) {
                let end = undo.offset + undo.bytes.len() as u64;
                undo.file.write_all_at(&undo.bytes, undo.offset).unwrap();
                if undo.length <= end {
                    undo.file.set_len(undo.length).unwrap();
                }
            }
        }
    }
}

enum Fate {
    Works,
    Tears,
    Fails,
}

impl Disk for FaultyDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = match self.fate() {
            Fate::Works => bytes,
            Fate::Tears => &bytes[..bytes.len() / 2],
            Fate::Fails => &[],
        };
        self.note(file, offset, written.len());
        system::write_all_at(file, written, offset)?;
        if written.len() == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    fn set_len(&self, file: &File, length: u64) -> io::Result<()> {
        self.whole()?;
        file.set_len(length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.whole()?;
        let inode = file.metadata()?.ino();
        let mut unflushed = self.unflushed.lock().unwrap();
        unflushed.retain(|undo| undo.inode != inode);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Dir) -> io::Result<()> {
        self.whole()
    }

    fn sync_filesystem(&self, _dir: &Dir) -> io::Result<()> {
        self.whole()?;
        self.unflushed.lock().unwrap().clear();
        Ok(())
    }

    fn rename(&self, dir: &Dir, from: &OsStr, to: &OsStr, over: bool) -> io::Result<()> {
        self.whole()?;
        RealDisk.rename(dir, from, to, over)
    }

    fn remove(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.whole()?;
        RealDisk.remove(dir, name)
    }
}

/// A content, and a directory that it is downloaded into.
struct Fixture {
    temp: tempfile::TempDir,
    bytes: Vec<u8>,
    content: HashedFile,
    chunks: Chunks,
}

impl Fixture {
    fn new(length: usize) -> Fixture {
        Fixture::of(
            (0..length)
                .map(|at| (at / 7 + at / 4099) as u8 | 1)
                .collect(),
        )
    }

    fn of(bytes: Vec<u8>) -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let source = temp.path().join("source");
        fs::write(&source, &bytes).unwrap();
        let content = hash_file(&source, &HashOptions::default()).unwrap();
        Fixture {
            temp,
            chunks: Chunks::of_length(bytes.len() as u64),
            bytes,
            content,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("down").join(name)
    }

    fn target(&self) -> Target {
        let name = AssetName::new("dir/file").unwrap();
        Target::beneath(self.temp.path().join("down"), name)
    }

    fn try_open(&self, disk: SharedDisk) -> Result<Opened, OpenError> {
        let options = PartOptions::default();
        Part::open_on(disk, &self.target(), self.content.info, &options)
    }

    fn open(&self) -> Part {
        match self.try_open(Arc::new(RealDisk)).unwrap() {
            Opened::Part(part) => part,
            Opened::Complete { path } => panic!("{} is complete", path.display()),
        }
    }

    fn bytes_of(&self, chunk: u32) -> &[u8] {
        let range = self.chunks.range(ChunkIndex(chunk));
        &self.bytes[range.start as usize..range.end as usize]
    }

    fn fill(&self, part: &Part, chunks: impl IntoIterator<Item = u32>) {
        for chunk in chunks {
            let index = ChunkIndex(chunk);
            part.write_verified(index, self.bytes_of(chunk)).unwrap();
        }
    }

    fn set(&self, chunks: impl IntoIterator<Item = u32>) -> Bitmap {
        let mut set = Bitmap::new(self.chunks.count());
        for chunk in chunks {
            set.insert(ChunkIndex(chunk));
        }
        set
    }

    /// Whether what is called verified reads as it should.
    fn check(&self, part: &Part) {
        for chunk in part.verified().iter() {
            assert_eq!(part.read(chunk).unwrap(), self.bytes_of(chunk.0));
        }
    }

    /// Downloads what is missing and compares the final file.
    fn complete(&self, part: Part) {
        part.set_hashes(self.content.hashes.clone()).unwrap();
        let missing: Vec<_> = part.verified().missing().map(|chunk| chunk.0).collect();
        self.fill(&part, missing);
        let path = part.finish(Durability::Immediate).unwrap();
        assert!(fs::read(path).unwrap() == self.bytes);
        let left: Vec<_> = fs::read_dir(self.path("dir")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

const CHUNK: usize = 128 * 1024;

#[test]
fn a_download_goes_on_after_a_clean_stop_without_hashing() {
    let fixture = Fixture::new(5 * CHUNK + 3);
    let part = fixture.open();
    assert!(!part.has_hashes());
    assert!(part.recovered().is_empty());
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0, 3, 5]);
    assert!(part.durable().is_empty());
    part.checkpoint().unwrap();
    assert_eq!(part.durable(), fixture.set([0, 3, 5]));
    fixture.fill(&part, [4]);
    part.close().unwrap();

    let found = unfinished(&fixture.path(""));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].target, fixture.target());
    assert_eq!(found[0].info, fixture.content.info);
    assert_eq!(found[0].durable_chunks, 4);

    let hashed = Arc::new(AtomicU64::new(0));
    let count = hashed.clone();
    let options = PartOptions {
        force: false,
        hashing: HashOptions {
            progress: Some(Arc::new(move |done, _| {
                count.store(done, Ordering::SeqCst);
            })),
            ..HashOptions::default()
        },
        ..PartOptions::default()
    };
    let opened = Part::open(&fixture.target(), fixture.content.info, &options).unwrap();
    let Opened::Part(part) = opened else {
        panic!("not complete")
    };
    assert_eq!(hashed.load(Ordering::SeqCst), 0);
    assert_eq!(part.recovered(), fixture.set([0, 3, 4, 5]));
    assert_eq!(part.durable(), part.recovered());
    assert!(part.has_hashes());
    fixture.check(&part);
    fixture.complete(part);
}

#[test]
fn what_was_written_survives_a_kill() {
    let fixture = Fixture::new(5 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [1, 2]);
    // Bytes that nobody has verified.
    part.write(ChunkIndex(4), 5, b"stray").unwrap();
    drop(part);
    let part = fixture.open();
    assert_eq!(part.recovered(), fixture.set([1, 2]));
    assert!(part.durable().is_empty());
    fixture.complete(part);
}

#[test]
fn an_edited_or_cut_part_file_yields_no_wrong_byte() {
    let fixture = Fixture::new(5 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, 0..5);
    part.close().unwrap();
    let path = fixture.path("dir/file.qshare.part");
    let file = File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"edited", 2 * CHUNK as u64).unwrap();
    file.set_modified(modified).unwrap();
    let part = fixture.open();
    assert_eq!(part.recovered(), fixture.set([0, 1, 3, 4]));
    assert_eq!(part.durable(), fixture.set([0, 1, 3, 4]));
    part.close().unwrap();

    file.set_len(3 * CHUNK as u64 + 1).unwrap();
    let part = fixture.open();
    assert_eq!(part.recovered(), fixture.set([0, 1]));
    part.close().unwrap();

    file.set_len(50 * CHUNK as u64).unwrap();
    let part = fixture.open();
    assert_eq!(part.recovered(), fixture.set([0, 1]));
    part.close().unwrap();

    fs::remove_file(&path).unwrap();
    let part = fixture.open();
    assert!(part.recovered().is_empty());
    fixture.complete(part);
}

#[test]
fn a_second_download_of_the_same_file_is_refused_while_the_first_runs() {
    let fixture = Fixture::new(CHUNK * 2);
    let part = fixture.open();
    let second = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(second, Err(OpenError::Locked(_))));
    drop(part);
    fixture.open().discard().unwrap();
    assert_eq!(fs::read_dir(fixture.path("dir")).unwrap().count(), 0);
}

#[test]
fn what_stands_at_the_target_is_compared_and_not_overwritten() {
    let fixture = Fixture::new(3 * CHUNK);
    let target = fixture.path("dir/file");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, &fixture.bytes).unwrap();
    let opened = fixture.try_open(Arc::new(RealDisk)).unwrap();
    assert!(matches!(opened, Opened::Complete { path } if path == target));

    let mut other = fixture.bytes.clone();
    other[77] ^= 1;
    fs::write(&target, &other).unwrap();
    let refused = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(refused, Err(OpenError::Different(path)) if path == target));
    assert!(fs::read(&target).unwrap() == other);

    let force = PartOptions {
        force: true,
        ..PartOptions::default()
    };
    let opened = Part::open(&fixture.target(), fixture.content.info, &force).unwrap();
    let Opened::Part(part) = opened else {
        panic!("not complete")
    };
    fixture.complete(part);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let fixture = Fixture::new(2 * CHUNK);
    let target = fixture.path("dir/file");
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0]);
    let refused = part.finish(Durability::Immediate);
    assert!(matches!(
        refused,
        Err(FinishError::Incomplete { missing: 1 })
    ));
    fixture.fill(&part, [1]);
    fs::write(&target, b"somebody's").unwrap();
    let refused = part.finish(Durability::Immediate);
    assert!(matches!(refused, Err(FinishError::Different(_))));
    assert_eq!(fs::read(&target).unwrap(), b"somebody's");

    fs::remove_file(&target).unwrap();
    drop(part);
    let part = fixture.open();
    assert!(part.recovered().is_full());
    fs::write(&target, &fixture.bytes).unwrap();
    fixture.complete(part);
}

#[test]
fn files_that_qshare_has_not_made_are_left_alone() {
    let fixture = Fixture::new(2 * CHUNK);
    fs::create_dir_all(fixture.path("dir")).unwrap();
    for name in ["dir/file.qshare.part", "dir/file.qshare.meta"] {
        let path = fixture.path(name);
        for bytes in [&b"precious"[..], b""] {
            fs::write(&path, bytes).unwrap();
            let refused = fixture.try_open(Arc::new(RealDisk));
            assert!(matches!(refused, Err(OpenError::NotOurs(at)) if at == path));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(unfinished(&fixture.path("")).is_empty());
    fixture.complete(fixture.open());
}

#[test]
fn links_in_the_way_are_not_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new(2 * CHUNK);
    let outside = fixture.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), b"precious").unwrap();
    fs::create_dir_all(fixture.path("")).unwrap();
    symlink(&outside, fixture.path("dir")).unwrap();
    assert!(matches!(
        fixture.try_open(Arc::new(RealDisk)),
        Err(OpenError::Disk(_))
    ));
    fs::remove_file(fixture.path("dir")).unwrap();

    fs::create_dir(fixture.path("dir")).unwrap();
    for (name, different) in [
        ("dir/file", true),
        ("dir/file.qshare.part", false),
        ("dir/file.qshare.meta", false),
    ] {
        symlink(outside.join("f"), fixture.path(name)).unwrap();
        match fixture.try_open(Arc::new(RealDisk)) {
            Err(OpenError::Different(_)) if different => {}
            Err(OpenError::NotOurs(_)) if !different => {}
            _ => panic!("{name}"),
        }
        fs::remove_file(fixture.path(name)).unwrap();
    }
    // A part file that becomes a link while its meta file is there.
    fixture.open().close().unwrap();
    fs::remove_file(fixture.path("dir/file.qshare.part")).unwrap();
    symlink(outside.join("f"), fixture.path("dir/file.qshare.part")).unwrap();
    let refused = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(refused, Err(OpenError::NotOurs(_))));
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn another_contents_unfinished_download_is_only_discarded_by_force() {
    let fixture = Fixture::new(3 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, 0..2);
    part.close().unwrap();

    let other = Fixture::of(vec![3; 2 * CHUNK]);
    let id = fixture.content.info.id();
    let options = PartOptions::default();
    let refused = Part::open(&fixture.target(), other.content.info, &options);
    assert!(matches!(refused, Err(OpenError::OtherUnfinished { other, .. }) if other == id));
    assert_eq!(fixture.open().recovered().count(), 2);

    let options = PartOptions {
        force: true,
        ..options
    };
    let opened = Part::open(&fixture.target(), other.content.info, &options).unwrap();
    let Opened::Part(part) = opened else {
        panic!("not complete")
    };
    part.set_hashes(other.content.hashes.clone()).unwrap();
    assert!(part.verified().is_empty());
    other.fill(&part, 0..2);
    let path = part.finish(Durability::Deferred).unwrap();
    assert!(fs::read(path).unwrap() == other.bytes);
}

#[test]
fn what_has_ended_is_read_but_no_longer_written() {
    let fixture = Fixture::new(2 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0]);
    part.close().unwrap();
    assert!(part.write(ChunkIndex(1), 0, b"late").is_err());
    assert!(part.checkpoint().is_err());
    fixture.check(&part);

    let part = fixture.open();
    fixture.fill(&part, [1]);
    let path = part.finish(Durability::Deferred).unwrap();
    assert!(part.finish(Durability::Deferred).is_err());
    fixture.check(&part);
    fs::write(&path, vec![0; 2 * CHUNK + 1]).unwrap();
    assert!(matches!(part.read(ChunkIndex(0)), Err(ReadError::Changed)));
}

#[test]
fn bytes_and_hashes_that_do_not_fit_are_refused() {
    let fixture = Fixture::new(2 * CHUNK + 10);
    let part = fixture.open();
    for (chunk, offset, length) in [(2, 5, 6), (3, 0, 0), (0, u64::MAX, 1), (0, 1, CHUNK)] {
        let written = part.write(ChunkIndex(chunk), offset, &vec![1; length]);
        assert!(matches!(written, Err(PartError::OutOfRange(_))), "{chunk}");
    }
    let short = part.write_verified(ChunkIndex(0), b"short");
    assert!(matches!(short, Err(PartError::OutOfRange(_))));
    let wrong = part.set_hashes(vec![Hash::ZERO; 3]);
    assert!(matches!(wrong, Err(PartError::WrongHashes)));
    let few = part.set_hashes(fixture.content.hashes[..2].to_vec());
    assert!(matches!(few, Err(PartError::WrongHashes)));
    assert!(!part.has_hashes());
    assert!(matches!(part.hash_page(0), Err(ReadError::NotHere)));

    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    let page = part.hash_page(0).unwrap();
    let root = fixture.content.info.root;
    assert!(tree::verify_page(
        &fixture.chunks,
        &root,
        0,
        &page.hashes,
        &page.path
    ));
    assert!(matches!(part.hash_page(1), Err(ReadError::NotHere)));
    assert!(matches!(part.read(ChunkIndex(0)), Err(ReadError::NotHere)));
    fixture.fill(&part, [0]);
    // What is verified stays as it is.
    part.write(ChunkIndex(0), 0, b"late lies").unwrap();
    fixture.check(&part);
    assert!(part.read_into(ChunkIndex(0), 5, &mut [0; 4]).is_ok());
    let beyond = part.read_into(ChunkIndex(0), 1, &mut vec![0; CHUNK]);
    assert!(beyond.is_err());
}

#[test]
fn contents_of_one_chunk_need_no_hashes() {
    for length in [0, 1, CHUNK] {
        let fixture = Fixture::new(length);
        let part = fixture.open();
        assert!(part.has_hashes());
        fixture.fill(&part, [0]);
        part.close().unwrap();
        let part = fixture.open();
        assert!(part.recovered().is_full());
        fixture.complete(part);
    }
}

#[test]
fn bytes_that_precede_their_hashes_are_judged_once_these_are_known() {
    let fixture = Fixture::new(4 * CHUNK);
    let part = fixture.open();
    fixture.fill(&part, [1, 3]);
    drop(part);
    let part = fixture.open();
    assert!(part.recovered().is_empty());
    let verified = part.set_hashes(fixture.content.hashes.clone()).unwrap();
    assert_eq!(verified, fixture.set([1, 3]));
    fixture.complete(part);
}

#[test]
fn holes_of_a_sparse_part_are_not_read() {
    // 4 GiB, of which the last chunk was written.
    let length = 4u64 << 30;
    let chunks = Chunks::of_length(length);
    let last = ChunkIndex(chunks.count() - 1);
    let bytes = vec![7; chunks.size(last) as usize];
    let mut hashes = vec![Hash([1; 32]); chunks.count() as usize];
    hashes[last.get()] = tree::chunk_hash(&chunks, &bytes);
    let root = tree::root_of_chunks(&chunks, &hashes);
    let info = ContentInfo { length, root };

    let temp = tempfile::tempdir().unwrap();
    let target = Target::Path(temp.path().join("sparse"));
    let hashed = Arc::new(AtomicU64::new(0));
    let count = hashed.clone();
    let mut options = PartOptions::default();
    options.hashing.progress = Some(Arc::new(move |_, total| {
        count.store(total, Ordering::SeqCst);
    }));
    let open = || match Part::open(&target, info, &options).unwrap() {
        Opened::Part(part) => part,
        Opened::Complete { .. } => panic!("not complete"),
    };
    let part = open();
    part.set_hashes(hashes).unwrap();
    part.write_verified(last, &bytes).unwrap();
    drop(part);
    let metadata = fs::metadata(temp.path().join("sparse.qshare.part")).unwrap();
    assert_eq!(metadata.len(), length);
    assert!(metadata.blocks() * 512 < 64 << 20);

    let part = open();
    assert_eq!(part.recovered().iter().collect::<Vec<_>>(), [last]);
    assert!(hashed.load(Ordering::SeqCst) <= 2 * chunks.chunk_bytes());
}

#[test]
fn zeros_in_a_hole_count_if_zeros_are_right() {
    let mut bytes = vec![0; 6 * CHUNK];
    bytes[5 * CHUNK] = 1;
    let fixture = Fixture::of(bytes);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [5]);
    drop(part);
    let part = fixture.open();
    assert!(part.recovered().is_full());
    fixture.check(&part);
    fixture.complete(part);
}

/// A download on `disk` up to its first failure: checkpoints now and then, a clean stop in the
/// middle. Returns what was called durable last.
fn download(fixture: &Fixture, disk: &SharedDisk, durable: &mut Bitmap) -> Result<(), ()> {
    let open = || match fixture.try_open(disk.clone()) {
        Ok(Opened::Part(part)) => Ok(part),
        _ => Err(()),
    };
    let mut part = open()?;
    part.set_hashes(fixture.content.hashes.clone())
        .map_err(|_| ())?;
    for chunk in [3, 0, 5, 1, 4, 2] {
        if chunk == 1 {
            part.close().map_err(|_| ())?;
            part = open()?;
            *durable = part.durable();
        }
        let bytes = fixture.bytes_of(chunk);
        let (early, late) = bytes.split_at(bytes.len() / 3);
        let index = ChunkIndex(chunk);
        part.write(index, 0, early).map_err(|_| ())?;
        part.write(index, early.len() as u64, late)
            .map_err(|_| ())?;
        assert!(part.mark_verified(index));
        if chunk % 2 == 0 {
            part.checkpoint().map_err(|_| ())?;
            *durable = part.durable();
        }
    }
    part.finish(Durability::Immediate)
        .map(|_| ())
        .map_err(|_| ())
}

#[test]
fn whatever_operation_fails_nothing_durable_is_lost_and_the_file_comes_out_right() {
    let operations = {
        let fixture = Fixture::new(5 * CHUNK + 77);
        let disk = FaultyDisk::new(u64::MAX);
        let mut durable = fixture.set([]);
        download(&fixture, &(disk.clone() as SharedDisk), &mut durable).unwrap();
        disk.count()
    };
    assert!(operations > 30, "{operations}");
    let mut outcomes: HashMap<&str, u32> = HashMap::new();
    for fails_at in 0..operations {
        for power in ["on", "cut", "half"] {
            let fixture = Fixture::new(5 * CHUNK + 77);
            let disk = FaultyDisk::new(fails_at);
            let mut durable = fixture.set([]);
            let result = download(&fixture, &(disk.clone() as SharedDisk), &mut durable);
            assert!(result.is_err() || fails_at + 1 >= operations);
            match power {
                "cut" => disk.cut_power(|_| true),
                "half" => disk.cut_power(|at| at % 2 == 0),
                _ => disk.cut_power(|_| false),
            }
            match fixture.try_open(Arc::new(RealDisk)) {
                Ok(Opened::Complete { path }) => {
                    assert!(fs::read(path).unwrap() == fixture.bytes);
                    *outcomes.entry("complete").or_default() += 1;
                }
                Ok(Opened::Part(part)) => {
                    part.set_hashes(fixture.content.hashes.clone()).unwrap();
                    let verified = part.verified();
                    for chunk in durable.iter() {
                        assert!(verified.contains(chunk), "{fails_at} {power} {chunk:?}");
                    }
                    fixture.check(&part);
                    fixture.complete(part);
                    *outcomes.entry("resumed").or_default() += 1;
                }
                Err(error) => panic!("{fails_at} {power}: {error}"),
            }
        }
    }
    assert!(outcomes["complete"] > 0 && outcomes["resumed"] > 0);
}

#[test]
fn after_a_failed_flush_nothing_more_is_called_durable() {
    struct NoFlush;
    impl Disk for NoFlush {
        fn sync(&self, file: &File) -> io::Result<()> {
            // Only the part file's; the first one, as the system reports an error once.
            static FAILED: AtomicU64 = AtomicU64::new(0);
            if file.metadata()?.len() > 100_000 && FAILED.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(io::Error::other("lost"));
            }
            Ok(())
        }
    }
    let fixture = Fixture::new(2 * CHUNK);
    let Ok(Opened::Part(part)) = fixture.try_open(Arc::new(NoFlush)) else {
        panic!("nothing fails yet")
    };
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, 0..2);
    assert!(part.checkpoint().is_err());
    assert!(part.checkpoint().is_err());
    assert!(part.durable().is_empty());
    assert!(part.finish(Durability::Immediate).is_err());
    drop(part);
    fixture.complete(fixture.open());
}

/// Alters one byte of the meta file of a stopped download.
fn alter_meta(fixture: &Fixture, at: usize, by: u8) {
    let path = fixture.path("dir/file.qshare.meta");
    let mut bytes = fs::read(&path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= by;
    fs::write(&path, bytes).unwrap();
}

/// The directory of a stopped download, to be copied for each try.
fn stopped() -> Fixture {
    let fixture = Fixture::new(4 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0, 1, 3]);
    part.close().unwrap();
    fixture
}

fn check_altered(fixture: &Fixture, meta: &Path, original: &[u8], at: usize, by: u8) {
    let at = at % original.len();
    alter_meta(fixture, at, by);
    let hashes_at = original.len() - 4 * 32;
    if at < 8 {
        let refused = fixture.try_open(Arc::new(RealDisk));
        assert!(matches!(refused, Err(OpenError::NotOurs(_))), "{at}");
    } else {
        let part = fixture.open();
        assert_eq!(part.has_hashes(), at < hashes_at, "{at}");
        part.set_hashes(fixture.content.hashes.clone()).unwrap();
        assert_eq!(part.verified(), fixture.set([0, 1, 3]), "{at}");
        fixture.check(&part);
        drop(part);
    }
    fs::write(meta, original).unwrap();
}

#[test]
fn no_altered_byte_of_a_meta_file_costs_more_than_hashing() {
    let fixture = stopped();
    let meta = fixture.path("dir/file.qshare.meta");
    let original = fs::read(&meta).unwrap();
    // Each byte that means something; the rest is padding.
    let slots = [4096..4096 + 80, 8192..8192 + 80];
    let hashes = original.len() - 4 * 32..original.len();
    for at in (0..200).chain(slots.into_iter().flatten()).chain(hashes) {
        check_altered(&fixture, &meta, &original, at, 0x40);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_alteration_of_a_meta_file_yields_a_wrong_byte(
        alterations in proptest::collection::vec((8usize.., 1u8..), 1..20),
        cut in 8usize..20_000,
    ) {
        let fixture = stopped();
        let meta = fixture.path("dir/file.qshare.meta");
        for (at, by) in alterations {
            alter_meta(&fixture, 8 + at % 12_000, by);
        }
        let bytes = fs::read(&meta).unwrap();
        fs::write(&meta, &bytes[..cut.min(bytes.len())]).unwrap();
        // The magic may have been hit by a wrapped position; then nothing is touched.
        if let Ok(Opened::Part(part)) = fixture.try_open(Arc::new(RealDisk)) {
            fixture.check(&part);
            fixture.complete(part);
        }
    }
}

#[test]
fn the_longest_file_name_can_be_downloaded_and_resumed() {
    let temp = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
    let source = temp.path().join("source");
    fs::write(&source, &bytes).unwrap();
    let hashed = hash_file(&source, &HashOptions::default()).unwrap();
    let long = "y".repeat(255);
    let name = AssetName::new(format!("{}/{long}", "d".repeat(255))).unwrap();
    let base = temp.path().join("base");
    let target = Target::beneath(&base, name.clone());
    let open = |target: &Target| {
        let options = PartOptions {
            attributes: FileAttributes {
                modified_ns: Some(1_577_934_245_000_000_000),
                executable: true,
            },
            ..PartOptions::default()
        };
        match Part::open(target, hashed.info, &options).unwrap() {
            Opened::Part(part) => part,
            Opened::Complete { .. } => panic!("not complete"),
        }
    };
    let part = open(&target);
    assert!(target.part_path().is_file());
    part.set_hashes(hashed.hashes.clone()).unwrap();
    part.write_verified(ChunkIndex(0), &bytes[..131_072])
        .unwrap();
    part.close().unwrap();
    let found = unfinished(&base);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].name, found[0].durable_chunks), (&name, 1));

    let part = open(&found[0].target);
    assert!(part.recovered().contains(ChunkIndex(0)));
    part.write_verified(ChunkIndex(1), &bytes[131_072..262_144])
        .unwrap();
    part.write_verified(ChunkIndex(2), &bytes[262_144..])
        .unwrap();
    let path = part.finish(Durability::Immediate).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    // It can still be read, and has what travels with it.
    assert_eq!(part.read(ChunkIndex(2)).unwrap(), bytes[262_144..]);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mtime(), 1_577_934_245);
    assert_ne!(metadata.mode() & 0o100, 0);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}
