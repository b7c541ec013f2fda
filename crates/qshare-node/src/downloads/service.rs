//! All downloads of a node: starts them when a slot is free, and ends them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::{Chunks, ContentId, NodeAddress, NodeId};
use qshare_net::Pacing;
use qshare_storage::{Target, TargetLooks};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use super::committer::Committer;
use super::download::{Download, DownloadState};
use super::folder::RunningFolder;
use super::rates::{Competition, Rates};
use super::received::report_received;
use super::request::DownloadRequest;
use super::single_chunk::SingleChunks;
use super::sources::{Blame, CollectionSources, SourceWatch};
use super::streams::{ContentReader, StreamError, Streams, Window};
use super::swarm::Swarms;
use crate::access::Access;
use crate::config::Limits;
use crate::error::DownloadError;
use crate::lookup::LanLookup;
use crate::peers::{Dialler, PeerTable};
use crate::runtime::{BlockingBatch, BufferPool, Tasks, catch_panic};
use crate::shares::ShareStore;
use crate::trackers::Trackers;
use crate::vocabulary::{Contact, NodeEvent, Report};

/// Identifies a download: requests of one content to one path share a download.
type Key = (ContentId, PathBuf);

/// Time to reach a holder of a collection that is complete here, to tell it so.
const REPORT_REACH: Duration = Duration::from_secs(1);

/// All downloads that have not ended.
pub(crate) struct Downloads {
    running: Mutex<HashMap<Key, Download>>,
    turns: Arc<Semaphore>,
    /// Slots for contents of one chunk.
    small_turns: Arc<Semaphore>,
    shares: Arc<ShareStore>,
    committer: Arc<Committer>,
    single_chunks: SingleChunks,
    swarms: Swarms,
    streams: Arc<Streams>,
    received_bytes: Arc<AtomicU64>,
    pacing: Arc<Pacing>,
    competition: Arc<Competition>,
    /// Cancelled at shutdown before anything else is stopped.
    stopping: CancellationToken,
    tasks: Tasks,
}

/// What a [`Downloads`] works with.
pub(crate) struct DownloadsConfig<'a> {
    pub(crate) us: NodeId,
    pub(crate) limits: &'a Limits,
    pub(crate) shares: Arc<ShareStore>,
    pub(crate) trackers: Arc<Trackers>,
    pub(crate) lan: Arc<LanLookup>,
    pub(crate) table: Arc<PeerTable>,
    pub(crate) dialler: Arc<Dialler>,
    pub(crate) buffers: Arc<BufferPool>,
    pub(crate) batch: Arc<BlockingBatch>,
    pub(crate) committer: Committer,
    pub(crate) events: broadcast::Sender<NodeEvent>,
    pub(crate) pacing: Arc<Pacing>,
    pub(crate) tasks: Tasks,
}

impl Downloads {
    pub(crate) fn new(config: DownloadsConfig<'_>) -> Downloads {
        let limits = config.limits;
        let received_bytes = Arc::new(AtomicU64::new(0));
        let committer = Arc::new(config.committer);
        let sources = SourceWatch::new(config.trackers, config.lan, config.tasks.clone());
        let blame = Blame::new(config.table, config.events);
        Downloads {
            running: Mutex::default(),
            turns: Arc::new(Semaphore::new(limits.downloads_max)),
            small_turns: Arc::new(Semaphore::new(limits.small_downloads_max)),
            single_chunks: SingleChunks {
                us: config.us,
                dialler: config.dialler.clone(),
                sources: sources.clone(),
                blame: blame.clone(),
                shares: config.shares.clone(),
                batch: config.batch,
                looks: TargetLooks::default(),
                committer: committer.clone(),
                received_bytes: received_bytes.clone(),
            },
            swarms: Swarms {
                us: config.us,
                limits: limits.clone(),
                dialler: config.dialler,
                sources,
                blame,
                shares: config.shares.clone(),
                buffers: config.buffers,
                memory: Arc::new(Semaphore::new(limits.requested_max_bytes as usize)),
                received_bytes: received_bytes.clone(),
            },
            streams: Streams::new(limits.stream_bytes),
            shares: config.shares,
            committer,
            received_bytes,
            pacing: config.pacing,
            competition: Arc::default(),
            stopping: CancellationToken::new(),
            tasks: config.tasks,
        }
    }

