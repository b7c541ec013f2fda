//! A kernel: an implementation of SHA-256 that computes several digests in parallel.

use super::digest::{BLOCK_BYTES, Digest};

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
