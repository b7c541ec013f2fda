//! SHA-256 of many messages of one length, several at a time.
//!
//! The steps of one SHA-256 depend on each other, so a core that computes a single digest is
//! mostly idle. The leaves of a hash tree are independent, and several in parallel use the idle
//! time. [`digest_each`] computes all of them with the kernel that [`choice`] has selected. The
//! crate sha2 is the fallback, and the reference that every kernel is compared with.

mod available;
mod choice;
mod digest;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use self::digest::{Digest, digest};

use self::choice::Choice;
use self::digest::BLOCK_BYTES;

/// Computes the SHA-256 of each message in `messages`, which holds messages of `message_bytes`
/// bytes back to back, and writes the digests to `digests` in the same order.
///
/// Messages of a multiple of 64 bytes are computed in parallel, others one after the other.
///
/// # Panics
///
/// If the length of `messages` is not `digests.len()` times `message_bytes`.
pub(crate) fn digest_each(messages: &[u8], message_bytes: usize, digests: &mut [Digest]) {
    assert_eq!(messages.len(), message_bytes * digests.len());
    let side_by_side = digests.len() > 1 && message_bytes.is_multiple_of(BLOCK_BYTES);
    if side_by_side && message_bytes > 0 {
        Choice::of_this_processor().digest_each(messages, message_bytes, digests);
        return;
    }
    for (index, out) in digests.iter_mut().enumerate() {
        *out = digest(&messages[index * message_bytes..][..message_bytes]);
    }
}

/// Returns the name of the kernel that [`digest_each`] uses for many messages.
pub(crate) fn fastest_kernel() -> &'static str {
    Choice::of_this_processor().fastest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_length_count_and_alignment_gives_the_digests_of_sha2(
            bytes in prop::collection::vec(any::<u8>(), 40 * 200 + 64),
            message_bytes in prop_oneof![0..200usize, (0..4usize).prop_map(|blocks| blocks * 64)],
            count in 0..40usize,
            offset in 0..64usize,
        ) {
            let messages = &bytes[offset..][..message_bytes * count];
            let mut digests = vec![[0; 32]; count];
            digest_each(messages, message_bytes, &mut digests);
            for (index, found) in digests.iter().enumerate() {
                prop_assert_eq!(*found, digest(&messages[index * message_bytes..][..message_bytes]));
            }
        }
    }
}
