//! A fixed-length set of chunks, with one layout in memory, on the wire and on disk.

use crate::ChunkIndex;

/// A set of chunks of one content.
///
/// Bytes (wire and disk): chunk `i` is bit `i % 8` (least significant first) of byte `i / 8`;
/// the bits beyond the last chunk are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitmap {
    /// Returns the empty set over `len` chunks.
    pub fn new(len: u32) -> Bitmap {
        Bitmap {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            ones: 0,
        }
    }

    /// Returns the full set over `len` chunks.
    pub fn full(len: u32) -> Bitmap {
        let mut words = vec![u64::MAX; (len as usize).div_ceil(64)];
        if let (Some(last), tail @ 1..) = (words.last_mut(), len % 64) {
            *last = (1 << tail) - 1;
        }
        Bitmap {
            words,
            len,
            ones: len,
        }
    }

    /// Returns the number of chunks of the content, in the set or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Returns whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Returns whether all chunks are in the set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Returns the number of chunks in the set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Returns the number of chunks that are in both sets.
    pub fn count_common(&self, other: &Bitmap) -> u32 {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(one, other)| (one & other).count_ones()).sum()
    }

    /// Returns whether `chunk` is in the set; false for an index beyond the last chunk.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.len && self.words[chunk.get() / 64] >> (chunk.0 % 64) & 1 == 1
    }

    /// Adds `chunk` and returns whether it is new. An index beyond the last chunk is ignored.
    pub fn insert(&mut self, chunk: ChunkIndex) -> bool {
        let new = chunk.0 < self.len && !self.contains(chunk);
        if new {
            self.words[chunk.get() / 64] |= 1 << (chunk.0 % 64);
            self.ones += 1;
        }
        new
    }

    /// Removes `chunk` and returns whether it was in the set.
    pub fn remove(&mut self, chunk: ChunkIndex) -> bool {
        let was = self.contains(chunk);
        if was {
            self.words[chunk.get() / 64] &= !(1 << (chunk.0 % 64));
            self.ones -= 1;
        }
        was
    }

    /// Returns the chunks in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        let words = self.words.iter().copied();
        words.enumerate().flat_map(|(at, word)| bits(at, word))
    }

    /// The chunks in this set and not in the other, in order. Sets are compared by words of 64
    /// chunks, so that large sets that hardly differ are compared quickly.
    pub fn difference<'a>(&'a self, other: &'a Bitmap) -> impl Iterator<Item = ChunkIndex> + 'a {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        let words = self.words.iter().zip(others);
        words
            .enumerate()
            .flat_map(|(at, (&word, other))| bits(at, word & !other))
    }

    /// Returns the chunks not in the set, in ascending order.
    pub fn missing(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        (0..self.len)
            .map(ChunkIndex)
            .filter(|&chunk| !self.contains(chunk))
    }

    /// Encodes the set in `len / 8` bytes, rounded up.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        bytes.truncate((self.len as usize).div_ceil(8));
        bytes
    }

    /// Decodes [`to_bytes`](Self::to_bytes). Returns None if the size is wrong or a bit beyond the
    /// last chunk is set.
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Bitmap> {
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let mut words = vec![0u64; (len as usize).div_ceil(64)];
        for (at, &byte) in bytes.iter().enumerate() {
            words[at / 8] |= u64::from(byte) << (at % 8 * 8);
        }
        if let (Some(last), tail @ 1..) = (words.last(), len % 64)
            && last >> tail != 0
        {
            return None;
        }
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Some(Bitmap { words, len, ones })
    }
}

/// The chunks of the word at this position, in order.
fn bits(at: usize, word: u64) -> impl Iterator<Item = ChunkIndex> {
    let mut rest = word;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            ChunkIndex(at as u32 * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_round_trip(len in 0u32..300, seed in proptest::collection::vec(any::<u32>(), 0..50)) {
            let mut set = Bitmap::new(len);
            for chunk in seed {
                set.insert(ChunkIndex(chunk % (len + 1)));
            }
            prop_assert_eq!(set.iter().count() as u32, set.count());
            prop_assert_eq!(set.missing().count() as u32, len - set.count());
            prop_assert_eq!(Bitmap::from_bytes(len, &set.to_bytes()), Some(set));
        }
    }

    proptest! {
        #[test]
        fn a_difference_has_what_one_set_has_and_the_other_has_not(
            len in 1u32..300,
            one in proptest::collection::vec(any::<u32>(), 0..80),
            other in proptest::collection::vec(any::<u32>(), 0..80),
        ) {
            let set = |chunks: Vec<u32>| {
                let mut set = Bitmap::new(len);
                chunks.iter().for_each(|chunk| _ = set.insert(ChunkIndex(chunk % len)));
                set
            };
            let (one, other) = (set(one), set(other));
            let expected: Vec<_> = one.iter().filter(|&chunk| !other.contains(chunk)).collect();
            prop_assert_eq!(one.difference(&other).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn full_set_is_full_at_word_boundaries() {
        for len in [0, 1, 63, 64, 65, 128] {
            let full = Bitmap::full(len);
            assert!(full.is_full());
            assert_eq!(full.iter().count() as u32, len);
            assert_eq!(Bitmap::from_bytes(len, &full.to_bytes()), Some(full));
        }
    }

    #[test]
    fn stray_bits_and_wrong_sizes_are_refused() {
        assert_eq!(Bitmap::from_bytes(3, &[0b1000]), None);
        assert_eq!(Bitmap::from_bytes(3, &[]), None);
        assert_eq!(Bitmap::from_bytes(3, &[0, 0]), None);
    }
}
