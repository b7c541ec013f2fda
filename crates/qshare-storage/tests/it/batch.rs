//! Batches of small files. A batch writes each file whole and gives it its name once it is durable.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::fs;
use std::path::{Path, PathBuf};

use qshare_content::{AssetName, Chunks, ContentInfo, tree};
use qshare_storage::{Batch, BatchError, Durability, Target};

fn info(bytes: &[u8]) -> ContentInfo {
    let chunks = Chunks::of_length(bytes.len() as u64);
    ContentInfo {
        length: bytes.len() as u64,
        root: tree::chunk_hash(&chunks, bytes),
    }
}

fn target(base: &Path, name: &str) -> Target {
    Target::beneath(base, AssetName::new(name).unwrap())
}

/// Writes one file in a batch of its own.
fn write_one(
    target: &Target,
    info: ContentInfo,
    bytes: &[u8],
    force: bool,
) -> Result<PathBuf, BatchError> {
    let mut batch = Batch::new(force);
    batch.add(target, info, bytes)?;
    let (_, result) = batch.commit(Durability::Immediate).remove(0);
    result
}

/// Counts the files beneath a directory, including hidden ones.
fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

#[test]
fn two_thousand_small_files_get_their_names_together() {
    let temp = tempfile::tempdir().unwrap();
    let mut batch = Batch::new(false);
    let name = |at: u32| format!("{}/{}/{at}", at % 13, at % 7);
    for at in 0..2_000u32 {
        let bytes = at.to_le_bytes();
        batch
            .add(&target(temp.path(), &name(at)), info(&bytes), &bytes)
            .unwrap();
    }
    assert_eq!(batch.len(), 2_000);
    assert!(!temp.path().join(name(5)).exists());
    let results = batch.commit(Durability::Immediate);
    assert!(batch.is_empty());
    for (at, (committed, result)) in (0..).zip(&results) {
        assert_eq!(*committed, target(temp.path(), &name(at)));
        let path = result.as_ref().unwrap();
        assert_eq!(fs::read(path).unwrap(), at.to_le_bytes());
    }
    assert_eq!(count_files(temp.path()), 2_000);
}

#[test]
fn a_file_in_the_way_is_kept_unless_forced() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a");
    let target = target(temp.path(), "a");
    let write = |bytes: &[u8], force| write_one(&target, info(bytes), bytes, force);
    assert_eq!(write(b"one", false).unwrap(), path);
    assert_eq!(write(b"one", false).unwrap(), path);
    assert!(matches!(write(b"two", false), Err(BatchError::Different(at)) if at == path));
    assert_eq!(fs::read(&path).unwrap(), b"one");
    assert_eq!(write(b"two", true).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(write(b"", true).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(count_files(temp.path()), 1);
}

#[test]
fn bytes_of_another_content_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let target = target(temp.path(), "a");
    let wrong = write_one(&target, info(b"one"), b"two", false);
    assert!(matches!(wrong, Err(BatchError::Mismatch(_))));
    let two_chunks = vec![0; 200_000];
    let wrong = write_one(&target, info(&two_chunks), &two_chunks, false);
    assert!(matches!(wrong, Err(BatchError::Mismatch(_))));
    assert_eq!(count_files(temp.path()), 0);
}

#[test]
fn a_file_that_appears_before_the_commit_is_kept_and_the_others_are_written() {
    let temp = tempfile::tempdir().unwrap();
    let mut batch = Batch::new(false);
    for name in ["a", "b", "c", "b"] {
        let bytes = name.as_bytes();
        batch
            .add(&target(temp.path(), name), info(bytes), bytes)
            .unwrap();
    }
    fs::write(temp.path().join("a"), b"somebody's").unwrap();
    fs::write(temp.path().join("c"), b"c").unwrap();
    let results = batch.commit(Durability::Deferred);
    assert!(matches!(results[0].1, Err(BatchError::Different(_))));
    assert!(results[1..].iter().all(|(_, result)| result.is_ok()));
    assert_eq!(fs::read(temp.path().join("a")).unwrap(), b"somebody's");
    assert_eq!(count_files(temp.path()), 3);
}

#[test]
fn a_batch_that_is_given_up_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut batch = Batch::new(false);
    let target = target(temp.path(), "a");
    batch.add(&target, info(b"a"), b"a").unwrap();
    assert_eq!(count_files(temp.path()), 1);
    drop(batch);
    assert_eq!(count_files(temp.path()), 0);
}

#[cfg(unix)]
#[test]
fn links_in_the_way_are_not_followed() {
    use std::os::unix::fs::symlink;
    let temp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), b"precious").unwrap();
    symlink(outside.path(), temp.path().join("dir")).unwrap();
    let through = target(temp.path(), "dir/f");
    let refused = write_one(&through, info(b"x"), b"x", true);
    assert!(matches!(refused, Err(BatchError::Disk(_))));

    symlink(outside.path().join("f"), temp.path().join("link")).unwrap();
    let link = target(temp.path(), "link");
    let refused = write_one(&link, info(b"x"), b"x", false);
    assert!(matches!(refused, Err(BatchError::Different(_))));
    write_one(&link, info(b"x"), b"x", true).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, temp.path().join("fifo"), 0o600.into()).unwrap();
    for name in ["fifo", "subdirectory"] {
        fs::create_dir_all(temp.path().join("subdirectory")).unwrap();
        let refused = write_one(&target(temp.path(), name), info(b"x"), b"x", true);
        assert!(matches!(refused, Err(BatchError::NotAFile(_))), "{name}");
        assert!(!temp.path().join(name).is_file());
    }
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"precious");
}
