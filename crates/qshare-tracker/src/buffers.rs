//! One bound on the bytes that all sessions together hold in memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes a permit stands for: a semaphore's count is 32 bits, and small messages abound.
const GRAIN_BYTES: usize = 1024;

/// Room for announcements being read and answers being written.
#[derive(Clone)]
pub(crate) struct Buffers {
    grains: Arc<Semaphore>,
}

/// Room that is taken for as long as this lives.
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    pub(crate) fn new(max_bytes: u32) -> Buffers {
        let grains = max_bytes as usize / GRAIN_BYTES;
        Buffers {
            grains: Arc::new(Semaphore::new(grains)),
        }
    }

    /// Waits for room. None where that much is never to be had.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<Room> {
        let permit = self.grains.clone().acquire_many_owned(grains(bytes)).await;
        permit.ok().map(|_permit| Room { _permit })
    }

    /// Takes room if there is some.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let permit = self.grains.clone().try_acquire_many_owned(grains(bytes));
        permit.ok().map(|_permit| Room { _permit })
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
        let buffers = Buffers::new(4096);
        let room = buffers.try_reserve(4000);
        assert!(room.is_some());
        assert!(buffers.try_reserve(1).is_none());
        drop(room);
        assert!(buffers.try_reserve(4096).is_some());
        assert!(buffers.try_reserve(4097).is_none());
    }
}
