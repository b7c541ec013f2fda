//! SHA-256 of many messages of one length at once, as fast as this processor can.
//!
//! One SHA-256 is a chain of dependent steps, so a core that computes a single one mostly waits.
//! The leaves of a hash tree do not depend on each other: side by side they fill the waiting.
//! [`digest_each`] takes them all; which instructions do the work is [`choice`]'s business, the
//! crate sha2 being both the fallback and what every other way is compared with.

mod choice;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod x86;

use self::choice::Choice;

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

/// Bytes that one compression takes (FIPS 180-4, section 1).
const BLOCK_BYTES: usize = 64;

/// SHA-256 of one message.
pub(crate) fn digest(message: &[u8]) -> Digest {
    <sha2::Sha256 as sha2::Digest>::digest(message).into()
}

/// SHA-256 of each of the messages of `message_bytes` bytes that `messages` holds one after the
/// other, into `digests` in the same order.
///
/// Messages of a multiple of 64 bytes go side by side, others one after the other.
///
/// # Panics
///
/// If `messages` is not as long as `digests` asks for.
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

/// What [`digest_each`] found to be the fastest here when there are many messages, in words.
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
