//! Answers requests for a page of chunk hashes, at most 128 KiB, with the memory budget of answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qshare_content::tree;
use qshare_wire::peer::{HashRequest, Hashes};
use qshare_wire::{Frame, Refusal, Refused};
use quinn::{SendStream, VarInt};
use tokio::time::timeout;
use tracing::debug;

use super::counters::Counters;
use super::memory_budget::{Charged, MemoryBudget, Share};
use super::refuse::{busy, find, refuse_read};
use super::unlock::UnlockedTopics;
use crate::peers::Peer;
use crate::runtime::blocking;
use crate::shares::{Holding, ShareStore};

/// The bytes of a page's hashes and of its proof.
const PAGE_MAX_BYTES: u64 = (tree::PAGE_CHUNKS as u64 + 64) * 32;
/// A page that the other side has not read after this time is abandoned.
const DEADLINE: Duration = Duration::from_secs(15);
/// Retry time that is sent if there is no memory. A client requests few pages at a time.
const RETRY_MS: u32 = 200;

/// Answers requests for chunk hashes.
pub(super) struct HashAnswers {
    pub(super) shares: Arc<ShareStore>,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) counters: Arc<Counters>,
}

impl HashAnswers {
    /// Answers with a page of chunk hashes and its proof.
    pub(super) async fn answer(
        &self,
        peer: &Peer,
        unlocked: &UnlockedTopics,
        request: HashRequest,
        send: &mut SendStream,
    ) -> Result<(), Refused> {
        let holding = find(&self.shares, unlocked, &request.content)?;
        let share = self
            .memory
            .try_take(peer.key, PAGE_MAX_BYTES)
            .ok_or_else(|| busy("too many pages of hashes under way", RETRY_MS))?;
        let (first, length) = self.part(&holding, request.page, 0, share).await?;
        let _under_way = self.counters.begin();
        let _busy = peer.busy();
        let sent = async {
            let mut sent = first.len();
            send.write_chunk(first).await.ok()?;
            while sent < length {
                let share = self.memory.take(peer.key, (length - sent) as u64).await;
                let next = self.part(&holding, request.page, sent, share).await;
                let (next, _) = next.ok().filter(|(next, _)| !next.is_empty())?;
                sent += next.len();
                send.write_chunk(next).await.ok()?;
            }
            send.finish().ok()?;
            send.stopped().await.ok()
        };
        match timeout(DEADLINE, sent).await {
            Ok(Some(_)) => {}
            Ok(None) => _ = send.reset(VarInt::from_u32(0)),
            Err(_) => {
                debug!(peer = %peer.node, "a page of hashes was not read in time");
                let _ = send.reset(VarInt::from_u32(0));
            }
        }
        Ok(())
    }

    /// Returns the bytes of an encoded page from `from` on, as many as `share` has room for, and
    /// the length of the whole page. The page is read again for each part, so that nothing is kept
    /// beyond its share of memory.
    async fn part(
        &self,
        holding: &Holding,
        page: u32,
        from: usize,
        mut share: Share,
    ) -> Result<(Bytes, usize), Refused> {
        let _work = self.memory.work(PAGE_MAX_BYTES).await;
        let (shares, holding) = (self.shares.clone(), holding.clone());
        let page = blocking(move || shares.hash_page(&holding, page));
        let page = page.await.map_err(|error| refuse_read(&error))?;
        let message = Hashes {
            hashes: page.hashes,
            path: page.path,
        };
        let mut bytes = Frame::encode(&message).map_err(|_| Refused::new(Refusal::Failed))?;
        let length = bytes.len();
        let end = length.min(from.saturating_add(share.bytes() as usize));
        if from > 0 || end < length {
            bytes = bytes.get(from..end).unwrap_or_default().to_vec();
        }
        share.shrink_to(bytes.len() as u64);
        Ok((Charged::answer(bytes, share), length))
    }
}
