//! Files that may still be written: decides when each counts as complete.
//!
//! Pure: the caller passes the time and the events of the system.
//!
//! On a local file system, the system reports writes and closes. A file there is complete once it
//! is closed and quiet. Where the system does not report them, only a longer quiet period decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::offered_files::Key;
use crate::stamp::Stamp;
use crate::watch::Change;

/// Quiet period after a reported close: a program may open the file again at once.
const QUIET_CLOSED: Duration = Duration::from_secs(1);
/// Quiet period of a file in a watched directory of which neither a write nor a close was reported.
/// Later writes would be reported.
const QUIET_UNSEEN: Duration = Duration::from_secs(2);
/// Quiet period where changes are not reported: programs that copy over a network pause for
/// seconds.
const QUIET_POLLED: Duration = Duration::from_secs(10);
/// After this time, a file that has not settled is reported as still being written.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// Interval at which a file that never settles is offered in its current state.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(600);
/// A modification time that is earlier than the first reported write by more than this does not
/// come from that write. The value is the coarsest time resolution of file systems.
const TIMES_RESOLUTION: Duration = Duration::from_secs(2);
/// Most pending renames, of which only the first half has been reported.
const MOVES_MAX: usize = 1024;

/// The decision about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The file is complete.
    Settled,
    /// The file may still be written. The caller asks again at `again`, or at the next event. If
    /// `tell` is set, it reports the file as still being written; that happens once.
    Wait { again: Instant, tell: bool },
    /// The file has been written for long: its current bytes are to be offered.
    Snapshot,
}

/// The caller's observation of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) stamp: Stamp,
    /// Time since its modification time; None if that is in the future.
    pub(crate) age: Option<Duration>,
    /// Whether some or all changes in the file's directory are not reported.
    pub(crate) polled: bool,
}

/// The files that have not settled.
pub(crate) struct Settling {
    unsettled: HashMap<Arc<Key>, Unsettled>,
    /// Reported writes and closes, by path.
    writers: HashMap<Key, Writer>,
    /// Reported writes and closes of files that were renamed away, by the rename's number.
    moves: HashMap<u32, Writer>,
    snapshot_every: Duration,
}

/// Reported writes and closes of one file.
#[derive(Clone, Copy)]
enum Writer {
    /// The file was written to and not closed since.
    Open {
        /// When the first write was reported.
        since: Instant,
        /// Whether the file's modification time confirms a write. Linux also reports a call that
        /// only sets the modification time as a write, and no close follows that one.
        confirmed: bool,
    },
    /// The file was closed after the last write.
    Closed,
}

struct Unsettled {
    stamp: Stamp,
    /// Since when the file has had this stamp.
    since: Instant,
    /// When the file was first seen.
    first: Instant,
    told: bool,
    snapshot_at: Instant,
}

impl Settling {
    pub(crate) fn new() -> Settling {
        Settling::with_snapshots(SNAPSHOT_EVERY)
    }

    /// Creates an instance that offers files that never settle at another interval.
    pub(crate) fn with_snapshots(snapshot_every: Duration) -> Settling {
        Settling {
            unsettled: HashMap::new(),
            writers: HashMap::new(),
            moves: HashMap::new(),
            snapshot_every,
        }
    }

    /// Discards all state.
    pub(crate) fn clear(&mut self) {
        *self = Settling::with_snapshots(self.snapshot_every);
    }

    /// Records an event of a file.
    pub(crate) fn note(&mut self, key: &Key, change: Change, now: Instant) {
        match change {
            Change::Written => {
                let (since, confirmed) = (now, false);
                let written = Writer::Open { since, confirmed };
                match self.writers.get_mut(key) {
                    Some(Writer::Open { .. }) => {}
                    Some(closed) => *closed = written,
                    None => {
                        self.writers.insert(key.clone(), written);
                    }
                }
            }
            Change::Closed => {
                self.writers.insert(key.clone(), Writer::Closed);
            }
            Change::MovedFrom(number) => {
                if let Some(writer) = self.writers.remove(key)
                    && self.moves.len() < MOVES_MAX
                {
                    self.moves.insert(number, writer);
                }
            }
            Change::MovedTo(number) => {
                self.writers.remove(key);
                if let Some(writer) = self.moves.remove(&number) {
                    self.writers.insert(key.clone(), writer);
                }
            }
            Change::Other => {}
        }
    }

