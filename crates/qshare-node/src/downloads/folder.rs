//! Downloads of folders, as the other downloads see them. `collections` runs them.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

use qshare_content::{Bitmap, ContentInfo};
use qshare_storage::DiskError;
use serde::{Deserialize, Serialize};

use super::download::{Download, DownloadState};
use super::rates::Rates;
use super::request::DownloadRequest;
use crate::vocabulary::{FileCounts, Progress, Report, Stage, SwarmView};

/// What makes a download that of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderTerms {
    /// Length and root of the folder's modification times, if they are known.
    pub times: Option<ContentInfo>,
    /// Globs of the files that are wanted; all, if there are none.
    pub include: Vec<String>,
    /// Globs of files that are not wanted.
    pub exclude: Vec<String>,
    /// Whether the folder's owner decides which files are executable.
    pub keeps_exec: bool,
    /// What an earlier run knew about it.
    pub(super) known: KnownFolder,
}

/// What an earlier run knew about a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct KnownFolder {
    pub(super) total_bytes: u64,
    pub(super) verified_bytes: u64,
    pub(super) files: FileCounts,
}

impl FolderTerms {
    /// Requests all files of a folder.
    pub fn new(times: Option<ContentInfo>) -> FolderTerms {
        FolderTerms {
            times,
            include: Vec::new(),
            exclude: Vec::new(),
            keeps_exec: true,
            known: KnownFolder::default(),
        }
    }
}

/// A future that can be awaited through a trait object.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs the downloads of folders.
pub(crate) trait Folders: Send + Sync {
    /// Begins a download, or returns the running one.
    fn begin(&self, request: DownloadRequest) -> Download;

    /// Deletes what was fetched by a download that does not run, and stops serving it.
    fn delete(&self, request: DownloadRequest) -> Boxed<Result<(), DiskError>>;

    /// Serves the private folders of earlier runs, except the `unfinished` ones, by their download
    /// IDs. Deletes the lists of folders that no download needs.
    fn restore(&self, unfinished: Vec<String>) -> Boxed<()>;
}

/// The running download of a folder, as its task sees it.
#[derive(Clone)]
pub(crate) struct RunningFolder(Arc<DownloadState>);

impl RunningFolder {
    pub(super) fn new(state: Arc<DownloadState>) -> RunningFolder {
        RunningFolder(state)
    }

    pub(super) fn rates(&self) -> Arc<Rates> {
        self.0.rates.clone()
    }

    /// Waits until it is stopped.
    pub(crate) async fn stopped(&self) {
        self.0.stop.cancelled().await;
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.0.set_stage(stage);
    }

    /// Returns the progress.
    pub(crate) fn progress(&self) -> Progress {
        self.0.progress.borrow().clone()
    }

    /// Reports the progress, the sources, and the files that are there.
    pub(crate) fn report(&self, progress: Progress, swarm: SwarmView, files: Option<&Bitmap>) {
        if let Some(files) = files {
            let held = &self.0.files;
            *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(files.clone());
        }
        let shown = &self.0.swarm;
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = swarm;
        self.0.progress.send_replace(progress);
    }

    /// Returns the report of a folder that is there.
    pub(crate) fn complete(&self, path: PathBuf, files: u64, bytes: u64) -> Report {
        Report {
            size_bytes: bytes,
            files: Some(files),
            ..self.0.already_there(path)
        }
    }
}

impl Download {
    /// Returns the view of its swarm, for the folder that it belongs to.
    pub(crate) fn part_view(&self) -> SwarmView {
        self.swarm()
    }
}
