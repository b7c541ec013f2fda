//! The plain SHA-256 of a file, as `sha256sum` prints it. A hash tree does not contain it, and
//! cannot prove it: it has to be computed over all bytes in order.

use sha2::{Digest, Sha256};

use crate::Hash;

/// Computes a plain SHA-256 piece by piece.
#[derive(Clone, Debug, Default)]
pub struct PlainDigest(Sha256);

impl PlainDigest {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of all bytes.
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }

    /// Returns the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        let mut digest = PlainDigest::default();
        digest.update(bytes);
        digest.finish()
    }
}
