//! The memory that answers use: bounded over all clients, with a part that greedy clients cannot
//! take from others.
//!
//! Bytes are charged from before they are read until their last reference is dropped. QUIC keeps
//! sent data until it is acknowledged, so a client that reads slowly, or not at all, uses memory of
//! this node. Half of the budget is first come, first served, so that one answer can fill a path
//! with a large bandwidth-delay product. A quarter is for clients that hold little. In the last
//! quarter, every client that may connect has a share of its own.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use qshare_swarm::PeerKey;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Bytes that a client may hold as one that holds little: one block of an answer.
const LITTLE_BYTES: u64 = 1 << 20;

/// Limit on the chunk bytes that answers are computed from: two of the largest chunks. A task waits
/// for nothing else while it holds such bytes.
const WORK_MAX_BYTES: u64 = 8 << 20;

/// The unit in which these bytes are counted.
const WORK_UNIT_BYTES: u64 = 16 << 10;

/// Counts the bytes of answers in memory.
pub(super) struct MemoryBudget {
    max_bytes: u64,
    /// Bytes that every client may hold in any case.
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
    /// Returns how much more a client may hold.
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
    /// A budget of `max_bytes` for at most `clients_max` clients.
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

    /// Takes `most_bytes`, or as many as the client may have now. Returns None if that is less than
    /// both `most_bytes` and the share that every client has in any case.
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

    /// Takes memory like [`try_take`](Self::try_take), and waits until it succeeds.
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

    /// Takes memory for the chunk bytes that an answer is computed from. The caller must drop it
    /// before it waits for anything.
    pub(super) async fn work(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let units = bytes.min(WORK_MAX_BYTES).div_ceil(WORK_UNIT_BYTES);
        self.work.acquire_many(units as u32).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that a client holds. Dropping it returns the memory.
pub(super) struct Share {
    memory: Arc<MemoryBudget>,
    client: PeerKey,
    bytes: u64,
}

impl Share {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns all memory but `bytes` to the budget.
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

/// Bytes of an answer, together with the memory that they hold.
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
    fn clients_that_hold_much_leave_memory_for_others() {
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
    fn each_client_has_a_share_however_much_others_hold() {
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
    fn memory_that_is_returned_is_free_for_others() {
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
    async fn a_client_that_waits_is_served_once_memory_is_free() {
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