    /// Starts a download, or returns the running one of the same content to the same target.
    pub(crate) fn begin(self: &Arc<Self>, request: DownloadRequest) -> Download {
        let downloads = self.clone();
        self.begin_as(request, move |request, state| async move {
            downloads.run(&request, &state).await
        })
    }

    /// Starts the download of a folder, which `run` carries out, or returns the running one.
    pub(crate) fn begin_folder<F>(
        self: &Arc<Self>,
        request: DownloadRequest,
        run: impl FnOnce(DownloadRequest, RunningFolder) -> F + Send + 'static,
    ) -> Download
    where
        F: Future<Output = Result<Report, DownloadError>> + Send + 'static,
    {
        self.begin_as(request, |request, state| {
            run(request, RunningFolder::new(state))
        })
    }

    fn begin_as<F>(
        self: &Arc<Self>,
        request: DownloadRequest,
        run: impl FnOnce(DownloadRequest, Arc<DownloadState>) -> F + Send + 'static,
    ) -> Download
    where
        F: Future<Output = Result<Report, DownloadError>> + Send + 'static,
    {
        let key = (request.info.id(), request.target.path());
        let mut running = self.lock();
        if let Some(download) = running.get(&key) {
            return download.clone();
        }
        let rates = request
            .within
            .clone()
            .unwrap_or_else(|| Arc::new(Rates::new(self.pacing.clone(), self.competition.clone())));
        let download = Download::new(&request, self.stopping.child_token(), rates);
        running.insert(key.clone(), download.clone());
        drop(running);

        let content = request.info.id();
        let span = match request.share_key {
            None => info_span!("download", name = %request.name, content = content.short()),
            Some(_) => info_span!("private download"),
        };
        let (downloads, state) = (self.clone(), download.state().clone());
        let run = async move {
            // A panic ends this download with an error, and no other download.
            let outcome = catch_panic(run(request, state.clone())).await;
            let outcome = outcome.unwrap_or_else(|panicked| {
                error!(%panicked, "the download's task panicked");
                let text = format!("the download's task panicked: {panicked}");
                Err(DownloadError::Internal(text))
            });
            debug!(ok = outcome.is_ok(), "ended");
            // In this order, so that a caller that learns of the end can begin it again.
            downloads.lock().remove(&key);
            state.end(outcome);
        };
        self.tasks.spawn(run.instrument(span));
        download
    }

    /// Opens a content for reading `range`, at most to its end.
    ///
    /// # Errors
    ///
    /// When too many contents, or too many positions of one content, are being read.
    pub(crate) fn read(
        self: &Arc<Self>,
        request: DownloadRequest,
        range: Range<u64>,
    ) -> Result<ContentReader, StreamError> {
        let stream = self.streams.open(request.info)?;
        let key = request.share_key.as_ref();
        let topic = key.map(|key| key.topic(&request.info.id()));
        let downloads = self.clone();
        let fetch = move |window: Arc<Window>| downloads.fetch_for(request.clone(), window);
        Ok(ContentReader::new(
            stream,
            self.shares.clone(),
            topic,
            range,
            Box::new(fetch),
        ))
    }