    /// Decides whether the file at `key` counts as complete.
    pub(crate) fn judge(&mut self, key: &Key, sight: Sight, now: Instant) -> Verdict {
        let (is_open, needed) = match self.writer(key, sight.age, now) {
            Some(Writer::Open { .. }) => (true, QUIET_CLOSED),
            _ if sight.polled => (false, QUIET_POLLED),
            Some(Writer::Closed) => (false, QUIET_CLOSED),
            None => (false, QUIET_UNSEEN),
        };
        let snapshot_every = self.snapshot_every;
        let fresh = || Unsettled {
            stamp: sight.stamp,
            since: now,
            first: now,
            told: false,
            snapshot_at: now + snapshot_every,
        };
        let entry = match self.unsettled.get_mut(key) {
            Some(entry) => entry,
            None => {
                let key = Arc::new(key.clone());
                self.unsettled.entry(key).or_insert_with(fresh)
            }
        };
        if entry.stamp != sight.stamp {
            entry.stamp = sight.stamp;
            entry.since = now;
        }
        let observed = now.saturating_duration_since(entry.since);
        let quiet = sight.age.map_or(observed, |age| age.max(observed));
        if !is_open && quiet >= needed {
            self.forget(key);
            return Verdict::Settled;
        }
        if now >= entry.snapshot_at {
            entry.snapshot_at = now + snapshot_every;
            return Verdict::Snapshot;
        }
        let tell_at = entry.first + TOLD_AFTER;
        let tell = !entry.told && now >= tell_at;
        entry.told |= tell;
        let mut again = entry.snapshot_at;
        if !entry.told {
            again = again.min(tell_at);
        }
        if !is_open {
            again = again.min(now + (needed - quiet));
        }
        Verdict::Wait { again, tell }
    }

    /// Returns the reported writes and closes of the file, unless the file's age contradicts them.
    fn writer(&mut self, key: &Key, age: Option<Duration>, now: Instant) -> Option<Writer> {
        let writer = self.writers.get_mut(key)?;
        if let Writer::Open { since, confirmed } = writer {
            let written = now.saturating_duration_since(*since) + TIMES_RESOLUTION;
            *confirmed |= age.is_none_or(|age| age <= written);
            if !*confirmed {
                self.writers.remove(key);
                return None;
            }
        }
        Some(*writer)
    }

