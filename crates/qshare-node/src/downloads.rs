//! Downloads: the handles that an owner holds, and the tasks behind them.

mod committer;
mod meter;
mod request;
mod single_chunk;
mod sources;
mod swarm;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{AssetName, Bitmap, Chunks, ContentId, ContentInfo, NodeAddress};
use qshare_storage::{DiskError, Durability, OpenError, Opened, Part, PartOptions, Target};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span};

pub(crate) use committer::Committer;

use crate::config::Limits;
use crate::error::DownloadError;
use crate::node::Inner;
use crate::vocabulary::{Contact, DownloadStatus, Progress, Report, Stage, SwarmView};

/// What to download, and where to.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// What to call it in messages, and to those whom we serve from it.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Where it goes.
    pub target: Target,
    /// Holders that are known already; trackers are asked for more.
    pub holders: Vec<Contact>,
    /// Nodes that somebody said have it, and where; asked directly, whatever trackers say.
    pub nodes: Vec<NodeAddress>,
    /// Replace a different file at the target.
    pub force: bool,
    /// Whether the file must be durable before the download counts as done.
    pub durability: Durability,
    /// Give up when there was nobody to fetch from for this long; None waits for ever.
    pub give_up_after: Option<Duration>,
    /// Serve the finished file until the node stops, if it does not lie in a shared directory.
    pub keep_serving: bool,
}

/// A download under way, or ended. Clones are the same download.
#[derive(Clone)]
pub struct Download {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

pub(crate) struct Shared {
    name: AssetName,
    info: ContentInfo,
    target: Target,
    progress: watch::Sender<Progress>,
    swarm: Mutex<SwarmView>,
    outcome: watch::Sender<Option<Outcome>>,
    stop: CancellationToken,
    started: Instant,
}

impl Download {
    /// What it was asked for as.
    pub fn name(&self) -> &AssetName {
        &self.shared.name
    }

    /// Names the bytes.
    pub fn content(&self) -> ContentId {
        self.shared.info.id()
    }

    /// Where it goes.
    pub fn target(&self) -> &Target {
        &self.shared.target
    }

    /// Where it stands.
    pub fn progress(&self) -> Progress {
        self.shared.progress.borrow().clone()
    }

    /// Waits until [`progress`](Self::progress) has changed since the last call.
    pub async fn changed(&mut self) {
        // The sender lives as long as this handle.
        let _ = self.progress.changed().await;
    }

    /// Waits for the end. May be called by several, and again.
    pub async fn finished(&self) -> Result<Arc<Report>, Arc<DownloadError>> {
        let mut outcome = self.shared.outcome.subscribe();
        match outcome
            .wait_for(Option::is_some)
            .await
            .map(|outcome| outcome.clone())
        {
            Ok(Some(outcome)) => outcome,
            _ => Err(Arc::new(DownloadError::Stopped)),
        }
    }

