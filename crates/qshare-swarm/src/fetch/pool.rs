//! The missing chunks that are not requested, and the rarity of each.

use qshare_content::{Bitmap, ChunkIndex};
use rand::Rng;
use rand::seq::SliceRandom;

/// Chunks compared in the search for the rarest. The search is exact for most contents. In larger
/// ones, a sample of this size contains a chunk that is about as rare, and the time stays bounded.
const COMPARED_MAX: usize = 1024;

const NOT_OPEN: u32 = u32::MAX;

/// The open chunks in random order, and for every chunk how many peers hold it.
#[derive(Debug)]
pub(super) struct Pool {
    open: Vec<ChunkIndex>,
    /// The position of each chunk in `open`, or [`NOT_OPEN`].
    positions: Vec<u32>,
    holders: Vec<u16>,
}

impl Pool {
    /// Creates a pool in which all chunks missing from `verified` are open and no peer holds any.
    pub(super) fn new(verified: &Bitmap, rng: &mut impl Rng) -> Pool {
        let mut open: Vec<ChunkIndex> = verified.missing().collect();
        open.shuffle(rng);
        let mut positions = vec![NOT_OPEN; verified.len() as usize];
        for (at, chunk) in open.iter().enumerate() {
            positions[chunk.get()] = at as u32;
        }
        Pool {
            open,
            positions,
            holders: vec![0; verified.len() as usize],
        }
    }

    /// Returns the number of open chunks.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn add_holder(&mut self, chunk: ChunkIndex) {
        if let Some(holders) = self.holders.get_mut(chunk.get()) {
            *holders = holders.saturating_add(1);
        }
    }

    pub(super) fn remove_holder(&mut self, chunk: ChunkIndex) {
        if let Some(holders) = self.holders.get_mut(chunk.get()) {
            *holders = holders.saturating_sub(1);
        }
    }

    /// Returns the number of peers that hold `chunk`.
    pub(super) fn holders(&self, chunk: ChunkIndex) -> u16 {
        self.holders.get(chunk.get()).copied().unwrap_or(0)
    }

    pub(super) fn is_open(&self, chunk: ChunkIndex) -> bool {
        self.positions
            .get(chunk.get())
            .is_some_and(|&at| at != NOT_OPEN)
    }

    /// Opens `chunk` (again).
    pub(super) fn open(&mut self, chunk: ChunkIndex) {
        if let Some(position) = self.positions.get_mut(chunk.get())
            && *position == NOT_OPEN
        {
            *position = self.open.len() as u32;
            self.open.push(chunk);
        }
    }

    /// Removes `chunk` from the open chunks; returns whether it was open.
    pub(super) fn take(&mut self, chunk: ChunkIndex) -> bool {
        let Some(position) = self.positions.get_mut(chunk.get()) else {
            return false;
        };
        let at = std::mem::replace(position, NOT_OPEN) as usize;
        if at >= self.open.len() {
            return false;
        }
        self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at) {
            self.positions[moved.get()] = at as u32;
        }
        true
    }

    /// Returns the first open chunk from `from` on, or else the first of all.
    pub(super) fn next_open(&self, from: ChunkIndex) -> Option<ChunkIndex> {
        if self.open.is_empty() {
            return None;
        }
        let (before, after) = self
            .positions
            .split_at(from.get().min(self.positions.len()));
        let first_open = |positions: &[u32]| positions.iter().position(|&at| at != NOT_OPEN);
        let found = first_open(after).map(|at| before.len() + at);
        let chunk = found.or_else(|| first_open(before))?;
        u32::try_from(chunk).ok().map(ChunkIndex)
    }

    /// Returns the rarest open chunk among those in `held`; ties are broken at random.
    pub(super) fn rarest(&self, held: &Bitmap, rng: &mut impl Rng) -> Option<ChunkIndex> {
        if self.open.is_empty() || held.is_empty() {
            return None;
        }
        let rarity = |chunk: &ChunkIndex| self.holders(*chunk);
        if (held.count() as usize).saturating_mul(16) < self.open.len() {
            // If a peer holds few of the open chunks, iterate over those that the peer holds.
            let open: Vec<ChunkIndex> = held.iter().filter(|&chunk| self.is_open(chunk)).collect();
            let least = open.iter().map(rarity).min()?;
            let equals: Vec<_> = open.iter().filter(|chunk| rarity(chunk) == least).collect();
            return equals
                .get(rng.random_range(0..equals.len()))
                .copied()
                .copied();
        }
        // The open chunks are in random order, so the first of equals is a random one.
        let (before, after) = self.open.split_at(rng.random_range(0..self.open.len()));
        after
            .iter()
            .chain(before)
            .filter(|&&chunk| held.contains(chunk))
            .take(COMPARED_MAX)
            .min_by_key(|&chunk| rarity(chunk))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    #[test]
    fn the_rarest_open_chunk_is_found_whether_a_peer_holds_much_or_little() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pool = Pool::new(&Bitmap::new(500), &mut rng);
        for chunk in 0..500 {
            pool.add_holder(ChunkIndex(chunk));
            if chunk != 77 {
                pool.add_holder(ChunkIndex(chunk));
            }
        }
        let mut little = Bitmap::new(500);
        little.insert(ChunkIndex(3));
        little.insert(ChunkIndex(77));
        for held in [&Bitmap::full(500), &little] {
            assert_eq!(pool.rarest(held, &mut rng), Some(ChunkIndex(77)));
        }
        assert!(pool.take(ChunkIndex(77)));
        assert!(!pool.take(ChunkIndex(77)));
        assert_eq!(pool.rarest(&little, &mut rng), Some(ChunkIndex(3)));
        pool.take(ChunkIndex(3));
        assert_eq!(pool.rarest(&little, &mut rng), None);
        pool.open(ChunkIndex(77));
        assert_eq!(pool.rarest(&little, &mut rng), Some(ChunkIndex(77)));
        assert_eq!(pool.len(), 499);
    }

    #[test]
    fn the_next_open_chunk_is_found_after_the_end_too() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pool = Pool::new(&Bitmap::new(10), &mut rng);
        assert_eq!(pool.next_open(ChunkIndex(4)), Some(ChunkIndex(4)));
        assert_eq!(pool.next_open(ChunkIndex(10)), Some(ChunkIndex(0)));
        for chunk in [0, 1, 4, 5, 6, 7, 8, 9] {
            pool.take(ChunkIndex(chunk));
        }
        assert_eq!(pool.next_open(ChunkIndex(3)), Some(ChunkIndex(3)));
        assert_eq!(pool.next_open(ChunkIndex(4)), Some(ChunkIndex(2)));
        pool.take(ChunkIndex(2));
        pool.take(ChunkIndex(3));
        assert_eq!(pool.next_open(ChunkIndex(0)), None);
    }

    #[test]
    fn ties_are_broken_by_chance() {
        let mut rng = SmallRng::seed_from_u64(1);
        let pool = Pool::new(&Bitmap::new(100), &mut rng);
        let picks: std::collections::BTreeSet<_> = (0..1000)
            .map(|_| pool.rarest(&Bitmap::full(100), &mut rng))
            .collect();
        assert!(picks.len() > 90, "{}", picks.len());
    }
}
