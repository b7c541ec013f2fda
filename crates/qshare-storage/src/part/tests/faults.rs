//! Parts on a disk that fails, tears writes and forgets what was not flushed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use qshare_content::{Bitmap, ChunkIndex};

use super::{CHUNK, Fixture};
use crate::disk::{Disk, RealDisk, SharedDisk};
use crate::part::{Durability, Opened};
use crate::system::{self, Dir};

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

    /// Decides whether the next operation succeeds, stops halfway or fails.
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
    /// files, since a process that holds them open holds their locks.
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
