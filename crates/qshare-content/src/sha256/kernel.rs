//! A kernel: an implementation of SHA-256 that computes several digests in parallel.

use super::{BLOCK_BYTES, Digest, digest};

/// The function of a kernel. `messages` holds up to `lanes` messages of `message_bytes` bytes, a
/// multiple of 64, back to back; there are as many digests as messages, at least one.
pub(super) type Run = unsafe fn(messages: &[u8], message_bytes: usize, digests: &mut [Digest]);

/// An implementation that computes up to [`Kernel::lanes`] digests in about the time of one.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Instruction set and number of lanes, for people.
    pub(super) name: &'static str,
    lanes: usize,
    run: Run,
}

impl Kernel {
    /// Creates a kernel of `lanes` lanes.
    ///
    /// # Safety
    ///
    /// The processor has all instructions that `run` uses, and `run` is safe otherwise.
    pub(super) const unsafe fn new(name: &'static str, lanes: usize, run: Run) -> Kernel {
        Kernel { name, lanes, run }
    }

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

    /// Returns the number of messages in a group. A smaller group takes as long.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Computes the digests of `digests.len()` messages of `message_bytes` bytes each.
    ///
    /// # Panics
    ///
    /// If there are no messages or more than lanes, if `message_bytes` is 0 or not a multiple of
    /// 64, or if the length of `messages` is not that of all messages.
    pub(super) fn digest_group(
        &self,
        messages: &[u8],
        message_bytes: usize,
        digests: &mut [Digest],
    ) {
        assert!((1..=self.lanes).contains(&digests.len()));
        assert!(message_bytes > 0 && message_bytes.is_multiple_of(BLOCK_BYTES));
        assert_eq!(messages.len(), message_bytes * digests.len());
        // SAFETY: `Kernel::new` requires that the processor can run it.
        unsafe { (self.run)(messages, message_bytes, digests) }
    }
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
            for kernel in Kernel::available() {
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
        for kernel in Kernel::available() {
            let messages = &bytes[..kernel.lanes() * 16384];
            let mut digests = vec![[0; 32]; kernel.lanes()];
            kernel.digest_group(messages, 16384, &mut digests);
            for (message, found) in messages.chunks(16384).zip(digests) {
                assert_eq!(found, digest(message), "{}", kernel.name);
            }
        }
    }
}
