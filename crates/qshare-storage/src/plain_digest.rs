//! Plain SHA-256 digests of files and of unfinished downloads.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use qshare_content::{ChunkIndex, Chunks, Hash, PlainDigest};

use crate::{DiskError, Part, ReadError};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Returns the plain SHA-256 of a file. Blocks.
///
/// # Errors
///
/// When the file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<Hash, DiskError> {
    let failed = |error| DiskError::new("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut digest = PlainDigest::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finish()),
            Ok(count) => digest.update(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The plain SHA-256 of a download, computed along its longest complete prefix while it runs, so
/// that little is left to do at its end.
#[derive(Debug, Default)]
pub struct PrefixDigest {
    digest: PlainDigest,
    next: u32,
}

impl PrefixDigest {
    /// Returns the first chunk that is not part of the digest yet.
    pub fn next(&self) -> ChunkIndex {
        ChunkIndex(self.next)
    }

    /// Adds the verified chunks that follow. Blocks.
    ///
    /// # Errors
    ///
    /// When the part file cannot be read.
    pub fn advance(&mut self, part: &Part) -> Result<(), ReadError> {
        let count = Chunks::of_length(part.info().length).count();
        while self.next < count && part.is_verified(self.next()) {
            self.digest.update(&part.read(self.next())?);
            self.next += 1;
        }
        Ok(())
    }

    /// Returns the digest of a complete part. Blocks.
    ///
    /// # Errors
    ///
    /// When the part is not complete, or cannot be read.
    pub fn finish(&mut self, part: &Part) -> Result<Hash, ReadError> {
        self.advance(part)?;
        match part.is_complete() {
            true => Ok(self.digest.clone().finish()),
            false => Err(ReadError::NotHere),
        }
    }
}
