//! Writes around the page cache.
//!
//! A large file that is received fast costs most processor time in the kernel, which copies its
//! bytes into newly allocated pages and writes these back. A direct write takes the bytes from the
//! caller's buffer. The file is not in the page cache afterwards, so the next program that reads it
//! waits for the disk.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::disk::Disk;

/// Offset, length and address of a direct write are multiples of this number of bytes: the page
/// size and the largest common sector size.
const ALIGNMENT: usize = 4096;

/// The part file, opened for direct writes when they are first wanted.
#[derive(Default)]
pub(super) struct DirectFile {
    wanted: AtomicBool,
    /// None if the file system has no direct writes.
    file: OnceLock<Option<File>>,
    /// Whether the file system refused a direct write.
    refused: AtomicBool,
    written_bytes: AtomicU64,
}

impl DirectFile {
    /// Chooses whether direct writes are used.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Returns how many bytes were written directly.
    #[cfg(test)]
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Writes as many bytes from the beginning of `bytes` as can be written directly, and returns
    /// their number, which may be 0. `open` opens the file.
    pub(super) fn write(
        &self,
        disk: &dyn Disk,
        bytes: &[u8],
        offset: u64,
        open: impl FnOnce() -> Option<File>,
    ) -> io::Result<usize> {
        let whole = bytes.len() - bytes.len() % ALIGNMENT;
        let is_aligned = offset.is_multiple_of(ALIGNMENT as u64)
            && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT);
        if !self.wanted.load(Ordering::Relaxed)
            || self.refused.load(Ordering::Relaxed)
            || whole == 0
            || !is_aligned
        {
            return Ok(0);
        }
        let Some(file) = self.file.get_or_init(open) else {
            return Ok(0);
        };
        match disk.write_at(file, &bytes[..whole], offset) {
            Ok(()) => {
                self.written_bytes
                    .fetch_add(whole as u64, Ordering::Relaxed);
                Ok(whole)
            }
            // Other alignment than usual, or no direct writes after all.
            Err(error) if is_refusal(&error) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}
