//! The chunk hashes, page by page, before anything else can be verified.

use std::time::{Duration, Instant};

use qshare_content::{Hash, tree};
use qshare_net::framed;
use qshare_swarm::{DropReason, PeerKey};
use qshare_wire::peer::{HashRequest, Hashes};
use tokio::time::timeout;
use tracing::debug;

use super::{ANSWER_DEADLINE, Event, Swarm};

/// Pause before holders that had no hashes are asked again.
const HASHES_AGAIN: Duration = Duration::from_millis(500);

/// The chunk hashes as far as they are known, before the scheduler can begin.
#[derive(Default)]
pub(super) struct HashPages {
    pub(super) pages: Vec<Vec<Hash>>,
    pub(super) asking: bool,
    pub(super) again_at: Option<Instant>,
}

impl Swarm<'_> {
    /// Asks one of those who are there for the next page of chunk hashes.
    pub(super) fn ask_for_hashes(&mut self) {
        let again_at = self.hash_pages.again_at;
        if self.fetch.is_some()
            || self.hash_pages.asking
            || again_at.is_some_and(|at| at > Instant::now())
        {
            return;
        }
        if again_at.is_some() {
            self.hash_pages.again_at = None;
            self.peers
                .values_mut()
                .for_each(|connected| connected.asked_for_hashes = false);
        }
        let fresh = self
            .peers
            .values_mut()
            .find(|connected| !connected.asked_for_hashes);
        let Some(connected) = fresh else {
            if !self.peers.is_empty() {
                self.hash_pages.again_at = Some(Instant::now() + HASHES_AGAIN);
            }
            return;
        };
        connected.asked_for_hashes = true;
        self.hash_pages.asking = true;
        let page = self.hash_pages.pages.len() as u32;
        let request = HashRequest {
            content: self.content,
            page,
            extensions: Vec::new(),
        };
        let (peer, events) = (connected.peer.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let _busy = peer.busy();
            let connection = peer.connection();
            let asked = framed::ask::<HashRequest, Hashes>(&connection, &request);
            let result = match timeout(ANSWER_DEADLINE, asked).await {
                Ok(Ok((hashes, ..))) => Ok(hashes),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no hashes in time".into()),
            };
            let _ = events
                .send(Event::Hashes {
                    peer: peer.key,
                    page,
                    result,
                })
                .await;
        });
    }

    pub(super) fn handle_hashes(
        &mut self,
        key: PeerKey,
        page: u32,
        result: Result<Hashes, String>,
    ) {
        self.hash_pages.asking = false;
        let Some(connected) = self.peers.get_mut(&key) else {
            return;
        };
        let hashes = match result {
            Ok(hashes) => hashes,
            Err(cause) => {
                debug!(peer = %connected.peer.node, %cause, "no hashes");
                self.give_up_place(key, "it has no hashes");
                return;
            }
        };
        let root = &self.request.info.root;
        if !tree::verify_page(&self.chunks, root, page, &hashes.hashes, &hashes.path) {
            self.drop_peer(key, DropReason::Corrupt);
            return;
        }
        // It proved useful: ask it for the next one, too.
        connected.asked_for_hashes = false;
        self.hash_pages.pages.push(hashes.hashes);
        if self.hash_pages.pages.len() as u32 == tree::page_count(&self.chunks) {
            self.hash_pages.asking = true;
            let hashes = std::mem::take(&mut self.hash_pages.pages).concat();
            let (part, events) = (self.part.clone(), self.events.clone());
            self.writes.spawn_blocking(move || {
                let _ = events.blocking_send(Event::HashesKept(part.set_hashes(hashes)));
            });
        }
    }
}
