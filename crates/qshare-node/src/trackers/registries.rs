//! Registries that several trackers share: a node announces to one tracker of each, and claims the
//! mailbox of a code at one of each.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// The registries to which this node announces over some session, and the numbers of its sessions.
#[derive(Clone)]
pub(crate) struct Registries(Arc<Shared>);

struct Shared {
    last_number: AtomicU64,
    announced: Mutex<HashSet<[u8; 16]>>,
    /// Counts claims that ended.
    released: watch::Sender<u64>,
}

/// The right to announce to a registry. It ends when this is dropped.
pub(crate) struct RegistryClaim {
    registries: Registries,
    id: Option<[u8; 16]>,
}

impl Registries {
    pub(crate) fn new() -> Registries {
        Registries(Arc::new(Shared {
            last_number: AtomicU64::new(0),
            announced: Mutex::default(),
            released: watch::Sender::new(0),
        }))
    }

    /// Returns a number for a new session, above all earlier ones: also of an earlier run, unless
    /// the clock was set back.
    pub(super) fn next_number(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let next = |last: u64| Some(now_ms.max(last.saturating_add(1)));
        let last = &self.0.last_number;
        let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now_ms.max(before.unwrap_or(0).saturating_add(1))
    }

    /// Returns the right to announce to this registry, unless another session has it. A tracker
    /// without an id shares its registry with none.
    pub(crate) fn try_claim(&self, id: Option<[u8; 16]>) -> Option<RegistryClaim> {
        let is_free = id.is_none_or(|id| {
            let announced = self.0.announced.lock();
            announced.unwrap_or_else(PoisonError::into_inner).insert(id)
        });
        is_free.then(|| RegistryClaim {
            registries: self.clone(),
            id,
        })
    }

    /// Waits until no other session announces to this registry.
    pub(crate) async fn claim(&self, id: Option<[u8; 16]>) -> RegistryClaim {
        let mut released = self.0.released.subscribe();
        loop {
            released.mark_unchanged();
            if let Some(claim) = self.try_claim(id) {
                return claim;
            }
            // The sender lives as long as this.
            let _ = released.changed().await;
        }
    }
}

impl Drop for RegistryClaim {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let shared = &self.registries.0;
        let announced = shared.announced.lock();
        announced
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        shared.released.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_rise() {
        let registries = Registries::new();
        let numbers: Vec<u64> = (0..1_000).map(|_| registries.next_number()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[tokio::test]
    async fn one_session_announces_to_a_registry_at_a_time() {
        let registries = Registries::new();
        let claim = registries.claim(Some([1; 16])).await;
        let other = registries.claim(Some([2; 16])).await;
        let _alone = (registries.claim(None).await, registries.claim(None).await);
        let waiting = registries.claim(Some([1; 16]));
        let mut waiting = std::pin::pin!(waiting);
        let soon = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
        assert!(soon.is_err());
        drop(other);
        drop(claim);
        waiting.await;
    }
}
