//! One bound on the bytes that all sessions together hold in memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes a permit stands for: a semaphore's count is 32 bits, and small messages abound.
const GRAIN_BYTES: usize = 1024;

/// Room for announcements being read and answers being written.
#[derive(Clone)]
pub(crate) struct MemoryBudget {
    grains: Arc<Semaphore>,
}

/// Room that is taken for as long as this lives.
pub(crate) struct Reservation {
    _permit: OwnedSemaphorePermit,
}

impl MemoryBudget {
    pub(crate) fn new(max_bytes: u32) -> MemoryBudget {
        let grains = max_bytes as usize / GRAIN_BYTES;
        MemoryBudget {
            grains: Arc::new(Semaphore::new(grains)),
        }
    }

    /// Waits for room. None where that much is never to be had.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = self.grains.clone().acquire_many_owned(grains(bytes)).await;
        permit.ok().map(|_permit| Reservation { _permit })
    }

    /// Takes room if there is some.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let permit = self.grains.clone().try_acquire_many_owned(grains(bytes));
        permit.ok().map(|_permit| Reservation { _permit })
    }
}

fn grains(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_when_it_is_dropped() {
        let budget = MemoryBudget::new(4096);
        let reservation = budget.try_reserve(4000);
        assert!(reservation.is_some());
        assert!(budget.try_reserve(1).is_none());
        drop(reservation);
        assert!(budget.try_reserve(4096).is_some());
        assert!(budget.try_reserve(4097).is_none());
    }
}
