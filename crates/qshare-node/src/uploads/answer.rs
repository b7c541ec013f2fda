//! Answering a chunk request.

use std::sync::Arc;

use qshare_content::Chunks;
use qshare_wire::peer::{ChunkData, ChunkRequest};
use qshare_wire::{Refusal, Refused};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;
use tracing::{debug, trace};

use super::counters::Counters;
use super::pacing::{PIECE_DEADLINE, Pacing, write_head, write_piece};
use super::queue::UploadQueue;
use super::reader::{First, ReadAccess, Reader, Subtree};
use super::refuse::{busy, find};
use super::unlock::UnlockedTopics;
use crate::peers::Peer;

/// Answers chunk requests.
pub(super) struct ChunkAnswers {
    pub(super) access: ReadAccess,
    pub(super) queue: Arc<UploadQueue>,
    pub(super) pacing: Pacing,
    pub(super) counters: Arc<Counters>,
}

impl ChunkAnswers {
    /// Queues a request, and answers it when its turn comes.
    pub(super) async fn answer(
        &self,
        peer: &Peer,
        unlocked: &UnlockedTopics,
        request: ChunkRequest,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), Refused> {
        let holding = find(&self.access.shares, unlocked, &request.content)?;
        let audiences = self.access.shares.audiences();
        let chunks = Chunks::of_length(holding.info().length);
        // Nobody follows a content of one chunk.
        let is_single = chunks.count() == 1;
        let audience = holding.audience(request.content);
        // A member is counted with its collection, which is followed.
        let is_counted = is_single && audience == request.content;
        let _receiving = is_counted.then(|| audiences.begin(&request.content));
        let wanted = Subtree::new(&chunks, request.height, request.index)
            .ok_or_else(|| Refused::new(Refusal::Invalid))?;
        if !holding.has(wanted.chunk) {
            return Err(Refused::new(Refusal::NotYet));
        }
        let bytes = wanted.bytes();
        let queued = self
            .queue
            .enqueue(peer.key, request.content, wanted.chunk, bytes);
        let (mut turn, mut start) = queued.map_err(|error| {
            let retry_ms = u32::try_from(error.retry_after.as_millis()).unwrap_or(u32::MAX);
            busy("", retry_ms)
        })?;
        let mut stopped = std::pin::pin!(send.stopped());
        let mut withdrawable = true;
        loop {
            tokio::select! {
                biased;
                started = &mut start => {
                    started.map_err(|_| Refused::new(Refusal::Failed))?;
                    break;
                }
                _ = &mut stopped => return Ok(()),
                reset = recv.received_reset(), if withdrawable => {
                    withdrawable = false;
                    if matches!(reset, Ok(Some(_))) && turn.withdraw() {
                        return Err(Refused::new(Refusal::Withdrawn));
                    }
                }
            }
        }

        let _under_way = self.counters.begin();
        let reader = Reader {
            access: &self.access,
            client: peer.key,
            holding,
            chunks,
            chunk: wanted.chunk,
        };
        let levels = usize::from(request.path_levels);
        let first = tokio::select! {
            biased;
            first = reader.first(&turn, &wanted, request.height, levels) => first?,
            _ = &mut stopped => return Ok(()),
        };

        let _busy = peer.busy();
        let First { data, path, later } = first;
        let connection = peer.connection();
        let sending = self.pacing.sending(&connection).code();
        let head = ChunkData {
            bytes,
            path,
            sending,
        };
        let written = tokio::select! {
            biased;
            written = write_head(&turn, send, &head) => written,
            _ = &mut stopped => false,
        };
        if !written {
            let _ = send.reset(VarInt::from_u32(0));
            return Ok(());
        }
        let mut rest = data;
        let mut unread = later;
        while !rest.is_empty() {
            let piece_bytes = self.pacing.next_piece_bytes(&connection);
            let piece = rest.split_to(rest.len().min(piece_bytes));
            let length = piece.len() as u64;
            let running_max = self.queue.running_max();
            let written = tokio::select! {
                biased;
                written = write_piece(&turn, running_max, &connection, send, piece) => written,
                // quinn does not reset a stream by itself when the other side stops it.
                _ = &mut stopped => false,
            };
            if !written {
                let _ = send.reset(VarInt::from_u32(0));
                return Ok(());
            }
            turn.sent_bytes += length;
            self.counters.add_sent(length);
            audiences.add_sent(&audience, length);
            if rest.is_empty() && !unread.is_empty() {
                let block = tokio::select! {
                    biased;
                    block = reader.block(&turn, &mut unread) => block.ok(),
                    _ = &mut stopped => None,
                };
                let Some(block) = block else {
                    // The header promised more data; only a reset can revoke it.
                    let _ = send.reset(VarInt::from_u32(0));
                    return Ok(());
                };
                rest = block;
            }
        }
        let _ = send.finish();
        let stats = connection.connection.stats();
        trace!(
            peer = %peer.node,
            chunk = wanted.chunk.0,
            rtt = ?stats.path.rtt,
            window = stats.path.cwnd,
            lost = stats.path.lost_packets,
            sent = stats.path.sent_packets,
            shrunk = stats.path.congestion_events,
            blocked = stats.frame_tx.data_blocked,
            queue = self.queue.bytes(),
            "answered"
        );
        // The next answer may start. The memory of this one is freed as the peer acknowledges it.
        drop(turn);
        if timeout(2 * PIECE_DEADLINE, stopped).await.is_err() {
            debug!(peer = %peer.node, "an answer was not acknowledged in time");
            let _ = send.reset(VarInt::from_u32(0));
        }
        Ok(())
    }
}
