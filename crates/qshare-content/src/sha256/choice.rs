//! The selection of the fastest kernel, by a measurement at first use.
//!
//! The feature flags of a processor do not tell which kernel is fastest: wide vectors are faster
//! than the SHA instructions on some processors and slower on others, and a virtual machine may
//! hide or emulate either. So every kernel is timed on the same bytes, which takes about 1 ms.
//! This is the only place of the crate that reads a clock. The measurement affects speed only,
//! never a digest.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::available::available;
use super::digest::{Digest, digest};
use super::kernel::Kernel;

/// Bytes of a message of the measurement. Addresses this far apart fall into one set of the
/// first-level cache, as those of leaves do, so kernels with many lanes get no advantage.
const TRIAL_MESSAGE_BYTES: usize = 4096;

/// Runs of the measurement. The fastest counts, since an interrupted run is too slow.
const TRIAL_RUNS: usize = 5;

/// The kernels of a processor, each with the measured time of a group.
pub(super) struct Choice {
    ranked: Vec<Ranked>,
}

struct Ranked {
    kernel: Kernel,
    /// Time of a group, full or not.
    group: Duration,
}

impl Choice {
    /// Returns the choice for the processor that this process runs on.
    pub(super) fn of_this_processor() -> &'static Choice {
        static CHOICE: OnceLock<Choice> = OnceLock::new();
        CHOICE.get_or_init(|| Choice::measured(available()))
    }

    /// Times `kernels`. The first is always kept; another one is dropped if it computes a wrong
    /// digest.
    fn measured(kernels: Vec<Kernel>) -> Choice {
        let most_lanes = kernels.iter().map(Kernel::lanes).max().unwrap_or(1);
        let messages: Vec<u8> = (0..most_lanes * TRIAL_MESSAGE_BYTES)
            .map(|at| ((at * at) >> 7) as u8)
            .collect();
        let expected: Vec<Digest> = messages.chunks(TRIAL_MESSAGE_BYTES).map(digest).collect();
        let ranked = kernels
            .into_iter()
            .enumerate()
            .filter_map(|(index, kernel)| {
                let mut digests = vec![[0; 32]; kernel.lanes()];
                let bytes = &messages[..kernel.lanes() * TRIAL_MESSAGE_BYTES];
                let group = (0..TRIAL_RUNS)
                    .map(|_| {
                        let start = Instant::now();
                        kernel.digest_group(bytes, TRIAL_MESSAGE_BYTES, &mut digests);
                        start.elapsed()
                    })
                    .min()?;
                let right = digests == expected[..kernel.lanes()];
                (index == 0 || right).then_some(Ranked { kernel, group })
            })
            .collect();
        Choice { ranked }
    }

    /// Returns the kernel with the least time per message when `remaining` messages are left.
    fn kernel_for(&self, remaining: usize) -> Option<&Kernel> {
        let useful = |ranked: &Ranked| ranked.kernel.lanes().min(remaining) as u128;
        self.ranked
            .iter()
            .min_by(|a, b| {
                let a_scaled = a.group.as_nanos() * useful(b);
                let b_scaled = b.group.as_nanos() * useful(a);
                a_scaled.cmp(&b_scaled)
            })
            .map(|ranked| &ranked.kernel)
    }

    /// Returns the name of the kernel for many messages.
    pub(super) fn fastest(&self) -> &'static str {
        self.kernel_for(usize::MAX)
            .map_or("sha2", |kernel| kernel.name)
    }

    /// See [`super::digest_each`]; `message_bytes` is a multiple of 64 and not 0.
    pub(super) fn digest_each(
        &self,
        mut messages: &[u8],
        message_bytes: usize,
        mut digests: &mut [Digest],
    ) {
        while let Some(kernel) = self
            .kernel_for(digests.len())
            .filter(|_| !digests.is_empty())
        {
            let count = kernel.lanes().min(digests.len());
            let (group, later) = messages.split_at(count * message_bytes);
            let (out, rest) = digests.split_at_mut(count);
            kernel.digest_group(group, message_bytes, out);
            (messages, digests) = (later, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(_: &[u8], _: usize, digests: &mut [Digest]) {
        digests.fill([7; 32]);
    }

    fn kernel(name: &'static str, lanes: usize) -> Kernel {
        // SAFETY: `wrong` is safe code.
        unsafe { Kernel::new(name, lanes, wrong) }
    }

    fn choice(kernels: &[(&'static str, usize, u64)]) -> Choice {
        let ranked = kernels
            .iter()
            .map(|&(name, lanes, group_micros)| Ranked {
                kernel: kernel(name, lanes),
                group: Duration::from_micros(group_micros),
            })
            .collect();
        Choice { ranked }
    }

    #[test]
    fn a_wide_kernel_gets_only_groups_that_fill_it_enough() {
        let choice = choice(&[("single", 1, 12), ("pair", 2, 17), ("sixteen", 16, 90)]);
        let name = |remaining| choice.kernel_for(remaining).unwrap().name;
        assert_eq!(name(1), "single");
        assert_eq!(name(2), "pair");
        assert_eq!(name(8), "pair");
        assert_eq!(name(12), "sixteen");
        assert_eq!(name(400), "sixteen");
    }

    #[test]
    fn a_kernel_slower_than_single_messages_is_never_chosen() {
        let choice = choice(&[("single", 1, 10), ("eight", 8, 100)]);
        for remaining in 1..40 {
            assert_eq!(choice.kernel_for(remaining).unwrap().name, "single");
        }
    }

    #[test]
    fn a_kernel_with_wrong_digests_is_dropped_whatever_its_speed() {
        let mut kernels = available();
        kernels.push(kernel("wrong", 16));
        let choice = Choice::measured(kernels);
        assert!(
            choice
                .ranked
                .iter()
                .all(|ranked| ranked.kernel.name != "wrong")
        );
        assert_eq!(choice.ranked.len(), available().len());
    }
}
