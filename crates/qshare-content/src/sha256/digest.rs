//! SHA-256 of one message, by the crate sha2.

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

/// Bytes that one compression consumes (FIPS 180-4, section 1).
pub(super) const BLOCK_BYTES: usize = 64;

/// Returns the SHA-256 of one message.
pub(crate) fn digest(message: &[u8]) -> Digest {
    <sha2::Sha256 as sha2::Digest>::digest(message).into()
}
