//! What answers hold in memory: a bound over all, and room in it that the greedy cannot take.
//!
//! Bytes are charged from before they are read until their last holder drops them: QUIC holds what
//! it sends until it is acknowledged, so that whoever reads slowly, or not at all, holds memory of
//! ours. Half of the room is for whoever comes first, so that a long fat path can be filled; the
//! other half is for those who hold little.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_swarm::PeerKey;
use tokio::sync::Notify;

use crate::buffers::Buffer;

/// What one client may hold of the room that is kept for those who hold little: one block of an
/// answer. Whoever holds nothing may take what a single answer needs, if that is more.
const LITTLE_BYTES: u64 = 1 << 20;

/// The bytes of answers in memory.
pub(super) struct Memory {
    max_bytes: u64,
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    bytes: u64,
    by_client: HashMap<PeerKey, u64>,
}

impl Held {
    fn take(&mut self, max_bytes: u64, client: PeerKey, bytes: u64) -> bool {
        let theirs = self.by_client.get(&client).copied().unwrap_or(0);
        let after = self.bytes.saturating_add(bytes);
        let holds_little = theirs == 0 || theirs.saturating_add(bytes) <= LITTLE_BYTES;
        // What is larger than all room is answered alone.
        let fits = after <= max_bytes || self.bytes == 0;
        if !fits || (after > max_bytes / 2 && !holds_little) {
            return false;
        }
        self.bytes = after;
        *self.by_client.entry(client).or_default() += bytes;
        true
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

impl Memory {
    pub(super) fn new(max_bytes: u64) -> Arc<Memory> {
        Arc::new(Memory {
            max_bytes,
            held: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Room for so many bytes, if there is any for this client now.
    pub(super) fn try_take(self: &Arc<Self>, client: PeerKey, bytes: u64) -> Option<Share> {
        let taken = self.lock().take(self.max_bytes, client, bytes);
        taken.then(|| Share {
            memory: self.clone(),
            client,
            bytes,
        })
    }

    /// Room for so many bytes, once there is any for this client.
    pub(super) async fn take(self: &Arc<Self>, client: PeerKey, bytes: u64) -> Share {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(share) = self.try_take(client, bytes) {
                return share;
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that a client was given, free again when dropped.
pub(super) struct Share {
    memory: Arc<Memory>,
    client: PeerKey,
    bytes: u64,
}

impl Share {
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
pub(super) struct Charged {
    bytes: Storage,
    share: Share,
}

enum Storage {
    Buffer(Buffer),
    Part(Box<[u8]>),
}

impl Charged {
    pub(super) fn new(buffer: Buffer, share: Share) -> Charged {
        Charged {
            bytes: Storage::Buffer(buffer),
            share,
        }
    }

    /// Drops all but a part, and the room for it.
    pub(super) fn keep(&mut self, part: Range<usize>) {
        let kept: Box<[u8]> = self.as_ref().get(part).unwrap_or_default().into();
        self.share.shrink_to(kept.len() as u64);
        self.bytes = Storage::Part(kept);
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        match &self.bytes {
            Storage::Buffer(buffer) => buffer,
            Storage::Part(part) => part,
        }
    }
}

impl AsMut<[u8]> for Charged {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.bytes {
            Storage::Buffer(buffer) => buffer,
            Storage::Part(part) => part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn clients_that_hold_on_to_much_leave_room_for_the_others() {
        let memory = Memory::new(32 * MIB);
        let mut held = Vec::new();
        for client in 0..8 {
            while let Some(share) = memory.try_take(PeerKey(client), MIB) {
                held.push(share);
            }
        }
        assert!(held.len() as u64 >= 16, "a long fat path is filled");
        for newcomer in 8..16 {
            let share = memory.try_take(PeerKey(newcomer), MIB);
            assert!(share.is_some(), "newcomer {newcomer}");
            held.extend(share);
        }
        drop(held);
        assert_eq!(memory.lock().bytes, 0);
        assert!(memory.lock().by_client.is_empty());
    }

    #[test]
    fn what_is_shrunk_is_free_for_others() {
        let memory = Memory::new(4 * MIB);
        let mut share = memory.try_take(PeerKey(1), 4 * MIB).unwrap();
        assert!(memory.try_take(PeerKey(2), MIB).is_none());
        share.shrink_to(MIB);
        assert!(memory.try_take(PeerKey(2), MIB).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_served_once_there_is_room() {
        let memory = Memory::new(2 * MIB);
        let held = memory.try_take(PeerKey(1), 2 * MIB).unwrap();
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.take(PeerKey(2), MIB).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
    }
}
