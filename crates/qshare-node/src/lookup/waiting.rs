//! Decides how long a lookup waits for trackers and neighbours. Pure: the caller passes the time
//! and the events.

use std::time::Duration;

use tokio::time::Instant;

/// After the first answer, other trackers get this long to add to it.
const OTHER_TRACKERS: Duration = Duration::from_millis(500);

/// The state of one lookup.
#[derive(Debug)]
pub(super) struct Waiting {
    trackers_left: usize,
    /// Whether all trackers are on this machine, where they answer at once.
    trackers_are_local: bool,
    tracker_answered: bool,
    tracker_found: bool,
    tracker_refused: bool,
    neighbours_done: bool,
    /// The deadline that the first answer sets. Later answers are not waited for.
    deadline: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(trackers: usize, trackers_are_local: bool) -> Waiting {
        Waiting {
            trackers_left: trackers,
            trackers_are_local,
            tracker_answered: false,
            tracker_found: false,
            tracker_refused: false,
            neighbours_done: false,
            deadline: None,
        }
    }

    /// Handles the answer of a tracker, which may be empty.
    pub(super) fn handle_tracker(&mut self, now: Instant, found: bool) {
        self.trackers_left -= 1;
        self.tracker_answered = true;
        self.tracker_found |= found;
        self.deadline.get_or_insert(now + OTHER_TRACKERS);
    }

    /// Handles the failure or refusal of a tracker.
    pub(super) fn handle_tracker_failed(&mut self, is_refusal: bool) {
        self.trackers_left -= 1;
        self.tracker_refused |= is_refusal;
    }

    /// Handles the answers of the neighbours, which may be empty; None if no neighbour could be
    /// asked.
    pub(super) fn handle_neighbours(&mut self, now: Instant, found: Option<bool>) {
        self.neighbours_done = true;
        if found.is_some_and(|found| self.trackers_are_local || found) {
            let grace = match self.trackers_are_local {
                true => Duration::ZERO,
                false => OTHER_TRACKERS,
            };
            self.deadline.get_or_insert(now + grace);
        }
    }

    /// Returns the deadline for answers. There is none before the first answer: trackers end the
    /// lookup themselves when its time is up, and report the cause.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the lookup is over. If trackers found the file, the lookup does not wait for the
    /// local network. If a tracker refused and none answered, the refusal is reported at once.
    pub(super) fn is_over(&self) -> bool {
        let refused = self.tracker_refused && !self.tracker_answered;
        self.trackers_left == 0 && (self.tracker_found || self.neighbours_done || refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_that_knows_the_file_is_enough() {
        let now = Instant::now();
        let mut waiting = Waiting::new(1, false);
        assert!(!waiting.is_over());
        waiting.handle_tracker(now, true);
        assert!(waiting.is_over());
    }

    #[test]
    fn the_network_is_waited_for_where_no_tracker_knows() {
        let now = Instant::now();
        let mut waiting = Waiting::new(1, false);
        waiting.handle_tracker(now, false);
        assert!(!waiting.is_over());
        assert_eq!(waiting.deadline(), Some(now + OTHER_TRACKERS));
        waiting.handle_neighbours(now, None);
        assert!(waiting.is_over());
    }

    #[test]
    fn other_trackers_get_a_while_after_the_first_answer() {
        let now = Instant::now();
        let mut waiting = Waiting::new(2, false);
        waiting.handle_tracker(now, true);
        assert!(!waiting.is_over());
        assert_eq!(waiting.deadline(), Some(now + OTHER_TRACKERS));
        waiting.handle_tracker_failed(false);
        assert!(waiting.is_over());
    }

    #[test]
    fn a_refusal_is_reported_at_once_unless_another_tracker_answers() {
        let now = Instant::now();
        let mut alone = Waiting::new(1, false);
        alone.handle_tracker_failed(true);
        assert!(alone.is_over());
        let mut beside = Waiting::new(2, false);
        beside.handle_tracker_failed(true);
        beside.handle_tracker(now, false);
        assert!(!beside.is_over(), "the network may know the file");
    }

    #[test]
    fn an_absent_tracker_on_this_machine_is_not_waited_for() {
        let now = Instant::now();
        let mut local = Waiting::new(1, true);
        local.handle_neighbours(now, Some(false));
        assert_eq!(local.deadline(), Some(now));
        let mut remote = Waiting::new(1, false);
        remote.handle_neighbours(now, Some(false));
        assert_eq!(remote.deadline(), None);
        remote.handle_neighbours(now, Some(true));
        assert_eq!(remote.deadline(), Some(now + OTHER_TRACKERS));
    }
}
