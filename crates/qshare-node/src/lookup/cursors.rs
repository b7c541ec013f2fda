//! Follows the pages of a listing, and detects cursors that repeat.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Most pages of one listing. A million names are some 1,000 pages, and a large registry adds a few
/// hundred empty ones; a tracker that invents cursors sends many thousands a second.
const PAGES_MAX: usize = 16_384;

/// The cursors of a listing. A page may be empty as long as its cursor is new. A repeated cursor
/// would repeat the listing endlessly.
#[derive(Default)]
pub(super) struct Cursors {
    /// Fingerprints of 8 bytes: cursors of 2 KiB each would let a tracker fill the memory.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Cursors {
    /// Records the cursor of the next page. Returns false if it was seen before, or if the listing
    /// has [`PAGES_MAX`] pages already.
    pub(super) fn advance(&mut self, cursor: &[u8]) -> bool {
        self.seen.len() < PAGES_MAX && self.seen.insert(self.hasher.hash_one(cursor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_comes_again_ends_a_listing() {
        let mut cursors = Cursors::default();
        assert!(cursors.advance(b"a") && cursors.advance(b"b"));
        assert!(!cursors.advance(b"a"));
    }

    #[test]
    fn new_cursors_without_end_end_a_listing() {
        let mut cursors = Cursors::default();
        let pages = (0_u32..).take_while(|page| cursors.advance(&page.to_le_bytes()));
        assert_eq!(pages.count(), PAGES_MAX);
    }
}
