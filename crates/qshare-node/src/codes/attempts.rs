//! Counts the guesses at a code's words.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Failed confirmations and open runs together.
pub(super) const ATTEMPTS_MAX: usize = 3;
/// Time for a run from its beginning to its confirmation. It exceeds the 10 s that a tracker allows
/// for each step.
pub(super) const RUN_DEADLINE: Duration = Duration::from_secs(25);

/// The guesses at one code: failed confirmations, and runs that may become one.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: usize,
    open: BTreeMap<u64, Instant>,
    last: u64,
}

/// A run cannot begin: as many are open as guesses are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Attempts {
    /// Begins a run; returns its number. Runs that are past their deadline end.
    pub(super) fn begin(&mut self, now: Instant) -> Result<u64, TooMany> {
        self.open.retain(|_, deadline| now < *deadline);
        if self.failed + self.open.len() >= ATTEMPTS_MAX {
            return Err(TooMany);
        }
        self.last += 1;
        self.open.insert(self.last, now + RUN_DEADLINE);
        Ok(self.last)
    }

    /// Ends a run. Returns false if it had ended before.
    pub(super) fn end(&mut self, run: u64) -> bool {
        self.open.remove(&run).is_some()
    }

    /// Counts a failed confirmation of a run that has ended. Returns the guesses that are left.
    pub(super) fn fail(&mut self) -> usize {
        self.failed += 1;
        ATTEMPTS_MAX.saturating_sub(self.failed)
    }

    /// Whether a run is open.
    pub(super) fn is_open(&self, run: u64) -> bool {
        self.open.contains_key(&run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_open_runs_are_counted_together() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let runs: Vec<u64> = (0..3).map(|_| attempts.begin(now).unwrap()).collect();
        assert_eq!(attempts.begin(now), Err(TooMany));
        assert!(attempts.end(runs[0]));
        assert_eq!(attempts.fail(), 2);
        assert_eq!(attempts.begin(now), Err(TooMany));
        assert!(attempts.end(runs[1]));
        let run = attempts.begin(now).unwrap();
        assert!(attempts.is_open(run) && !attempts.is_open(runs[1]));
    }

    #[test]
    fn a_run_that_ends_without_a_confirmation_is_no_guess() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..100 {
            let run = attempts.begin(now).unwrap();
            assert!(attempts.end(run));
            assert!(!attempts.end(run));
        }
        assert!(attempts.begin(now).is_ok());
    }

    #[test]
    fn an_open_run_is_forgotten_after_its_deadline() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        let first = attempts.begin(now).unwrap();
        attempts.begin(now).unwrap();
        attempts.begin(now).unwrap();
        let late = now + RUN_DEADLINE;
        assert!(attempts.begin(late).is_ok());
        assert!(!attempts.is_open(first));
    }

    #[test]
    fn after_three_failures_no_run_begins() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        for left in [2, 1, 0] {
            let run = attempts.begin(now).unwrap();
            assert!(attempts.end(run));
            assert_eq!(attempts.fail(), left);
            now += RUN_DEADLINE;
        }
        assert_eq!(attempts.begin(now), Err(TooMany));
    }
}
