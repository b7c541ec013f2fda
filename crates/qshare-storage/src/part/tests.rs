//! Parts: what is refused, and the fixture of all tests.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{AssetName, Bitmap, ChunkIndex, Chunks, Hash, tree};

use super::{Durability, OpenError, Opened, Part, PartError, PartOptions};
use crate::disk::{RealDisk, SharedDisk};
use crate::hashing::{HashOptions, HashedFile, hash_file};
use crate::{ReadError, Target};

mod damaged_meta;
mod faults;
mod resuming;
mod target;

const CHUNK: usize = 128 * 1024;

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

#[test]
fn a_newer_version_takes_over_the_equal_chunks_of_the_one_it_supersedes() {
    let old = Fixture::new(4 * CHUNK);
    let part = old.open();
    part.set_hashes(old.content.hashes.clone()).unwrap();
    old.fill(&part, 0..3);
    part.close().unwrap();

    let mut bytes = old.bytes.clone();
    bytes[CHUNK] ^= 1;
    let new = Fixture::of(bytes);
    let open = |supersedes| {
        let options = PartOptions {
            supersedes,
            ..PartOptions::default()
        };
        Part::open(&old.target(), new.content.info, &options)
    };
    for other in [None, Some(new.content.info.id())] {
        let refused = open(other);
        assert!(matches!(refused, Err(OpenError::OtherUnfinished { .. })));
    }
    let Ok(Opened::Part(part)) = open(Some(old.content.info.id())) else {
        panic!("not opened")
    };
    assert!(part.verified().is_empty());
    let kept = part.set_hashes(new.content.hashes.clone()).unwrap();
    let kept: Vec<_> = kept.iter().map(|chunk| chunk.0).collect();
    assert_eq!(kept, [0, 2]);
    new.fill(&part, [1, 3]);
    let path = part.finish(Durability::Deferred).unwrap();
    assert!(fs::read(path).unwrap() == new.bytes);
}

#[test]
fn direct_writes_leave_the_same_file_as_others_and_keep_its_holes() {
    let mut bytes = Fixture::new(4 * CHUNK + 5000).bytes;
    bytes[CHUNK..CHUNK + 70_000].fill(0);
    let fixture = Fixture::of(bytes);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    part.write_around_cache(true);
    let mut buffer = vec![0; CHUNK + 4097];
    let start = buffer.as_ptr().align_offset(4096);
    for chunk in [3, 0, 1, 4].map(ChunkIndex) {
        let range = part.chunks.range(chunk);
        let source = &fixture.bytes[range.start as usize..range.end as usize];
        let aligned = &mut buffer[start..start + source.len()];
        aligned.copy_from_slice(source);
        assert!(part.write_verified(chunk, aligned).unwrap());
    }
    // One that is not aligned, and one that has to be written over zeros.
    let range = part.chunks.range(ChunkIndex(2));
    let source = &fixture.bytes[range.start as usize..range.end as usize];
    buffer[start + 1..start + 1 + source.len()].copy_from_slice(source);
    let unaligned = &buffer[start + 1..start + 1 + source.len()];
    part.write_verified(ChunkIndex(2), unaligned).unwrap();
    part.checkpoint().unwrap();
    fixture.check(&part);
    let has_direct_writes = part.place.dir.open_direct(&part.data_name).is_ok();
    let direct = part.direct.written_bytes();
    // Three chunks, less the blocks of zeros, and the whole pages of the last one.
    let expected = (3 * CHUNK - 4 * 16 * 1024 + 4096) as u64;
    assert_eq!(direct, if has_direct_writes { expected } else { 0 });
    let path = part.finish(Durability::Immediate).unwrap();
    assert!(fs::read(path).unwrap() == fixture.bytes);
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
