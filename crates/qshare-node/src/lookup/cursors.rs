//! Follows the pages of a listing, and detects cursors that repeat.

use std::collections::HashSet;

/// The cursors of a listing. A page may be empty as long as its cursor is new. A repeated cursor
/// would repeat the listing endlessly.
#[derive(Default)]
pub(super) struct Cursors {
    seen: HashSet<Vec<u8>>,
}

impl Cursors {
    /// Records the cursor of the next page. Returns false if it was seen before.
    pub(super) fn advance(&mut self, cursor: &[u8]) -> bool {
        self.seen.insert(cursor.to_vec())
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
}
