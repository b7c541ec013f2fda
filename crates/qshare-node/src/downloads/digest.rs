//! Checks the plain SHA-256 that a request requires.

use std::path::Path;

use qshare_content::{Hash, PlainDigest};
use qshare_storage::{SingleChunk, sha256_of_file};

use super::request::DownloadRequest;
use crate::error::DownloadError;
use crate::runtime::blocking;

impl DownloadRequest {
    /// Fails if the digest is not the required one.
    pub(super) fn check_digest(&self, found: Hash) -> Result<(), DownloadError> {
        match self.sha256 {
            Some(wanted) if wanted != found => Err(DownloadError::OtherDigest {
                name: self.name.clone(),
                wanted,
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Checks a file that was there before. It stays, whatever its digest.
    pub(super) async fn check_existing(&self, path: &Path) -> Result<(), DownloadError> {
        if self.sha256.is_none() {
            return Ok(());
        }
        let path = path.to_owned();
        self.check_digest(blocking(move || sha256_of_file(&path)).await?)
    }

    /// Checks the bytes of a content of one chunk, at most 128 KiB.
    pub(super) fn check_single(&self, file: &SingleChunk) -> Result<(), DownloadError> {
        match self.sha256 {
            Some(_) => self.check_digest(PlainDigest::of(file.bytes())),
            None => Ok(()),
        }
    }
}
