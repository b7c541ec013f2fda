//! The roster of a node: its downloads as its user sees them, paused and ended ones included.

use std::sync::Arc;

use qshare_content::{Bitmap, ChunkIndex, Chunks};
use qshare_net::RateLimit;
use qshare_storage::DiskError;
use tokio::sync::watch;

use super::Node;
use crate::downloads::{
    Download, DownloadId, DownloadRequest, NoSuchDownload, Priority, RemoveError, Roster,
    RosterChanges, RosterCounts, RosterPage, RosterRow, RosterState,
};
use crate::vocabulary::DownloadStatus;

/// The downloads of a [`Node`] that shares directories: those that run, that are paused, that have
/// failed, and the last thousand that are complete. Clones are the same roster.
///
/// Every change is saved within a second or so; [`saved`](Self::saved) waits for it.
#[derive(Clone)]
pub struct Downloads(Arc<Roster>);

/// The verified chunks of a download.
#[derive(Debug, Clone)]
pub struct VerifiedChunks {
    /// Length of a chunk in bytes; the last one may be shorter. 0 for a folder, whose chunks are
    /// its files.
    pub chunk_bytes: u64,
    /// Those that are verified.
    pub verified: Bitmap,
}

impl Node {
    /// Returns the roster; None for a one-shot node, whose owner has the handles of its downloads.
    pub fn roster(&self) -> Option<Downloads> {
        self.parts.roster.clone().map(Downloads)
    }
}

impl Downloads {
    /// Begins a download, or resumes it, or returns the running one of the same content to the same
    /// target.
    pub fn begin(&self, request: DownloadRequest) -> Download {
        self.0.begin(request)
    }

    /// Lists a download without beginning it. Returns false if it is listed already.
    pub fn add_paused(&self, request: DownloadRequest) -> bool {
        self.0.add_paused(request)
    }

    /// Pauses a download, which stays paused after a restart. Returns whether it ran.
    ///
    /// # Errors
    ///
    /// When there is no such download.
    pub fn pause(&self, id: &DownloadId) -> Result<bool, NoSuchDownload> {
        self.0.pause(id)
    }

    /// Resumes a download that is paused or has failed. Returns whether it did not run.
    ///
    /// # Errors
    ///
    /// When there is no such download.
    pub fn resume(&self, id: &DownloadId) -> Result<bool, NoSuchDownload> {
        self.0.resume(id)
    }

    /// Changes the priority and the rate limit of a download, where they are given; they stay after
    /// a restart.
    ///
    /// # Errors
    ///
    /// When there is no such download.
    pub fn set_rates(
        &self,
        id: &DownloadId,
        priority: Option<Priority>,
        limit: Option<RateLimit>,
    ) -> Result<(), NoSuchDownload> {
        match self.0.set_rates(id, priority, limit) {
            true => Ok(()),
            false => Err(NoSuchDownload),
        }
    }

    /// Removes downloads. With `files`, deletes what was fetched: unfinished data, or the file of a
    /// complete download unless it was changed since. Without, the data is kept, and is used when
    /// the download is added again. Returns how many were removed.
    ///
    /// # Errors
    ///
    /// [`RemoveError::NoSuchDownload`]: nothing was changed. [`RemoveError::Disk`]: all were
    /// removed, but the data of at least one is still there.
    pub async fn remove(&self, ids: &[DownloadId], files: bool) -> Result<usize, RemoveError> {
        self.0.remove(ids, files).await
    }

    /// Returns one download.
    pub fn get(&self, id: &DownloadId) -> Option<RosterRow> {
        self.0.get(id)
    }

    /// Returns the progress, the peers and the requests of a running download.
    pub fn status(&self, id: &DownloadId) -> Option<DownloadStatus> {
        self.0.running(id).map(|download| download.status())
    }

    /// Returns the verified chunks of a download; None if they are not known yet. Of a download
    /// that does not run, those that are durable. Of a folder, the files that are there.
    pub async fn chunks(&self, id: &DownloadId) -> Option<VerifiedChunks> {
        let row = self.get(id)?;
        let verified = self.0.chunks(id).await?;
        let chunks = Chunks::of_length(row.info.length);
        let chunk_bytes = match row.is_folder {
            true => 0,
            false => chunks.size(ChunkIndex(0)),
        };
        Some(VerifiedChunks {
            chunk_bytes,
            verified,
        })
    }

    /// Returns up to `limit` downloads that `wanted` accepts, after a cursor; 0 begins.
    pub fn page(
        &self,
        after: u64,
        limit: usize,
        wanted: impl Fn(&RosterRow) -> bool,
    ) -> RosterPage {
        self.0.page(after, limit, wanted)
    }

    /// Returns the IDs of all downloads in the states that `wanted` accepts, oldest first.
    pub fn ids(&self, wanted: impl Fn(RosterState) -> bool) -> Vec<DownloadId> {
        self.0.ids(wanted)
    }

    /// Returns what changed since a revision, in at most `max` rows; 0 stands for everything. The
    /// work is proportional to the changes, not to the number of downloads.
    pub fn changes(&self, since: u64, max: usize) -> RosterChanges {
        self.0.changes(since, max)
    }

    /// Returns a watch of the revision, which grows with every change that a person would see.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }

    /// Returns the number of downloads by state.
    pub fn counts(&self) -> RosterCounts {
        self.0.counts()
    }

    /// Waits until every change so far would survive a crash.
    ///
    /// # Errors
    ///
    /// When the list cannot be written.
    pub async fn saved(&self) -> Result<(), DiskError> {
        self.0.saved().await
    }
}
