//! Divides a node's limit on receiving among its downloads, by their priorities.
//!
//! A source sends the answers of one connection one after the other, and this node's only means
//! against it, the connection's flow-control window, treats all of them alike. So the limit is
//! divided where bytes are requested. Each download counts what it requested, divided by its weight
//! (start-time fair queueing); one that is ahead of the others requests nothing until they have
//! caught up.
//!
//! A download whose sources are slow falls behind for ever, and nobody may wait for it. The sign of
//! that is a limit that is not used while a download is held back. Then those that are not held
//! back forfeit their claim for a while: they go on requesting, and nobody waits for them. So the
//! limit is used whenever any download can use it.
//!
//! Pure: the caller gives the time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Priority;

/// Time at the limit by which a download may be ahead of its share. More than the interval between
/// two reports, so that a download can use its share all the time.
const AHEAD: Duration = Duration::from_millis(500);
/// A limit that is unused for this long, while a download is held back, is not used up by the
/// others. Longer than the RTT of most paths, after which a first request is answered, and than
/// most interruptions of a path.
const UNUSED: Duration = Duration::from_millis(500);
/// After a longer time without a report, this node was too busy to tell whether the limit is used.
const LATE: Duration = Duration::from_millis(200);
/// For how long a claim is forfeited first, and at most. The limit is unused for [`UNUSED`] after
/// each time, so the maximum bounds the loss to a few percent; and it is the longest time for which
/// a download whose sources became faster has no more than any other.
const FORFEIT_MIN: Duration = Duration::from_millis(500);
const FORFEIT_MAX: Duration = Duration::from_secs(10);
/// Those that are not held back use the limit if they do so for this long, while those that are
/// have nothing under way. Their next claim is forfeited for the shortest time.
const PROVEN: Duration = Duration::from_secs(1);

/// The downloads that run, and what each has requested of the limit.
#[derive(Debug, Default)]
pub(in super::super) struct Competition(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    runners: BTreeMap<u64, Runner>,
    next_id: u64,
    reported_at: Option<Instant>,
    /// Since when the limit is unused while a download is held back.
    unused_since: Option<Instant>,
    /// Since when it is used while one that is held back has nothing under way.
    used_since: Option<Instant>,
}

#[derive(Debug)]
struct Runner {
    priority: Priority,
    /// Bytes requested, as last reported.
    requested_bytes: u64,
    in_flight_bytes: u64,
    /// Bytes requested while it competed, divided by the weight; raised to the others' when it
    /// begins to compete.
    used: f64,
    competes: bool,
    is_held: bool,
    forfeited_until: Option<Instant>,
    forfeit: Duration,
}

/// What a download reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Bytes that it has requested since it began.
    pub(super) requested_bytes: u64,
    /// Bytes requested and not yet verified.
    pub(super) in_flight_bytes: u64,
    /// The most that one request asks for.
    pub(super) chunk_bytes: u64,
}

/// The limit that is divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Bytes per second; None for no limit.
    pub(super) bytes_per_second: Option<u64>,
    /// Whether much less than the limit arrives.
    pub(super) is_unused: bool,
}

impl Competition {
    /// Adds a download until [`Competition::leave`].
    pub(super) fn join(&self, priority: Priority) -> u64 {
        let mut table = self.lock();
        let id = table.next_id;
        table.next_id += 1;
        let runner = Runner {
            priority,
            requested_bytes: 0,
            in_flight_bytes: 0,
            used: 0.0,
            competes: false,
            is_held: false,
            forfeited_until: None,
            forfeit: FORFEIT_MIN,
        };
        table.runners.insert(id, runner);
        id
    }

    pub(super) fn leave(&self, id: u64) {
        self.lock().runners.remove(&id);
    }

    pub(super) fn set_priority(&self, id: u64, priority: Priority) {
        if let Some(runner) = self.lock().runners.get_mut(&id) {
            runner.priority = priority;
        }
    }

    /// Returns whether a download of a higher priority runs.
    pub(super) fn is_any_above(&self, priority: Priority) -> bool {
        let table = self.lock();
        table
            .runners
            .values()
            .any(|runner| runner.priority > priority)
    }