    /// Stops it; what is there is kept, and the next attempt goes on from it.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    pub(crate) fn status(&self) -> DownloadStatus {
        DownloadStatus {
            name: self.shared.name.clone(),
            content: self.content(),
            progress: self.progress(),
            swarm: self
                .shared
                .swarm
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

impl Shared {
    fn set_stage(&self, stage: Stage) {
        self.progress.send_if_modified(|progress| {
            let changed = progress.stage != stage;
            progress.stage = stage;
            changed
        });
    }
}

/// The chunks that an unfinished download has, if there is one that nobody is at. Blocks, and
/// hashes what an unclean stop left.
pub fn unfinished_chunks(target: &Target, info: ContentInfo) -> Option<Bitmap> {
    if !target.part_path().exists() {
        return None;
    }
    match Part::open(target, info, &PartOptions::default()) {
        Ok(Opened::Part(part)) => {
            let there = part.recovered();
            // Looking leaves it as it was; if not, the next start hashes again.
            let _ = part.close();
            Some(there)
        }
        _ => None,
    }
}

/// Deletes the data of an unfinished download that no process has open. Returns whether there was
/// any. Blocks.
///
/// # Errors
///
/// Returns [`DiskError`] if the data is in use or cannot be removed.
pub fn discard_unfinished(target: &Target, info: ContentInfo) -> Result<bool, DiskError> {
    let failed = |cause: String| DiskError::new("discard", target.path(), io::Error::other(cause));
    match Part::open(target, info, &PartOptions::default()) {
        Ok(Opened::Part(part)) => match part.discard() {
            Ok(()) => Ok(true),
            Err(error) => Err(failed(error.to_string())),
        },
        Ok(Opened::Complete { .. }) => Ok(false),
        Err(OpenError::Disk(error)) => Err(error),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Two downloads of one content to one path are the same.
type Key = (ContentId, PathBuf);

/// All downloads that have not ended.
pub(crate) struct Downloads {
    running: Mutex<HashMap<Key, Download>>,
    turns: Arc<Semaphore>,
    /// Turns of contents of one chunk.
    small_turns: Arc<Semaphore>,
    /// Bytes that may be asked for and not yet written.
    memory: Arc<Semaphore>,
}

impl Downloads {
    pub(crate) fn new(limits: &Limits) -> Downloads {
        Downloads {
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(limits.downloads_max)),
            small_turns: Arc::new(Semaphore::new(limits.small_downloads_max)),
            memory: Arc::new(Semaphore::new(limits.requested_max_bytes as usize)),
        }
    }

    pub(crate) fn list(&self) -> Vec<Download> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Download>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a download, or joins the one of the same content to the same target.
pub(crate) fn begin(inner: &Arc<Inner>, request: DownloadRequest) -> Download {
    let key = (request.info.id(), request.target.path());
    let mut downloads = inner.downloads.lock();
    if let Some(running) = downloads.get(&key) {
        return running.clone();
    }
    let progress = Progress {
        total_bytes: request.info.length,
        ..Progress::default()
    };
    let (progress, receiver) = watch::channel(progress);
    let shared = Arc::new(Shared {
        name: request.name.clone(),
        info: request.info,
        target: request.target.clone(),
        progress,
        swarm: Mutex::default(),
        outcome: watch::Sender::new(None),
        stop: inner.downloads_stopping.child_token(),
        started: Instant::now(),
    });
    let download = Download {
        shared: shared.clone(),
        progress: receiver,
    };
    downloads.insert(key.clone(), download.clone());
    drop(downloads);

    let span = info_span!("download", name = %request.name, content = request.info.id().short());
    let inner = inner.clone();
    let tasks = inner.tasks.clone();
    let run = async move {
        let outcome = run(&inner, &request, &shared).await;
        debug!(ok = outcome.is_ok(), "ended");
        let stage = if outcome.is_ok() {
            Stage::Complete
        } else {
            Stage::Stopped
        };
        shared.progress.send_modify(|progress| {
            progress.stage = stage;
            progress.bytes_per_second = 0;
            progress.time_left = None;
            progress.sources = 0;
            if outcome.is_ok() {
                progress.verified_bytes = progress.total_bytes;
            }
        });
        shared
            .outcome
            .send_replace(Some(outcome.map(Arc::new).map_err(Arc::new)));
        inner.downloads.lock().remove(&key);
    };
    tasks.spawn(run.instrument(span));
    download
}

async fn run(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
) -> Result<Report, DownloadError> {
    let small = Chunks::of_length(request.info.length).count() == 1;
    let expected = small.then(|| inner.committer.expect());
    let turns = match small {
        true => &inner.downloads.small_turns,
        false => &inner.downloads.turns,
    };
    let turn = tokio::select! {
        () = shared.stop.cancelled() => return Err(DownloadError::Stopped),
        turn = turns.clone().acquire_owned() => turn,
    };
    let turn = turn.map_err(|_| DownloadError::Stopped)?;
    if let Some(path) = inner.shared_path(&request.info.id()) {
        return Ok(Report::already_there(
            request,
            path,
            shared.started.elapsed(),
        ));
    }
    // Boxed, so that thousands which wait do not each take the room of the larger one.
    match expected {
        Some(expected) => single_chunk::run(inner, request, shared, turn, expected).await,
        None => Box::pin(swarm::run(inner, request, shared)).await,
    }
}

impl Report {
    fn already_there(request: &DownloadRequest, path: PathBuf, elapsed: Duration) -> Report {
        Report {
            content: request.info.id(),
            name: request.name.clone(),
            size_bytes: request.info.length,
            path,
            elapsed,
            resumed_bytes: 0,
            received_bytes: 0,
            wasted_bytes: 0,
            sources: Vec::new(),
            already_there: true,
        }
    }
}
