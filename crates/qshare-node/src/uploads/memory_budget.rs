//! What answers hold in memory: a bound over all, and room in it that the greedy cannot take.
//!
//! Bytes are charged from before they are read until their last holder drops them: QUIC holds what
//! it sends until it is acknowledged, so that whoever reads slowly, or not at all, holds memory of
//! ours. Half of the room is for whoever comes first, so that a long fat path can be filled; a
//! quarter is for those who hold little; and of the last quarter every client that there can be has
//! a share of its own, which nobody can take from it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use qshare_swarm::PeerKey;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// What one client may hold of the quarter that is kept for those who hold little: one block of an
/// answer.
const LITTLE_BYTES: u64 = 1 << 20;

/// Bytes that may be in memory beside the answers, for as long as it takes to make something of
/// them: two of the largest chunks. Nobody is waited for meanwhile.
const WORK_MAX_BYTES: u64 = 8 << 20;

const WORK_UNIT_BYTES: u64 = 16 << 10;

/// The bytes of answers in memory.
pub(super) struct MemoryBudget {
    max_bytes: u64,
    /// What every client may hold.
    always_bytes: u64,
    held: Mutex<Held>,
    freed: Notify,
    work: Semaphore,
}

#[derive(Default)]
struct Held {
    bytes: u64,
    by_client: HashMap<PeerKey, u64>,
}

impl Held {
    /// What a client may have beyond what it holds.
    fn left_for(&self, client: PeerKey, max_bytes: u64, always_bytes: u64) -> u64 {
        let theirs = self.by_client.get(&client).copied().unwrap_or(0);
        let below = |max: u64| max.saturating_sub(self.bytes);
        let first_come = below(max_bytes / 2);
        let little = below(max_bytes / 4 * 3).min(LITTLE_BYTES.saturating_sub(theirs));
        let always = below(max_bytes).min(always_bytes.saturating_sub(theirs));
        first_come.max(little).max(always)
    }

    fn take(&mut self, client: PeerKey, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        *self.by_client.entry(client).or_default() += bytes;
    }

    fn give_back(&mut self, client: PeerKey, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(theirs) = self.by_client.get_mut(&client) {
            *theirs = theirs.saturating_sub(bytes);
            if *theirs == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

impl MemoryBudget {
    /// Room for so many bytes, for as many clients as there can be.
    pub(super) fn new(max_bytes: u64, clients_max: usize) -> Arc<MemoryBudget> {
        let clients = (clients_max as u64).max(1);
        Arc::new(MemoryBudget {
            max_bytes,
            always_bytes: (max_bytes / 4 / clients).max(1),
            held: Mutex::default(),
            freed: Notify::new(),
            work: Semaphore::new((WORK_MAX_BYTES / WORK_UNIT_BYTES) as usize),
        })
    }

    /// Room for so many bytes, or for as many as this client may have now: not less than what it
    /// may always have.
    pub(super) fn try_take(self: &Arc<Self>, client: PeerKey, most_bytes: u64) -> Option<Share> {
        let mut held = self.lock();
        let left = held.left_for(client, self.max_bytes, self.always_bytes);
        if left < most_bytes.min(self.always_bytes) {
            return None;
        }
        let bytes = most_bytes.min(left);
        held.take(client, bytes);
        Some(Share {
            memory: self.clone(),
            client,
            bytes,
        })
    }

    /// The same, once there is any for this client.
    pub(super) async fn take(self: &Arc<Self>, client: PeerKey, most_bytes: u64) -> Share {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(share) = self.try_take(client, most_bytes) {
                return share;
            }
            freed.await;
        }
    }

    /// Room for what an answer is made from; to be dropped before anybody is waited for.
    pub(super) async fn work(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let units = bytes.min(WORK_MAX_BYTES).div_ceil(WORK_UNIT_BYTES);
        self.work.acquire_many(units as u32).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that a client was given, free again when dropped.
pub(super) struct Share {
    memory: Arc<MemoryBudget>,
    client: PeerKey,
    bytes: u64,
}

impl Share {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        self.memory.lock().give_back(self.client, freed);
        self.memory.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Bytes of an answer, with the room that they take up.
pub(super) struct Charged<B> {
    bytes: B,
    _share: Share,
}

impl<B: AsRef<[u8]> + Send + 'static> Charged<B> {
    pub(super) fn answer(bytes: B, share: Share) -> Bytes {
        let _share = share;
        Bytes::from_owner(Charged { bytes, _share })
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Charged<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn clients_that_hold_on_to_much_leave_room_for_the_others() {
        let memory = MemoryBudget::new(64 * MIB, 512);
        let mut held = Vec::new();
        for client in 0..8 {
            while let Some(share) = memory.try_take(PeerKey(client), MIB) {
                held.push(share);
            }
        }
        assert!(held.len() as u64 >= 32, "a long fat path is filled");
        for newcomer in 8..16 {
            let share = memory.try_take(PeerKey(newcomer), MIB).unwrap();
            assert!(share.bytes() > MIB / 2, "newcomer {newcomer}");
            held.push(share);
        }
        drop(held);
        assert_eq!(memory.lock().bytes, 0);
        assert!(memory.lock().by_client.is_empty());
    }

    #[test]
    fn however_many_hold_all_they_can_each_client_has_something() {
        const CLIENTS: u64 = 512;
        const ALWAYS: u64 = 32 << 10;
        let memory = MemoryBudget::new(64 * MIB, CLIENTS as usize);
        let mut held = Vec::new();
        for client in 0..CLIENTS {
            let before = held.len();
            while let Some(share) = memory.try_take(PeerKey(client), MIB) {
                held.push(share);
            }
            let theirs: u64 = held[before..].iter().map(Share::bytes).sum();
            assert!(theirs >= ALWAYS, "client {client} has {theirs} bytes");
            assert!(memory.lock().bytes <= 64 * MIB);
        }
    }

    #[test]
    fn what_is_shrunk_is_free_for_others() {
        let memory = MemoryBudget::new(4 * MIB, 512);
        let mut share = memory.try_take(PeerKey(1), 2 * MIB).unwrap();
        let _rest = memory.try_take(PeerKey(2), MIB).unwrap();
        let before = memory.try_take(PeerKey(3), MIB).unwrap().bytes();
        share.shrink_to(0);
        assert!(before < MIB, "{before}");
        let after = memory.try_take(PeerKey(3), MIB).unwrap().bytes();
        assert!(after > MIB / 2, "{after}");
    }

    #[tokio::test]
    async fn who_waits_is_served_once_there_is_room() {
        let memory = MemoryBudget::new(4 * MIB, 1);
        let held = memory.try_take(PeerKey(1), 2 * MIB).unwrap();
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.take(PeerKey(1), MIB).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
    }
}