    /// Starts to fetch what the readers of a window want.
    fn fetch_for(self: &Arc<Self>, request: DownloadRequest, window: Arc<Window>) -> Download {
        let rates = Rates::new(self.pacing.clone(), self.competition.clone());
        let download = Download::new(&request, self.stopping.child_token(), Arc::new(rates));
        let content = request.info.id();
        let span = match request.share_key {
            None => info_span!("stream", name = %request.name, content = content.short()),
            Some(_) => info_span!("private stream"),
        };
        let (downloads, state) = (self.clone(), download.state().clone());
        let run = async move {
            let fetch = Box::pin(downloads.swarms.stream(&request, &state, window.clone()));
            let outcome = catch_panic(fetch).await.unwrap_or_else(|panicked| {
                error!(%panicked, "the task of a stream panicked");
                let text = format!("the task of a stream panicked: {panicked}");
                Err(DownloadError::Internal(text))
            });
            debug!(ok = outcome.is_ok(), "ended");
            // Readers that come later begin anew.
            if let Err(failure) = outcome {
                window.fail(Arc::new(failure));
            }
        };
        self.tasks.spawn(run.instrument(span));
        download
    }

    /// Watches the holders of a collection of `members` files, for the downloads of its members.
    pub(crate) fn collection_sources(
        &self,
        access: Access,
        members: u32,
        known: Vec<Contact>,
        nodes: &[NodeAddress],
    ) -> Arc<CollectionSources> {
        let (watch, dialler) = (&self.single_chunks.sources, &self.single_chunks.dialler);
        CollectionSources::start(watch, dialler.clone(), access, members, known, nodes)
    }

    /// Tells some holders of a private collection that this node has all of it.
    pub(crate) async fn report_received(&self, sources: &CollectionSources, access: &Access) {
        let dialler = &self.single_chunks.dialler;
        let mut peers = Vec::new();
        for contact in sources.some() {
            // Connected ones are reached at once.
            let reached = dialler.reach(contact.node, &contact.addresses);
            if let Ok(Ok(peer)) = timeout(REPORT_REACH, reached).await {
                peers.push(peer);
            }
        }
        report_received(peers, access).await;
    }

    /// Returns all downloads that have not ended. The files of a folder are no downloads of their
    /// own here.
    pub(crate) fn list(&self) -> Vec<Download> {
        let running = self.lock();
        let whole = running.values().filter(|download| !download.is_part());
        whole.cloned().collect()
    }

    /// Returns all downloads that have not ended, and those of files of folders.
    pub(crate) fn all(&self) -> Vec<Download> {
        self.lock().values().cloned().collect()
    }

    /// Returns the running download of a content to a path.
    pub(crate) fn running(&self, content: ContentId, path: PathBuf) -> Option<Download> {
        self.lock().get(&(content, path)).cloned()
    }

    /// Returns this node's ID.
    pub(crate) fn us(&self) -> NodeId {
        self.single_chunks.us
    }

    /// Returns the payload bytes received since the start.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Returns whether all downloads were stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Stops all downloads. They can be resumed.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    async fn run(
        &self,
        request: &DownloadRequest,
        state: &Arc<DownloadState>,
    ) -> Result<Report, DownloadError> {
        request.end_former().await;
        let small = Chunks::of_length(request.info.length).count() == 1;
        let expected = small.then(|| self.committer.expect());
        let turns = match small {
            true => &self.small_turns,
            false => &self.turns,
        };
        let turn = tokio::select! {
            () = state.stop.cancelled() => return Err(DownloadError::Stopped),
            turn = turns.clone().acquire_owned() => turn,
        };
        let turn = turn.map_err(|error| DownloadError::Internal(error.to_string()))?;
        // A file of a folder is written to its place, wherever else it is shared.
        let elsewhere = match request.membership() {
            None => self.shares.path(&request.info.id()),
            Some(_) => None,
        };
        if let Some(path) = elsewhere {
            request.check_existing(&path).await?;
            if let Some(key) = &request.share_key {
                self.shares.add_key(&request.info, key).await?;
            }
            return Ok(state.already_there(path));
        }
        if let Some(file) = request.private_file()
            && matches!(request.target, Target::Beneath { .. })
        {
            self.shares.mark_private(file).await?;
        }
        // Boxed, so that thousands of waiting downloads do not each take the space of the larger
        // future.
        match expected {
            Some(expected) => self.single_chunks.run(request, state, turn, expected).await,
            None => {
                let _turn = turn;
                Box::pin(self.swarms.run(request, state)).await
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Download>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
