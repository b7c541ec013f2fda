//! Verification of a part file after an unclean stop.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use qshare_content::{Bitmap, ChunkIndex, Chunks, tree};

use super::hashes::ChunkHashes;
use crate::DiskError;
use crate::hashing::{ChunkFailure, HashOptions, hash_chunks};
use crate::system::{data_from, hole_from};

/// The reason why a part file could not be verified.
pub(crate) enum RecoverError {
    Cancelled,
    Disk(DiskError),
}

/// Returns the chunks of the part file whose bytes have the right hash.
///
/// Only chunks with data are read. A chunk in a hole consists of zeros, and one comparison with the
/// hash of zeros verifies it.
pub(crate) fn verified_chunks(
    file: &File,
    path: &Path,
    chunks: &Chunks,
    hashes: &ChunkHashes,
    options: &HashOptions,
) -> Result<Bitmap, RecoverError> {
    let failed = |error| RecoverError::Disk(DiskError::new("read", path, error));
    let size = file.metadata().map_err(failed)?.len();
    let data = chunks_with_data(file, chunks, size).map_err(failed)?;
    let verified = Mutex::new(Bitmap::new(chunks.count()));
    let judge = |chunk, hash| match hashes.get(chunk) {
        Ok(expected) if expected == Some(hash) => {
            let mut verified = verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.insert(chunk);
        }
        // Without its hash a chunk cannot be verified. It is fetched again.
        Ok(_) | Err(_) => {}
    };
    let total_bytes = data
        .iter()
        .flat_map(Range::clone)
        .map(|chunk| chunks.size(ChunkIndex(chunk)))
        .sum();
    let with_data = data.iter().flat_map(Range::clone).map(ChunkIndex);
    hash_chunks(file, chunks, with_data, total_bytes, options, judge).map_err(|failure| {
        match failure {
            ChunkFailure::Cancelled => RecoverError::Cancelled,
            ChunkFailure::Read(error) => failed(error),
        }
    })?;

    let mut next = 0;
    let ends = data.iter().map(|range| (range.start, range.end));
    let mut zeros = None;
    for (start, end) in ends.chain([(chunks.count(), chunks.count())]) {
        for chunk in (next..start).map(ChunkIndex) {
            let range = chunks.range(chunk);
            if range.end > size {
                break;
            }
            let bytes = range.end - range.start;
            let hash = match zeros {
                Some((length, hash)) if length == bytes => hash,
                _ => tree::chunk_hash(chunks, &vec![0; bytes as usize]),
            };
            zeros = Some((bytes, hash));
            judge(chunk, hash);
        }
        next = end;
    }
    Ok(verified
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// Returns the runs of chunks that lie within `size` and hold data, in order and not adjacent.
fn chunks_with_data(file: &File, chunks: &Chunks, size: u64) -> io::Result<Vec<Range<u32>>> {
    // Only complete chunks can be verified.
    let whole = if size >= chunks.length() {
        chunks.count()
    } else {
        (size / chunks.chunk_bytes()) as u32
    };
    let mut runs: Vec<Range<u32>> = Vec::new();
    let mut at = 0;
    while let Some(start) = data_from(file, at)? {
        let end = hole_from(file, start)?.max(start + 1);
        let first = (start / chunks.chunk_bytes()).min(whole.into()) as u32;
        let last = end.div_ceil(chunks.chunk_bytes()).min(whole.into()) as u32;
        match runs.last_mut() {
            Some(run) if first <= run.end => run.end = run.end.max(last),
            _ if first < last => runs.push(first..last),
            _ => {}
        }
        at = end.max(u64::from(last) * chunks.chunk_bytes());
        if last == whole {
            break;
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn runs_of_data_are_found_between_holes() {
        let file = tempfile::tempfile().unwrap();
        let chunks = Chunks::of_length(100 * 128 * 1024 + 5);
        assert_eq!(chunks_with_data(&file, &chunks, 0).unwrap(), []);
        for chunk in [3u64, 4, 50, 100] {
            file.write_all_at(&[1; 5], chunk * 128 * 1024).unwrap();
        }
        let size = file.metadata().unwrap().len();
        let runs = chunks_with_data(&file, &chunks, size).unwrap();
        assert_eq!(runs, [3..5, 50..51, 100..101]);
        file.set_len(60 * 128 * 1024 + 1).unwrap();
        let runs = chunks_with_data(&file, &chunks, 60 * 128 * 1024 + 1).unwrap();
        assert_eq!(runs, [3..5, 50..51]);
    }
}
