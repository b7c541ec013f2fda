//! What a download writes: how, when it becomes durable, and the end of the file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_storage::{FinishError, Part, PartError, PrefixDigest, ReadError};
use qshare_swarm::Fetch;
use tracing::debug;

use super::event::{Event, resume};
use super::store::Store;
use super::{Swarm, finished};
use crate::downloads::received::report_received;
use crate::downloads::reuse::Reuse;
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::vocabulary::{Report, Stage};

/// Shortest file that may be written around the page cache. A shorter one is likely to be read
/// soon, and is copied in a fraction of a second.
const WRITTEN_AROUND_CACHE_MIN: u64 = 1 << 30;

impl Swarm<'_> {
    /// Writes a large file around the page cache while nobody is likely to read it: there is one
    /// source, no peer wants chunks, and no digest is computed from the file.
    pub(super) fn choose_writes(&self) {
        if let (Store::Part(part), Some(partial)) = (&self.store, &self.partial) {
            let is_read = partial.availability.has_subscribers()
                || self.peers.len() > 1
                || self.digest.is_some()
                || self.request.keep_serving;
            let is_large = self.request.info.length >= WRITTEN_AROUND_CACHE_MIN;
            part.write_around_cache(is_large && !is_read);
        }
    }

    /// Makes verified chunks durable at intervals.
    pub(super) fn checkpoint(&mut self) {
        let limits = &self.all.limits;
        let due = self.last_checkpoint.elapsed() >= limits.checkpoint_interval
            || self.unflushed_bytes >= limits.checkpoint_bytes;
        if !due || self.checkpointing || self.unflushed_bytes == 0 {
            return;
        }
        let Store::Part(part) = &self.store else {
            return;
        };
        let part = part.clone();
        self.checkpointing = true;
        self.unflushed_bytes = 0;
        self.last_checkpoint = Instant::now();
        self.spawn_write(move || match part.checkpoint() {
            Err(PartError::Disk(error)) => Event::Disk(error),
            _ => Event::Checkpointed,
        });
    }

    /// Adds chunks that were verified to the plain digest, on a blocking thread.
    pub(super) fn advance_digest(&mut self) {
        let (Store::Part(part), Some(digest)) = (&self.store, &self.digest) else {
            return;
        };
        if self.digesting {
            return;
        }
        let (part, digest) = (part.clone(), digest.clone());
        if part.is_verified(locked(&digest).next()) {
            self.digesting = true;
            self.spawn_write(move || {
                // A failure to read shows again at the end, where it is reported.
                let _ = locked(&digest).advance(&part);
                Event::Digested
            });
        }
    }

    /// Runs blocking work on the part, and handles the event that it returns.
    pub(super) fn spawn_write(&mut self, work: impl FnOnce() -> Event + Send + 'static) {
        let written = self.writes.spawn_blocking(work);
        let events = self.events.clone();
        self.tasks.spawn(async move {
            match written.await {
                Ok(event) => _ = events.send(event).await,
                Err(lost) => resume(lost),
            }
        });
    }

    pub(super) async fn finish(self) -> Result<Report, DownloadError> {
        self.state.set_stage(Stage::Finishing);
        let (Store::Part(part), Some(partial)) = (&self.store, &self.partial) else {
            let text = "a stream was finished like a file";
            return Err(DownloadError::Internal(text.into()));
        };
        if let Err(error) = self.check_digest(part).await {
            self.withdraw_partial();
            return Err(error);
        }
        let (part, durability) = (part.clone(), self.request.durability);
        let finish = move || {
            let hashes = part.hashes().ok().flatten().unwrap_or_default();
            part.finish(durability).map(|path| (path, hashes))
        };
        let (shares, name) = (&self.all.shares, &self.request.name);
        let (path, hashes) = match blocking(finish).await {
            Ok(finished) => finished,
            Err(error) => {
                shares.withdraw(name, partial);
                return Err(match error {
                    FinishError::Different(path) => DownloadError::Different { path },
                    FinishError::Disk(error) => error.into(),
                    FinishError::Incomplete { .. } => DownloadError::Internal(error.to_string()),
                });
            }
        };
        // Announced as complete before it is withdrawn as partial, so that it never vanishes.
        shares
            .adopt(finished(self.request, path.clone(), hashes))
            .await;
        shares.withdraw_adopted(name, partial);
        if self.request.reports_received() {
            let peers = self.peers.values().map(|connected| connected.peer.clone());
            report_received(peers.collect(), &self.access).await;
        }
        let status = self.fetch.as_ref().map(Fetch::status).unwrap_or_default();
        let reused_bytes = self.reuse.as_ref().map_or(0, Reuse::bytes);
        Ok(Report {
            content: self.content,
            name: name.clone(),
            size_bytes: self.request.info.length,
            path,
            elapsed: self.state.elapsed(),
            resumed_bytes: self.resumed_bytes.saturating_sub(reused_bytes),
            reused_bytes,
            received_bytes: status.received_bytes,
            wasted_bytes: status.wasted_bytes,
            sources: self.meter.into_sources(),
            already_there: false,
            files: None,
        })
    }

    /// Compares the plain digest of the complete part with the required one. If it is another, the
    /// part is deleted.
    async fn check_digest(&self, part: &Arc<Part>) -> Result<(), DownloadError> {
        let Some(digest) = self.digest.clone() else {
            return Ok(());
        };
        let finish_part = part.clone();
        let found = blocking(move || locked(&digest).finish(&finish_part)).await;
        let checked = match found {
            Ok(found) => self.request.check_digest(found),
            Err(ReadError::Disk(error)) => return Err(error.into()),
            Err(error) => return Err(DownloadError::Internal(error.to_string())),
        };
        if checked.is_err() {
            let part = part.clone();
            if let Err(error) = blocking(move || part.discard()).await {
                debug!(%error, "the part was not deleted");
            }
        }
        checked
    }
}

fn locked(digest: &Mutex<PrefixDigest>) -> MutexGuard<'_, PrefixDigest> {
    digest.lock().unwrap_or_else(PoisonError::into_inner)
}
