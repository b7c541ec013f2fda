//! The bounds of one read.

/// Largest read in bytes: the largest chunk.
const READ_MAX_BYTES: usize = 4 << 20;

/// Returns whether `bytes` can be filled from `offset` on, in a content of `length_bytes`.
pub(crate) fn is_readable(offset: u64, bytes: &[u8], length_bytes: u64) -> bool {
    let end = offset.checked_add(bytes.len() as u64);
    bytes.len() <= READ_MAX_BYTES && end.is_some_and(|end| end <= length_bytes)
}
