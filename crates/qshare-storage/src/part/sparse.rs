//! Sparse writes: a disk image that consists mostly of zeros occupies little space.

use std::fs::File;
use std::io;

use crate::disk::Disk;
use crate::system::data_from;

/// Zeros are left out in whole blocks of this many bytes, a multiple of the block size of common
/// file systems.
const BLOCK_BYTES: u64 = 16 * 1024;

/// Writes `bytes` at `offset` by calls of `write`, except for zeros where the file has a hole. The
/// file is at least as long afterwards as if all had been written. One writer at a time.
pub(super) fn write_sparse(
    disk: &dyn Disk,
    file: &File,
    bytes: &[u8],
    offset: u64,
    write: impl Fn(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let at = offset + done as u64;
        let (zeros, length) = run(rest, at);
        let end = at + length as u64;
        if !zeros || data_from(file, at)?.is_some_and(|data| data < end) {
            write(&rest[..length], at)?;
        }
        done += length;
    }
    let end = offset + bytes.len() as u64;
    if file.metadata()?.len() < end {
        disk.set_len(file, end)?;
    }
    Ok(())
}

/// Returns whether the first block of `bytes`, which lie at `offset` in a file, is all zeros, and
/// the length of the blocks at the beginning of `bytes` for which the same holds.
fn run(bytes: &[u8], offset: u64) -> (bool, usize) {
    let mut zeros = None;
    let mut length = 0;
    while length < bytes.len() {
        let at = offset + length as u64;
        let block = (BLOCK_BYTES - at % BLOCK_BYTES) as usize;
        let block = &bytes[length..bytes.len().min(length + block)];
        let is_zero = block.iter().all(|&byte| byte == 0);
        if *zeros.get_or_insert(is_zero) != is_zero {
            break;
        }
        length += block.len();
    }
    (zeros.unwrap_or(false), length)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::RealDisk;
    use crate::system::read_exact_at;

    #[test]
    fn holes_stay_holes_and_old_bytes_are_overwritten_with_zeros() {
        let file = tempfile::tempfile().unwrap();
        let length = 8 << 20;
        let mut bytes = vec![0; length];
        bytes[5_000_000..5_000_100].fill(7);
        let write_run = |bytes: &[u8], offset| RealDisk.write_at(&file, bytes, offset);
        let write = |bytes: &[u8], offset| {
            write_sparse(&RealDisk, &file, bytes, offset, write_run).unwrap();
        };
        let read = || {
            let mut read = vec![1; length];
            read_exact_at(&file, &mut read, 0).unwrap();
            read
        };
        // In pieces that do not keep to blocks.
        for (at, piece) in bytes.chunks(100_000).enumerate() {
            write(piece, at as u64 * 100_000);
        }
        assert_eq!(file.metadata().unwrap().len(), length as u64);
        assert_eq!(read(), bytes);
        let allocated = file.metadata().unwrap().blocks() * 512;
        assert!(allocated <= 256 * 1024, "{allocated} bytes allocated");
        // Wrong bytes that an earlier peer sent.
        write(&[9; 300_000], 1_000_000);
        write(&bytes[1_000_000..1_300_000], 1_000_000);
        assert_eq!(read(), bytes);
    }

    #[test]
    fn runs_end_where_zeros_begin_and_end() {
        let block = BLOCK_BYTES as usize;
        let mut bytes = vec![0; 4 * block];
        bytes[block + 3] = 1;
        assert_eq!(run(&bytes, 0), (true, block));
        assert_eq!(run(&bytes[block..], BLOCK_BYTES), (false, block));
        assert_eq!(run(&bytes[2 * block..], 0), (true, 2 * block));
        assert_eq!(run(&bytes[..10], 5), (true, 10));
        assert_eq!(run(&[], 5), (false, 0));
    }
}
