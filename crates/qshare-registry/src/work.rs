//! What lookups cost, in steps.
//!
//! A registry reads no clock, so it counts its work: one step is some 4 ns on a machine of 2020
//! (measured with `examples/fill.rs`; the figures below are rounded up). The tracker charges its
//! clients by it, and a lookup that has used up its steps ends with a cursor.

/// Passing over a name in the order of names: a cache miss or two.
pub(crate) const NAME_STEPS: u64 = 25;
/// Finding a place in an index: some twenty comparisons.
pub(crate) const SEEK_STEPS: u64 = 300;
/// Describing a match.
pub(crate) const MATCH_STEPS: u64 = 50;
/// Drawing a holder for a sample, whether it is given out or not.
pub(crate) const DRAWN_STEPS: u64 = 20;
/// Describing a holder in a match, and finding what it states about the file.
pub(crate) const HOLDER_STEPS: u64 = 40;

/// The steps of one lookup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    steps: u64,
    max: u64,
}

impl Work {
    pub(crate) fn new(max: u64) -> Work {
        Work { steps: 0, max }
    }

    pub(crate) fn steps(self) -> u64 {
        self.steps
    }

    pub(crate) fn add(&mut self, steps: u64) {
        self.steps += steps;
    }

    /// For callees that count by themselves.
    pub(crate) fn counter(&mut self) -> &mut u64 {
        &mut self.steps
    }

    pub(crate) fn is_used_up(self) -> bool {
        self.steps >= self.max
    }
}
