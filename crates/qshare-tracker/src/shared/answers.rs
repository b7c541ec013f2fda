//! The cache of what other trackers know: answers to lookups, bounded in number and in bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::merge::{RemotePage, Similar};

/// How old an answer with matches may be.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// How old it may be while Redis is away: one lease.
pub(super) const FRESH_WITHOUT_REDIS: Duration = Duration::from_secs(30);
/// Limits on the answers and on their bytes.
const ANSWERS_MAX: usize = 4_096;
const ANSWERS_MAX_BYTES: usize = 64 << 20;

struct Answer {
    begun: Instant,
    page: Arc<RemotePage>,
}

/// One cached lookup. Requests that come while it runs wait for it, or share the next one.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) turn: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the similar names that were offered within the last second.
    pub(super) fn similar(&self) -> Option<Similar> {
        let answer = self.lock();
        let similar = answer.as_ref()?.page.similar.clone();
        similar.filter(|similar| similar.read_at.elapsed() < FRESH)
    }

    /// Returns the answer if it is recent enough at `now` for a request that came at `asked`.
    pub(super) fn usable(
        &self,
        asked: Instant,
        now: Instant,
        fresh: Duration,
    ) -> Option<Arc<RemotePage>> {
        let answer = self.lock();
        let answer = answer.as_ref()?;
        let is_positive = !answer.page.matches.is_empty();
        let age = now.saturating_duration_since(answer.begun);
        let is_usable = answer.begun >= asked || (is_positive && age < fresh);
        is_usable.then(|| Arc::clone(&answer.page))
    }

    /// Keeps an answer that was begun at `begun`.
    pub(super) fn keep(&self, begun: Instant, page: &Arc<RemotePage>) {
        *self.lock() = Some(Answer {
            begun,
            page: Arc::clone(page),
        });
    }
}

/// The cached lookups by what identifies them.
#[derive(Default)]
pub(super) struct Answers {
    slots: Mutex<HashMap<Vec<u8>, Arc<Slot>>>,
    /// Bytes of the answers that were kept at the last look at all of them, and of those that came
    /// since.
    bytes: AtomicUsize,
}

impl Answers {
    /// Returns the slot of a lookup that was answered before.
    pub(super) fn kept(&self, key: &[u8]) -> Option<Arc<Slot>> {
        self.lock().get(key).map(Arc::clone)
    }

    /// Returns the slot of a lookup. If the cache is full of slots that are in use or fresh, the
    /// slot is not part of it, and its answer is forgotten.
    pub(super) fn slot(&self, key: Vec<u8>) -> Arc<Slot> {
        let mut slots = self.lock();
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(&key) {
            let old = |slot: &Arc<Slot>, age: Duration| {
                let answer = slot.lock();
                let is_fresh = |answer: &Answer| {
                    !answer.page.matches.is_empty() && answer.begun.elapsed() < age
                };
                Arc::strong_count(slot) == 1 && !answer.as_ref().is_some_and(is_fresh)
            };
            slots.retain(|_, slot| !old(slot, FRESH_WITHOUT_REDIS));
            if slots.len() >= ANSWERS_MAX {
                slots.retain(|_, slot| !old(slot, FRESH));
            }
            if slots.len() >= ANSWERS_MAX {
                // All are in use or fresh: this request is not cached.
                return Arc::default();
            }
        }
        Arc::clone(slots.entry(key).or_default())
    }

    /// Counts the bytes of an answer. Where answers take too many, drops first those that count no
    /// more, then those that are not fresh, then all.
    pub(super) fn limit_memory(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= ANSWERS_MAX_BYTES {
            return;
        }
        let mut slots = self.lock();
        let mut left = 0;
        for age in [FRESH_WITHOUT_REDIS, FRESH, Duration::ZERO] {
            left = 0;
            slots.retain(|_, slot| {
                let answer = slot.lock();
                let Some(answer) = answer.as_ref() else {
                    return true;
                };
                let is_kept = answer.begun.elapsed() < age;
                left += if is_kept { answer.page.bytes() } else { 0 };
                is_kept
            });
            if left <= ANSWERS_MAX_BYTES / 2 {
                break;
            }
        }
        self.bytes.store(left, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::AssetName;

    use super::*;

    /// An answer of about a megabyte.
    fn large() -> Arc<RemotePage> {
        let name = AssetName::new("n".repeat(200)).unwrap();
        Arc::new(RemotePage {
            similar: Some(Similar {
                read_at: Instant::now(),
                names: vec![name; 5_000],
            }),
            ..RemotePage::default()
        })
    }

    fn kept_bytes(answers: &Answers) -> usize {
        let slots = answers.lock();
        let pages = slots.values().filter_map(|slot| {
            let answer = slot.lock();
            answer.as_ref().map(|answer| answer.page.bytes())
        });
        pages.sum()
    }

    #[test]
    fn answers_take_bounded_memory() {
        let (answers, page) = (Answers::default(), large());
        assert!(page.bytes() > 1_000_000);
        for number in 0..1_000_u32 {
            let slot = answers.slot(number.to_le_bytes().to_vec());
            slot.keep(Instant::now(), &page);
            answers.limit_memory(page.bytes());
            assert!(kept_bytes(&answers) <= ANSWERS_MAX_BYTES);
            assert!(slot.similar().is_some());
        }
        assert!(kept_bytes(&answers) > 0);
    }
}
