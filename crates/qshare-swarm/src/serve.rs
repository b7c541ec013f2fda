//! The server's side, over all contents and clients: which request to answer next.

use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, ContentId};

use crate::{PeerKey, Ticket};

/// Settings of a [`Serve`].
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Requests that one client may have waiting; more are refused as busy.
    pub waiting_max_per_client: u32,
    /// Requests that may wait over all clients.
    pub waiting_max: u32,
    /// Responses that may be under way while those before them are blocked.
    pub active_max: u32,
    /// What a refused client is told to wait before it asks again.
    pub retry_after: Duration,
    /// Contents whose served counts are remembered; the least recently asked for is forgotten.
    pub contents_max: usize,
}

impl Default for ServeConfig {
    fn default() -> ServeConfig {
        ServeConfig {
            waiting_max_per_client: 256,
            waiting_max: 2048,
            active_max: 6,
            retry_after: Duration::from_millis(200),
            contents_max: 64,
        }
    }
}

/// The request is refused: too much is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// When to ask again.
    pub retry_after: Duration,
}

/// What a node answers next, over all contents and clients.
#[derive(Debug)]
pub struct Serve {
    config: ServeConfig,
    seed: u64,
}

#[allow(unused_variables, missing_docs)]
impl Serve {
    pub fn new(config: ServeConfig, seed: u64) -> Serve {
        Serve { config, seed }
    }
    pub fn handle_request(
        &mut self,
        now: Instant,
        client: PeerKey,
        content: ContentId,
        chunk: ChunkIndex,
        bytes: u64,
    ) -> Result<Ticket, Busy> {
        Err(Busy {
            retry_after: self.config.retry_after,
        })
    }
    pub fn handle_withdraw(&mut self, ticket: Ticket) -> bool {
        false
    }
    pub fn handle_blocked(&mut self, now: Instant, ticket: Ticket) {}
    pub fn handle_unblocked(&mut self, now: Instant, ticket: Ticket) {}
    pub fn handle_finished(&mut self, now: Instant, ticket: Ticket, bytes_sent: u64) {}
    pub fn handle_client_left(&mut self, now: Instant, client: PeerKey) {}
    pub fn poll_start(&mut self, now: Instant) -> Option<Ticket> {
        None
    }
    pub fn queue_bytes(&self) -> u64 {
        0
    }
}
