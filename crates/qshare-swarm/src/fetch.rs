//! The client's side of one content: what to ask of whom.

mod action;
mod config;
mod status;

use std::time::Instant;

use qshare_content::{Bitmap, ChunkIndex, Chunks};

use crate::{PeerKey, RequestId};
pub use action::{DropReason, FetchAction, Refusal};
pub use config::FetchConfig;
pub use status::{FetchStatus, PeerStatus};

/// The download of one content from many peers.
///
/// Every `handle_*` is total: what names an unknown peer or a void request is ignored.
#[derive(Debug)]
pub struct Fetch {
    chunks: Chunks,
    verified: Bitmap,
    config: FetchConfig,
    seed: u64,
}

#[allow(unused_variables, missing_docs, clippy::new_without_default)]
impl Fetch {
    pub fn new(chunks: Chunks, verified: Bitmap, config: FetchConfig, seed: u64) -> Fetch {
        Fetch {
            chunks,
            verified,
            config,
            seed,
        }
    }
    pub fn handle_peer_joined(&mut self, now: Instant, peer: PeerKey) {}
    pub fn handle_have_all(
        &mut self,
        now: Instant,
        peer: PeerKey,
        chunks: Bitmap,
        queue_bytes: u64,
    ) {
    }
    pub fn handle_have(
        &mut self,
        now: Instant,
        peer: PeerKey,
        chunks: &[ChunkIndex],
        queue_bytes: u64,
    ) {
    }
    pub fn handle_peer_left(&mut self, now: Instant, peer: PeerKey) {}
    pub fn handle_started(&mut self, now: Instant, request: RequestId) {}
    pub fn handle_progress(&mut self, now: Instant, request: RequestId, bytes: u64) {}
    pub fn handle_received(&mut self, now: Instant, request: RequestId) {}
    pub fn handle_verified(&mut self, now: Instant, request: RequestId) -> Option<ChunkIndex> {
        None
    }
    pub fn handle_corrupt(&mut self, now: Instant, request: RequestId) {}
    pub fn handle_refused(&mut self, now: Instant, request: RequestId, refusal: Refusal) {}
    pub fn handle_withdrawn(&mut self, now: Instant, request: RequestId) {}
    pub fn handle_failed(&mut self, now: Instant, request: RequestId) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn poll_action(&mut self, now: Instant) -> Option<FetchAction> {
        None
    }
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
    pub fn verified(&self) -> &Bitmap {
        &self.verified
    }
    pub fn is_complete(&self) -> bool {
        self.verified.is_full()
    }
    pub fn status(&self) -> FetchStatus {
        FetchStatus::default()
    }
}
