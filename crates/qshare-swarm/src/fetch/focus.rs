//! Readers that want certain chunks first, in order: a sequential window ahead of rarest-first.

use std::time::Instant;

use qshare_content::ChunkIndex;

use super::Fetch;
use crate::{FetchAction, RequestId};

/// The chunks that readers wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Focus {
    /// The most urgent chunk first. Chunks that are verified or requested already are passed over.
    pub chunks: Vec<ChunkIndex>,
    /// Whether no other chunks are wanted. Otherwise the rarest ones are requested from peers that
    /// hold none of these.
    pub is_exclusive: bool,
}

impl Fetch {
    /// Replaces the focus. None requests the rarest chunks only. With an exclusive focus, requests
    /// of other chunks are abandoned unless all of their bytes have arrived, and spans of other
    /// chunks that were verified on their own are forgotten.
    pub fn set_focus(&mut self, now: Instant, focus: Option<Focus>) {
        self.focus = focus;
        if self.focus.as_ref().is_some_and(|focus| focus.is_exclusive) {
            self.abandon_unwanted(now);
        }
        let live = self.peers.iter().filter(|(_, peer)| peer.dropped.is_none());
        self.ready.extend(live.map(|(&key, _)| key));
    }

    /// Records that a verified chunk was discarded: it is missing again.
    pub fn handle_discarded(&mut self, chunk: ChunkIndex) {
        if self.verified.remove(chunk) {
            self.verified_bytes -= self.chunks.size(chunk);
            self.pool.open(chunk);
            self.mark_holders_ready(chunk);
        }
    }

    /// Returns whether a peer holds one of the chunks in the focus that are missing. True if none
    /// of them is missing.
    pub fn focus_is_held(&self) -> bool {
        let Some(focus) = &self.focus else {
            return true;
        };
        let mut missing = focus
            .chunks
            .iter()
            .filter(|&&chunk| !self.verified.contains(chunk))
            .peekable();
        missing.peek().is_none() || missing.any(|&chunk| self.pool.holders(chunk) > 0)
    }

    /// Returns whether a chunk may be requested.
    pub(super) fn is_wanted(&self, chunk: ChunkIndex) -> bool {
        self.focus
            .as_ref()
            .is_none_or(|focus| !focus.is_exclusive || focus.chunks.contains(&chunk))
    }

    /// Cancels everything about chunks outside of an exclusive focus.
    fn abandon_unwanted(&mut self, now: Instant) {
        let split: Vec<ChunkIndex> = self
            .splits
            .keys()
            .copied()
            .filter(|&chunk| !self.is_wanted(chunk))
            .collect();
        let unwanted: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                let chunk = request.span.chunk;
                let is_unwanted = request.is_outstanding() && !self.is_wanted(chunk);
                is_unwanted || split.contains(&chunk)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in unwanted {
            let is_announced = self.requests.get(&id).is_some_and(|it| it.is_announced);
            let Some(request) = self.end(id) else {
                continue;
            };
            self.wasted_bytes += request.arrived_bytes;
            if is_announced {
                self.actions.push_back(FetchAction::Abandon { request: id });
            }
            if request.is_outstanding() {
                self.handle_alive(now, request.peer);
            }
            if request.span.is_whole(&self.chunks) {
                self.pool.open(request.span.chunk);
            }
        }
        for chunk in split {
            self.splits.remove(&chunk);
            self.pool.open(chunk);
        }
    }
}
