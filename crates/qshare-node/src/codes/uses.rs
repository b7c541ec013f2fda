//! The count of uses that an offer has left, and the receivers that have everything.

use std::collections::HashSet;

/// Receipts that are awaited at once. Beyond it the report of an older receiver may be lost.
const RECEIPTS_MAX: usize = 10_000;

/// The successful exchanges of an offer, over all of its codes.
#[derive(Debug)]
pub(super) struct Uses {
    /// Exchanges that are left; None for any number.
    left: Option<u32>,
    /// Receivers that have not reported completion.
    receipts: HashSet<[u8; 32]>,
    /// Reports of completion that end the share; None if it has no end.
    completions_left: Option<u32>,
}

impl Uses {
    pub(super) fn new(uses: Option<u32>) -> Uses {
        Uses {
            left: uses,
            receipts: HashSet::new(),
            completions_left: uses,
        }
    }

    /// Whether another exchange may succeed.
    pub(super) fn may_use(&self) -> bool {
        self.left != Some(0)
    }

    /// Counts an exchange. Returns the exchanges that are left.
    pub(super) fn count(&mut self, receipt: [u8; 32]) -> Option<u32> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.receipts.len() < RECEIPTS_MAX {
            self.receipts.insert(receipt);
        }
        self.left
    }

    /// Records a report of completion. Returns None for an unknown receipt, else how many reports
    /// are left until the share ends.
    pub(super) fn complete(&mut self, receipt: &[u8; 32]) -> Option<Option<u32>> {
        if !self.receipts.remove(receipt) {
            return None;
        }
        self.completions_left = self.completions_left.map(|left| left.saturating_sub(1));
        Some(self.completions_left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_ends_when_as_many_receivers_are_complete_as_may_use_it() {
        let mut uses = Uses::new(Some(2));
        assert_eq!(uses.count([1; 32]), Some(1));
        assert!(uses.may_use());
        assert_eq!(uses.count([2; 32]), Some(0));
        assert!(!uses.may_use());
        assert_eq!(uses.complete(&[3; 32]), None);
        assert_eq!(uses.complete(&[2; 32]), Some(Some(1)));
        assert_eq!(uses.complete(&[2; 32]), None);
        assert_eq!(uses.complete(&[1; 32]), Some(Some(0)));
    }

    #[test]
    fn without_a_limit_there_is_no_end() {
        let mut uses = Uses::new(None);
        assert_eq!(uses.count([1; 32]), None);
        assert!(uses.may_use());
        assert_eq!(uses.complete(&[1; 32]), Some(None));
    }
}
