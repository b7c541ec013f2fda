//! Entry points for the fuzz targets in `fuzz/`, compiled only with `--cfg fuzzing`.

use std::path::PathBuf;

use qshare_content::{Chunks, ContentInfo, Hash, LENGTH_MAX_BYTES, tree};

use crate::index::{Hashes, Index};
use crate::meta::{self, Head, HeadRead, Slot};
use crate::stamp::Stamp;

/// Takes values from the front of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.split(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.split(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    fn hash(&mut self) -> Hash {
        let mut bytes = [0; 32];
        let taken = self.split(32);
        bytes[..taken.len()].copy_from_slice(taken);
        Hash(bytes)
    }

    fn split(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Reads an input as a meta file, in three ways that its first byte chooses: as it is; as a body
/// of a head and as a slot, both with checksums that fit, since no fuzzer finds one.
///
/// # Panics
///
/// When what was read is not what is written back.
pub fn read_meta_file(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => read_head(input.0),
        1 => read_head(&meta::with_checksum(input.0)),
        _ => {
            let length = input.number() % (LENGTH_MAX_BYTES + 1);
            let root = input.hash();
            let info = ContentInfo { length, root };
            let chunks = Chunks::of_length(length);
            let bytes = meta::slot_with_checksum(&info.id(), input.0);
            if let Some(slot) = Slot::decode(&bytes, &info.id(), &chunks) {
                let again = slot.encode(&info.id());
                assert_eq!(Slot::decode(&again, &info.id(), &chunks), Some(slot));
            }
            let _ = meta::decode_hashes(input.0);
        }
    }
}

fn read_head(bytes: &[u8]) {
    if let HeadRead::Good(head) = Head::decode(bytes) {
        assert!(head.info.length <= LENGTH_MAX_BYTES);
        assert_eq!(Head::decode(&head.encode()), HeadRead::Good(head));
    }
}

/// An index whose records are written from outside.
pub struct IndexRecords {
    index: Index,
    dir: PathBuf,
}

impl IndexRecords {
    /// An empty index in a directory of its own, in memory where the system offers that.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn open() -> IndexRecords {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let dir = parent.join(format!("qshare-fuzz-{}", std::process::id()));
        let index = Index::open(&dir).expect("an index in a directory of its own");
        IndexRecords { index, dir }
    }

    /// Writes records from an input, and reads them as for a peer that asks for hashes.
    ///
    /// # Panics
    ///
    /// When hashes come out that do not belong to their content.
    pub fn read(&self, data: &[u8]) {
        let mut input = Input(data);
        // Up to four pages: 4 MiB chunks, 4,096 of them a page.
        let length = input.number() % (64 << 30);
        let root = input.hash();
        let stamp = Stamp {
            device: 1,
            inode: 1,
            size: length,
            mtime_ns: 2,
            ctime_ns: 3,
            executable: false,
        };
        let info = ContentInfo { length, root };
        let chunks = Chunks::of_length(length);
        let page = u32::from(input.byte()) % tree::page_count(&chunks).max(1);
        let count = usize::from(input.byte());
        let roots = input.split(count);
        let whole = tree::page_chunks(&chunks, page).len() * 32;
        // A whole page is larger than an input.
        let repeated: Vec<u8> = input.0.iter().copied().cycle().take(whole).collect();
        let hashes = if count % 2 == 0 { input.0 } else { &repeated };
        self.index
            .put_raw(&stamp, &info, page, hashes, roots)
            .expect("a write to memory");
        if let Ok(files) = self.index.files()
            && let Some(found) = files.get(&stamp)
        {
            assert_eq!(found, info);
        }
        if let Ok(Hashes::Found(found)) = self.index.proven_page(&info, page) {
            let proven = tree::verify_page(&chunks, &root, page, &found.hashes, &found.path);
            assert!(proven);
        }
        let wanted = tree::page_chunks(&chunks, page);
        if let Ok(Hashes::Found(found)) = self.index.chunk_hashes(&info, wanted.clone()) {
            assert_eq!(found.len(), wanted.len());
        }
        self.index
            .retain(|_, _| false, |_| false)
            .expect("a write to memory");
    }
}

impl Drop for IndexRecords {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