    /// Discards the state of a file that is offered, is gone, or never will be offered.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.unsettled.remove(key);
        self.writers.remove(key);
    }

    /// Discards the state of a path and everything beneath it.
    pub(crate) fn forget_beneath(&mut self, key: &Key) {
        let is_beneath =
            |other: &Key| other.root == key.root && other.relative.starts_with(&key.relative);
        self.unsettled.retain(|other, _| !is_beneath(other));
        self.writers.retain(|other, _| !is_beneath(other));
    }

    /// Discards all reported writes and closes, because some reports were lost. Returns the files
    /// that have not settled; each must be checked again.
    pub(crate) fn forget_reports(&mut self) -> Vec<Key> {
        self.writers.clear();
        self.moves.clear();
        self.unsettled.keys().map(|key| Key::clone(key)).collect()
    }

    /// Whether no file is unsettled.
    pub(crate) fn is_empty(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Returns the files that were reported as still being written, in no order.
    pub(crate) fn still_written(&self) -> impl Iterator<Item = &Key> {
        let told = self.unsettled.iter().filter(|(_, entry)| entry.told);
        told.map(|(key, _)| &**key)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn key(path: &str) -> Key {
        Key::new(0, Path::new(path))
    }

    fn sight(size: u64, age_ms: u64, polled: bool) -> Sight {
        Sight {
            stamp: Stamp {
                device: 1,
                inode: 1,
                size,
                mtime_ns: 0,
                ctime_ns: 0,
                executable: false,
            },
            age: Some(Duration::from_millis(age_ms)),
            polled,
        }
    }

    fn again(verdict: Verdict, start: Instant) -> (u128, bool) {
        match verdict {
            Verdict::Wait { again, tell } => ((again - start).as_millis(), tell),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_is_open_for_writing_is_not_complete_however_quiet_it_is() {
        let mut settling = Settling::new();
        let (start, file) = (Instant::now(), key("a"));
        let at = |seconds| start + Duration::from_secs(seconds);
        settling.note(&file, Change::Written, start);
        let verdict = settling.judge(&file, sight(1, 0, false), start);
        assert_eq!(again(verdict, start), (15_000, false));
        let verdict = settling.judge(&file, sight(1, 5_000, false), at(5));
        assert_eq!(again(verdict, start), (15_000, false));
        settling.note(&file, Change::Closed, at(6));
        let verdict = settling.judge(&file, sight(2, 0, false), at(6));
        assert_eq!(again(verdict, start), (7_000, false));
        let verdict = settling.judge(&file, sight(2, 1_000, false), at(7));
        assert_eq!(verdict, Verdict::Settled);
        assert!(settling.is_empty() && settling.writers.is_empty());
    }

    #[test]
    fn setting_only_the_modification_time_is_no_write() {
        let mut settling = Settling::new();
        let (start, file) = (Instant::now(), key("a"));
        settling.note(&file, Change::Written, start);
        let verdict = settling.judge(&file, sight(1, 60_000, false), start);
        assert_eq!(verdict, Verdict::Settled);
        // Once a write was observed, an old modification time does not settle the file sooner.
        settling.note(&file, Change::Written, start);
        let verdict = settling.judge(&file, sight(1, 300, false), start);
        assert_eq!(again(verdict, start), (15_000, false));
        let verdict = settling.judge(&file, sight(1, 60_000, false), start);
        assert_eq!(again(verdict, start), (15_000, false));
    }

    #[test]
    fn where_nothing_is_reported_quiet_lasts_longer() {
        let mut settling = Settling::new();
        let (start, file) = (Instant::now(), key("a"));
        let verdict = settling.judge(&file, sight(1, 1_500, false), start);
        assert_eq!(again(verdict, start), (500, false));
        let verdict = settling.judge(&file, sight(1, 1_500, true), start);
        assert_eq!(again(verdict, start), (8_500, false));
        // The other machine's clock is ahead.
        let future = Sight {
            age: None,
            ..sight(1, 0, true)
        };
        let verdict = settling.judge(&file, future, start + Duration::from_secs(5));
        assert_eq!(again(verdict, start), (10_000, false));
        let verdict = settling.judge(&file, future, start + Duration::from_secs(10));
        assert_eq!(verdict, Verdict::Settled);
        assert_eq!(
            settling.judge(&file, sight(1, 100_000, true), start),
            Verdict::Settled
        );
    }

    #[test]
    fn a_file_that_never_settles_is_told_once_and_offered_at_intervals() {
        let mut settling = Settling::new();
        let (start, file) = (Instant::now(), key("log"));
        let (mut told, mut snapshots) = (Vec::new(), Vec::new());
        for second in 0..1_300 {
            let now = start + Duration::from_secs(second);
            settling.note(&file, Change::Written, now);
            settling.note(&file, Change::Closed, now);
            match settling.judge(&file, sight(second, 0, false), now) {
                Verdict::Wait { tell: true, .. } => told.push(second),
                Verdict::Wait { tell: false, .. } => {}
                Verdict::Snapshot => snapshots.push(second),
                Verdict::Settled => panic!("settled after {second} s"),
            }
        }
        assert_eq!((told, snapshots), (vec![15], vec![600, 1_200]));
        assert_eq!(settling.still_written().collect::<Vec<_>>(), [&file]);
        settling.forget_beneath(&key(""));
        assert!(settling.is_empty());
    }

    #[test]
    fn a_rename_takes_the_open_file_along() {
        let mut settling = Settling::new();
        let now = Instant::now();
        settling.note(&key("a.tmp"), Change::Written, now);
        settling.note(&key("a.tmp"), Change::MovedFrom(7), now);
        settling.note(&key("a"), Change::MovedTo(7), now);
        let verdict = settling.judge(&key("a"), sight(1, 0, false), now);
        assert_eq!(again(verdict, now), (15_000, false));
        settling.note(&key("b"), Change::Written, now);
        settling.note(&key("b"), Change::MovedTo(8), now);
        let verdict = settling.judge(&key("b"), sight(1, 60_000, false), now);
        assert_eq!(verdict, Verdict::Settled);
    }
}
