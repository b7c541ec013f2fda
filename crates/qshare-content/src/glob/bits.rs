//! Sets of positions of a glob, as bits of machine words.

use std::ops::{BitAnd, BitOr, BitOrAssign};

/// Longest glob in bytes: a stranger's glob is compiled by the tracker. Each character needs at
/// most one state, so that 256 states suffice.
pub const GLOB_MAX_BYTES: usize = 256;

/// Words of the state set of the longest glob.
pub(super) const WORDS_MAX: usize = GLOB_MAX_BYTES / 64;

/// A set of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits<const W: usize>([u64; W]);

impl<const W: usize> Bits<W> {
    pub(super) const EMPTY: Bits<W> = Bits([0; W]);

    pub(super) fn one(position: usize) -> Bits<W> {
        let mut bits = Bits::EMPTY;
        bits.insert(position);
        bits
    }

    pub(super) fn insert(&mut self, position: usize) {
        self.0[position / 64] |= 1 << (position % 64);
    }

    pub(super) fn contains(&self, position: usize) -> bool {
        self.0[position / 64] & (1 << (position % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The positions in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, word)| {
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|&word| word != 0)
                .map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }

    /// Each position plus `by`, which is less than 64. What is shifted out is dropped.
    pub(super) fn shifted(self, by: u32) -> Bits<W> {
        if by == 0 {
            return self;
        }
        let mut shifted = [0; W];
        let mut carry = 0;
        for (to, from) in shifted.iter_mut().zip(self.0) {
            *to = from << by | carry;
            carry = from >> (64 - by);
        }
        Bits(shifted)
    }

    /// The same set with another number of words, which must suffice.
    pub(super) fn resized<const V: usize>(&self) -> Bits<V> {
        let mut words = [0; V];
        for (to, from) in words.iter_mut().zip(self.0) {
            *to = from;
        }
        Bits(words)
    }
}

impl<const W: usize> BitAnd for Bits<W> {
    type Output = Bits<W>;

    fn bitand(mut self, other: Bits<W>) -> Bits<W> {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        self
    }
}

impl<const W: usize> BitOr for Bits<W> {
    type Output = Bits<W>;

    fn bitor(mut self, other: Bits<W>) -> Bits<W> {
        self |= other;
        self
    }
}

impl<const W: usize> BitOrAssign for Bits<W> {
    fn bitor_assign(&mut self, other: Bits<W>) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
    }
}