    /// Takes a download's report, and returns how many bytes it may request until the next one; at
    /// least one chunk if any. To be called several times within [`AHEAD`].
    pub(super) fn allow(&self, now: Instant, id: u64, demand: Demand, limit: Limit) -> u64 {
        let mut table = self.lock();
        let Some(bytes_per_second) = limit.bytes_per_second else {
            if let Some(runner) = table.runners.get_mut(&id) {
                runner.requested_bytes = demand.requested_bytes;
                runner.competes = false;
                runner.is_held = false;
            }
            return u64::MAX;
        };
        table.watch(now, limit.is_unused);
        table.account(now, id, demand);
        table.allow(id, demand.chunk_bytes, bytes_per_second)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes the claims of those that are not held back, if they do not use the limit.
    fn watch(&mut self, now: Instant, is_unused: bool) {
        let since_last = self.reported_at.replace(now);
        let is_late = since_last.is_some_and(|at| now.saturating_duration_since(at) > LATE);
        let mut held = self.runners.values().filter(|runner| runner.is_held);
        let is_any_held = held.clone().next().is_some();
        let is_any_drained = held.any(|runner| runner.in_flight_bytes == 0);
        let has_lasted = |since: &mut Option<Instant>, is_so: bool, time: Duration| {
            if !is_so {
                *since = None;
                return false;
            }
            now.saturating_duration_since(*since.get_or_insert(now)) >= time
        };
        let is_proven = has_lasted(&mut self.used_since, is_any_drained && !is_unused, PROVEN);
        let unused = is_any_held && is_unused && !is_late;
        let is_wasted = has_lasted(&mut self.unused_since, unused, UNUSED);
        if is_wasted {
            self.unused_since = None;
        }
        let claims = self.runners.values_mut();
        for runner in claims.filter(|runner| runner.competes && !runner.is_held) {
            if is_proven {
                runner.forfeit = FORFEIT_MIN;
            }
            if is_wasted {
                runner.forfeited_until = Some(now + runner.forfeit);
                runner.forfeit = (runner.forfeit * 2).min(FORFEIT_MAX);
                runner.competes = false;
            }
        }
    }

    /// Counts what a download requested, and decides whether it competes.
    fn account(&mut self, now: Instant, id: u64, demand: Demand) {
        let least = self.least_used(id);
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        let requested = demand.requested_bytes - runner.requested_bytes.min(demand.requested_bytes);
        runner.requested_bytes = demand.requested_bytes;
        runner.in_flight_bytes = demand.in_flight_bytes;
        if runner.competes {
            runner.used += requested as f64 / weight(runner.priority);
        }
        let forfeited = runner.forfeited_until.is_some_and(|until| now < until);
        let wants = demand.in_flight_bytes > 0 || runner.is_held;
        if !wants || forfeited {
            runner.competes = false;
            runner.is_held = false;
        } else if !runner.competes {
            runner.competes = true;
            // What was used, or left unused, without a claim gives no advantage.
            runner.used = least.unwrap_or(runner.used);
        }
    }

    /// Returns the least that any other competing download has used.
    fn least_used(&self, id: u64) -> Option<f64> {
        let others = self
            .runners
            .iter()
            .filter(|(other, runner)| **other != id && runner.competes);
        others
            .map(|(_, runner)| runner.used)
            .min_by(|one, other| one.total_cmp(other))
    }

    fn allow(&mut self, id: u64, chunk_bytes: u64, bytes_per_second: u64) -> u64 {
        let least = self.least_used(id);
        let competing = self.runners.values().filter(|runner| runner.competes);
        let weights: f64 = competing.map(|runner| weight(runner.priority)).sum();
        let Some(runner) = self.runners.get_mut(&id) else {
            return u64::MAX;
        };
        runner.is_held = false;
        let Some(least) = least.filter(|_| runner.competes) else {
            return u64::MAX;
        };
        let ahead = bytes_per_second as f64 * AHEAD.as_secs_f64() / weights;
        let left = least + ahead - runner.used;
        if left < 0.0 {
            runner.is_held = true;
            return 0;
        }
        ((left * weight(runner.priority)) as u64).max(chunk_bytes)
    }
}

/// Returns the share of the limit, relative to others.
fn weight(priority: Priority) -> f64 {
    match priority {
        Priority::Low => 1.0,
        Priority::Normal => 4.0,
        Priority::High => 16.0,
    }
}

#[cfg(test)]
mod tests;
