//! Downloads that go on after a stop, a kill, or an edit of the part file.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use qshare_content::{AssetName, ChunkIndex, Chunks, ContentInfo, Hash, tree};

use super::{CHUNK, Fixture};
use crate::hashing::{HashOptions, hash_file};
use crate::part::{Durability, Opened, Part, PartOptions, unfinished};
use crate::{FileAttributes, Target};

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
    // The finished file is read through the part, and has the requested attributes.
    assert_eq!(part.read(ChunkIndex(2)).unwrap(), bytes[262_144..]);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mtime(), 1_577_934_245);
    assert_ne!(metadata.mode() & 0o100, 0);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}
