//! The kernels that this processor can run.

use super::digest::{Digest, digest};
use super::kernel::Kernel;

/// Returns all kernels that this processor can run. The first is sha2 with one lane.
pub(super) fn available() -> Vec<Kernel> {
    // SAFETY: `one_by_one` is safe code and checks the processor's features itself.
    let sha2 = unsafe { Kernel::new("sha2", 1, one_by_one) };
    #[cfg(target_arch = "x86_64")]
    let others = super::x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    let others = [];
    std::iter::once(sha2).chain(others).collect()
}

fn one_by_one(messages: &[u8], message_bytes: usize, digests: &mut [Digest]) {
    for (message, out) in messages.chunks_exact(message_bytes).zip(digests) {
        *out = digest(message);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_kernel_of_this_processor_agrees_with_sha2(
            bytes in prop::collection::vec(any::<u8>(), 16 * 64 * 5 + 64),
            blocks in 1..=5usize,
            count in 1..=16usize,
            offset in 0..64usize,
        ) {
            for kernel in available() {
                let count = count.min(kernel.lanes());
                let messages = &bytes[offset..][..count * blocks * 64];
                let mut digests = vec![[0; 32]; count];
                kernel.digest_group(messages, blocks * 64, &mut digests);
                for (message, found) in messages.chunks(blocks * 64).zip(digests) {
                    prop_assert_eq!(found, digest(message), "{}", kernel.name);
                }
            }
        }
    }

    #[test]
    fn every_kernel_of_this_processor_agrees_with_sha2_on_whole_leaves() {
        let bytes: Vec<u8> = (0..16 * 16384u32)
            .map(|at| (at.wrapping_mul(at) >> 9) as u8)
            .collect();
        for kernel in available() {
            let messages = &bytes[..kernel.lanes() * 16384];
            let mut digests = vec![[0; 32]; kernel.lanes()];
            kernel.digest_group(messages, 16384, &mut digests);
            for (message, found) in messages.chunks(16384).zip(digests) {
                assert_eq!(found, digest(message), "{}", kernel.name);
            }
        }
    }
}
