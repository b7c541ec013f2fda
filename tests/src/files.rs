//! Files with known bytes, and their hashes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use qshare_content::{Chunks, ContentInfo, Hash, tree};

/// Age of the files that [`put`] writes.
const AGE: Duration = Duration::from_secs(3600);

/// Returns pseudo-random bytes; no two chunks of them are equal.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // Xorshift is fast, and randomness is needed only to make chunks differ.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file and creates its parent directories. The file is an hour old, so that a node which
/// shares it does not wait 2 s to see whether it is still being written.
pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(SystemTime::now() - AGE).unwrap();
}

/// Returns the chunk hashes of `bytes`.
pub fn chunk_hashes(bytes: &[u8]) -> Vec<Hash> {
    let chunks = Chunks::of_length(bytes.len() as u64);
    let hash = |chunk| {
        let range = chunks.range(chunk);
        tree::chunk_hash(&chunks, &bytes[range.start as usize..range.end as usize])
    };
    chunks.indices().map(hash).collect()
}

/// Returns the length and the root of `bytes`.
pub fn info(bytes: &[u8]) -> ContentInfo {
    let chunks = Chunks::of_length(bytes.len() as u64);
    ContentInfo {
        length: bytes.len() as u64,
        root: tree::root_of_chunks(&chunks, &chunk_hashes(bytes)),
    }
}

/// Panics unless the file has exactly these bytes; prints no bytes.
pub fn assert_same(path: &Path, bytes: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(found.len(), bytes.len(), "length of {}", path.display());
    let first = found
        .iter()
        .zip(bytes)
        .position(|(one, other)| one != other);
    assert_eq!(first, None, "first wrong byte of {}", path.display());
}
