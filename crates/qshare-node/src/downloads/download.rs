//! The owner's handle to a download.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use qshare_content::{AssetName, Bitmap, ContentId, ContentInfo};
use qshare_net::RateLimit;
use qshare_storage::Target;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::rates::{Priority, Rates};
use super::request::DownloadRequest;
use crate::error::{DownloadError, NoSource};
use crate::shares::PartialContent;
use crate::slow_cause::CauseShare;
use crate::vocabulary::{DownloadStatus, Progress, Report, Stage, SwarmView};

/// A running or ended download. Clones are the same download.
#[derive(Clone)]
pub struct Download {
    state: Arc<DownloadState>,
    progress: watch::Receiver<Progress>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

/// State that the download's task and its handles share.
pub(super) struct DownloadState {
    name: AssetName,
    info: ContentInfo,
    target: Target,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) swarm: Mutex<SwarmView>,
    /// The part, while the download runs and has more than one chunk.
    part: Mutex<Weak<PartialContent>>,
    /// Of a folder, the files that are there, while it runs.
    pub(super) files: Mutex<Option<Bitmap>>,
    /// Whether it is a part of a folder's download.
    is_part: bool,
    outcome: watch::Sender<Option<Outcome>>,
    pub(super) stop: CancellationToken,
    pub(super) started: Instant,
    pub(super) rates: Arc<Rates>,
}

impl Download {
    /// Creates a download that has not started; `stop` stops it.
    pub(super) fn new(
        request: &DownloadRequest,
        stop: CancellationToken,
        rates: Arc<Rates>,
    ) -> Download {
        let progress = request.first_progress();
        let (progress, receiver) = watch::channel(progress);
        let state = DownloadState {
            name: request.name.clone(),
            info: request.info,
            target: request.target.clone(),
            progress,
            swarm: Mutex::default(),
            part: Mutex::default(),
            files: Mutex::default(),
            is_part: request.is_part(),
            outcome: watch::Sender::new(None),
            stop,
            started: Instant::now(),
            rates,
        };
        Download {
            state: Arc::new(state),
            progress: receiver,
        }
    }

    pub(super) fn state(&self) -> &Arc<DownloadState> {
        &self.state
    }

    /// Returns the name that was requested.
    pub fn name(&self) -> &AssetName {
        &self.state.name
    }

    /// Returns the content's id.
    pub fn content(&self) -> ContentId {
        self.state.info.id()
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.state.target
    }

    /// Returns the current progress.
    pub fn progress(&self) -> Progress {
        self.state.progress.borrow().clone()
    }

    /// Waits until [`progress`](Self::progress) has changed since the last call.
    pub async fn changed(&mut self) {
        // The sender lives as long as this handle.
        let _ = self.progress.changed().await;
    }

    /// Waits for the end. Several tasks may call it, and repeatedly.
    ///
    /// # Errors
    ///
    /// Returns the reason why the download ended without the file.
    pub async fn finished(&self) -> Result<Arc<Report>, Arc<DownloadError>> {
        let mut outcome = self.state.outcome.subscribe();
        let outcome = outcome.wait_for(Option::is_some).await;
        match outcome.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => {
                let lost = DownloadError::Internal("the download's state was lost".into());
                Err(Arc::new(lost))
            }
        }
    }

    /// Stops the download. The fetched chunks are kept, and the next attempt resumes from them.
    pub fn stop(&self) {
        self.state.stop.cancel();
    }

    /// Limits the rate of this download, beside the limit of the node, from now on.
    pub fn set_limit(&self, limit: RateLimit) {
        self.state.rates.set_limit(limit);
    }

    /// Returns the rate limit of this download.
    pub fn limit(&self) -> RateLimit {
        self.state.rates.limit()
    }

    /// Sets the priority beside the node's other downloads, from now on.
    pub fn set_priority(&self, priority: Priority) {
        self.state.rates.set_priority(priority);
    }

    /// Returns the priority.
    pub fn priority(&self) -> Priority {
        self.state.rates.priority()
    }

    /// Returns whether two handles are of the same run of a download.
    pub(super) fn is_same(&self, other: &Download) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Whether it is a part of a folder's download.
    pub(super) fn is_part(&self) -> bool {
        self.state.is_part
    }

    /// Returns the view of its swarm.
    pub(super) fn swarm(&self) -> SwarmView {
        let swarm = self.state.swarm.lock();
        swarm.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the verified chunks while the download runs; None for a content of one chunk, and
    /// before and after it runs. Of a folder, the files that are there.
    pub(super) fn verified_chunks(&self) -> Option<Bitmap> {
        let files = self.state.files.lock();
        if let Some(files) = &*files.unwrap_or_else(PoisonError::into_inner) {
            return Some(files.clone());
        }
        let part = self.state.part.lock();
        let part = part.unwrap_or_else(PoisonError::into_inner).upgrade()?;
        Some(part.part.verified())
    }

    /// Returns why it is not faster.
    pub(super) fn why(&self) -> Vec<CauseShare> {
        let swarm = self.state.swarm.lock();
        swarm.unwrap_or_else(PoisonError::into_inner).why.clone()
    }

    pub(crate) fn status(&self) -> DownloadStatus {
        let swarm = self.state.swarm.lock();
        DownloadStatus {
            name: self.state.name.clone(),
            content: self.content(),
            progress: self.progress(),
            swarm: swarm.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl DownloadState {
    /// Makes the chunks of the running download visible.
    pub(super) fn set_part(&self, part: &Arc<PartialContent>) {
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(part);
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.progress.send_if_modified(|progress| {
            let changed = progress.stage != stage;
            progress.stage = stage;
            changed
        });
    }

    /// Reports why nothing happens; None if there is a source.
    pub(super) fn set_trouble(&self, trouble: Option<NoSource>) {
        self.progress.send_if_modified(|progress| {
            let changed = progress.trouble.is_some() || trouble.is_some();
            progress.trouble = trouble;
            changed
        });
    }

    /// Records the result.
    pub(super) fn end(&self, outcome: Result<Report, DownloadError>) {
        self.progress.send_modify(|progress| {
            progress.stage = match outcome.is_ok() {
                true => Stage::Complete,
                false => Stage::Stopped,
            };
            progress.bytes_per_second = 0;
            progress.time_left = None;
            progress.sources = 0;
            if outcome.is_ok() {
                progress.verified_bytes = progress.total_bytes;
            }
        });
        let outcome = outcome.map(Arc::new).map_err(Arc::new);
        self.outcome.send_replace(Some(outcome));
    }

    /// Returns the time since the request.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the report of a download whose file existed already.
    pub(super) fn already_there(&self, path: PathBuf) -> Report {
        Report {
            content: self.info.id(),
            name: self.name.clone(),
            size_bytes: self.info.length,
            path,
            elapsed: self.elapsed(),
            resumed_bytes: 0,
            reused_bytes: 0,
            received_bytes: 0,
            wasted_bytes: 0,
            sources: Vec::new(),
            already_there: true,
            files: None,
        }
    }
}
