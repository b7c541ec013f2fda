//! Whether Redis refuses writes although it answers.
//!
//! Every tracker writes a record of its own every two seconds (`siblings`, `usage`), so one that
//! has nothing to publish learns of it, too.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// For this long after a refused write, others are taken to be refused: longer than two trackers'
/// records are apart.
const REFUSES_FOR: Duration = Duration::from_secs(6);

/// Why Redis refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// It has reached `maxmemory`.
    #[error("its memory is full (maxmemory)")]
    MemoryFull,
    /// It cannot save to its disk.
    #[error("it cannot save to its disk")]
    CannotSave,
    /// Fewer replicas are connected than `min-replicas-to-write`.
    #[error("it has too few replicas (min-replicas-to-write)")]
    TooFewReplicas,
    /// It is a replica.
    #[error("it is a read-only replica")]
    ReadOnly,
}

impl WriteRefusal {
    /// Returns what an error code of Redis means; None if it refuses no writes in general.
    pub(super) fn of_code(code: &str) -> Option<WriteRefusal> {
        match code {
            "OOM" => Some(WriteRefusal::MemoryFull),
            "MISCONF" => Some(WriteRefusal::CannotSave),
            "NOREPLICAS" => Some(WriteRefusal::TooFewReplicas),
            "READONLY" => Some(WriteRefusal::ReadOnly),
            _ => None,
        }
    }
}

/// The last refused write.
#[derive(Debug, Default)]
pub(super) struct WriteRefusals {
    last: Mutex<Option<(Instant, WriteRefusal)>>,
}

impl WriteRefusals {
    /// Records a refused write.
    pub(super) fn refused(&self, now: Instant, refusal: WriteRefusal) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last.is_none_or(|(_, known)| known != refusal);
        *last = Some((now, refusal));
        drop(last);
        if is_news {
            warn!(cause = %refusal, "the shared registry refuses writes");
        }
    }

    /// Returns why writes are refused; None if they are accepted.
    pub(super) fn current(&self, now: Instant) -> Option<WriteRefusal> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, refusal) = (*last)?;
        if now.saturating_duration_since(at) < REFUSES_FOR {
            return Some(refusal);
        }
        *last = None;
        drop(last);
        warn!("the shared registry accepts writes again");
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_until_none_came_for_a_while() {
        let (refusals, now) = (WriteRefusals::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(refusals.current(now), None);
        refusals.refused(at(0), WriteRefusal::MemoryFull);
        refusals.refused(at(4), WriteRefusal::ReadOnly);
        assert_eq!(refusals.current(at(9)), Some(WriteRefusal::ReadOnly));
        assert_eq!(refusals.current(at(10)), None);
    }
}
