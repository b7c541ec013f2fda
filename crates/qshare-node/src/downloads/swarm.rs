//! Downloads a content of several chunks: opens streams as the scheduler decides, and reports their
//! results to it.
//!
//! One task owns the scheduler ([`Fetch`]) and everything that changes with it. Tasks around it do
//! one thing each (reach a node, follow what a peer has, fetch one span) and report the result to
//! it. Hashing and writing happen on blocking threads.

mod event;
mod follow;
mod hashes;
mod open;
mod peer_slots;
mod peers;
mod progress;
mod requests;
mod slowness;
mod span;
mod store;
mod writing;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, NodeId};
use qshare_storage::{Opened, PartError, PrefixDigest, Target};
use qshare_swarm::{Fetch, PeerKey, RequestId};
use qshare_wire::peer::Sending;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use super::download::DownloadState;
use super::meter::Meter;
use super::rates::RunningRates;
use super::request::DownloadRequest;
use super::reuse::Reuse;
use super::sources::{Blame, Holders, SourceWatch};
use super::streams::Window;
use crate::access::Access;
use crate::config::Limits;
use crate::error::DownloadError;
use crate::peers::{Dialler, Peer};
use crate::runtime::{BufferPool, blocking};
use crate::shares::{Finished, PartialContent, ShareStore};
use crate::vocabulary::{Report, Stage};
use event::{ANSWER_DEADLINE, Event};
use hashes::HashPages;
use open::open;
use requests::Running;
use slowness::Slowness;
use span::LocalWork;
use store::Store;

/// Interval of progress reports.
const TICK: Duration = Duration::from_millis(100);
/// Limit on the queued events for the scheduler; tasks with more to report wait.
const EVENTS: usize = 1024;

struct Connected {
    peer: Arc<Peer>,
    /// The chunks of the peer, kept until the scheduler exists.
    have: Option<(Bitmap, u64)>,
    follow: AbortHandle,
    /// When the peer was connected, or last held a missing chunk.
    useful_at: Instant,
    /// What the peer last said of its sending.
    sending: Sending,
}

/// Downloads contents of several chunks.
pub(super) struct Swarms {
    pub(super) us: NodeId,
    pub(super) limits: Limits,
    pub(super) dialler: Arc<Dialler>,
    pub(super) sources: SourceWatch,
    pub(super) blame: Blame,
    pub(super) shares: Arc<ShareStore>,
    pub(super) buffers: Arc<BufferPool>,
    /// Bytes that may be requested and not yet written, over all downloads.
    pub(super) memory: Arc<Semaphore>,
    pub(super) received_bytes: Arc<AtomicU64>,
}

impl Swarms {
    /// Runs one download.
    pub(super) async fn run(
        &self,
        request: &DownloadRequest,
        state: &DownloadState,
    ) -> Result<Report, DownloadError> {
        let part = match open(request, state).await? {
            Opened::Complete { path } => {
                request.check_existing(&path).await?;
                let finished = finished(request, path.clone(), Vec::new());
                self.shares.adopt(finished).await;
                return Ok(state.already_there(path));
            }
            Opened::Part(part) => Arc::new(part),
        };
        let recovered = part.recovered();
        let partial = PartialContent::new(request.info, part.clone(), request.share_key.clone());
        let partial = partial.for_folder(request.membership(), request.is_unannounced);
        let partial = Arc::new(partial);
        self.shares.offer(&partial);
        state.set_part(&partial);
        let store = Store::Part(part);
        let (mut swarm, receiver) = self.swarm(request, state, store, Some(partial));
        swarm.reuse = Some(Reuse::new(request, &self.shares, state));
        swarm.run(receiver, recovered).await
    }

    /// Fetches what the readers of a window want, until there has been none for a while.
    ///
    /// # Errors
    ///
    /// When the fetch was stopped, or failed.
    pub(super) async fn stream(
        &self,
        request: &DownloadRequest,
        state: &DownloadState,
        window: Arc<Window>,
    ) -> Result<(), DownloadError> {
        let nothing = window.nothing();
        let (mut swarm, mut events) = self.swarm(request, state, Store::Window(window), None);
        let result = swarm.fetch_all(&mut events, &nothing).await;
        swarm.tasks.abort_all();
        result
    }

    fn swarm<'a>(
        &'a self,
        request: &'a DownloadRequest,
        state: &'a DownloadState,
        store: Store,
        partial: Option<Arc<PartialContent>>,
    ) -> (Swarm<'a>, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let now = Instant::now();
        let swarm = Swarm {
            all: self,
            request,
            state,
            content: request.info.id(),
            access: request.access(),
            changed: HashSet::new(),
            given_up: HashSet::new(),
            chunks: Chunks::of_length(request.info.length),
            fetch: None,
            hash_pages: HashPages::default(),
            holders: Holders::new(self.us, request.holders.clone(), &request.nodes),
            peers: HashMap::new(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            writes: TaskTracker::new(),
            digest: request.sha256.map(|_| Arc::default()),
            digesting: false,
            reuse: None,
            is_reusing: false,
            events,
            meter: Meter::default(),
            resumed_bytes: 0,
            unflushed_bytes: 0,
            checkpointing: false,
            last_checkpoint: now,
            last_hope: now,
            is_announced: false,
            log_at: now + event::LOG_EVERY,
            show_at: now,
            slowness: Slowness::default(),
            work: Arc::default(),
            counted: None,
            is_held_back: false,
            store,
            partial,
        };
        (swarm, receiver)
    }
}

/// Returns what the shares need to adopt a finished download.
fn finished(
    request: &DownloadRequest,
    path: std::path::PathBuf,
    hashes: Vec<qshare_content::Hash>,
) -> Finished {
    Finished {
        name: request.name.clone(),
        info: request.info,
        path,
        hashes,
        is_beneath: matches!(request.target, Target::Beneath { .. }),
        keep_serving: request.keep_serving,
        share_key: request.share_key.clone(),
        member: request.membership(),
    }
}

struct Swarm<'a> {
    all: &'a Swarms,
    request: &'a DownloadRequest,
    state: &'a DownloadState,
    content: ContentId,
    /// How requests name the content.
    access: Access,
    /// Peers that said that their file has changed.
    changed: HashSet<PeerKey>,
    /// Peers that said that they do not have the content.
    given_up: HashSet<PeerKey>,
    chunks: Chunks,
    store: Store,
    /// What other nodes are served; None for readers, whose chunks come and go.
    partial: Option<Arc<PartialContent>>,
    hash_pages: HashPages,
    fetch: Option<Fetch>,
    holders: Holders,
    peers: HashMap<PeerKey, Connected>,
    running: HashMap<RequestId, Running>,
    /// Tasks of the download. A panic in one of them ends the download with an error.
    tasks: JoinSet<()>,
    /// Blocking work on the part, which must end before the part is closed.
    writes: TaskTracker,
    /// The plain digest of the longest complete prefix, if one is required; and whether it is being
    /// advanced.
    digest: Option<Arc<Mutex<PrefixDigest>>>,
    digesting: bool,
    /// Chunks that are taken from local files, before any is fetched.
    reuse: Option<Reuse>,
    is_reusing: bool,
    events: mpsc::Sender<Event>,
    meter: Meter,
    /// Bytes of chunks that were verified when the fetch began.
    resumed_bytes: u64,
    /// Bytes written since the last checkpoint, and whether one is under way.
    unflushed_bytes: u64,
    checkpointing: bool,
    last_checkpoint: Instant,
    /// When there last was a source of a missing chunk.
    last_hope: Instant,
    /// Whether the partial download is announced.
    is_announced: bool,
    /// When to log the download's sources next, and when to update its status next.
    log_at: Instant,
    show_at: Instant,
    slowness: Slowness,
    work: Arc<LocalWork>,
    /// Its place among the running downloads, and whether it has used up its share of the limit.
    counted: Option<RunningRates>,
    is_held_back: bool,
}

impl Swarm<'_> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        recovered: Bitmap,
    ) -> Result<Report, DownloadError> {
        let result = self.fetch_all(&mut events, &recovered).await;
        self.counted = None;
        // Received data is written before the part is closed or finished.
        self.tasks.abort_all();
        events.close();
        while events.recv().await.is_some() {}
        self.writes.close();
        self.writes.wait().await;
        match result {
            Ok(()) => self.finish().await,
            Err(error) => {
                self.withdraw_partial();
                if let Store::Part(part) = &self.store {
                    let part = part.clone();
                    if let Err(error) = blocking(move || part.close()).await {
                        debug!(%error, "the part was not closed cleanly");
                    }
                }
                Err(error)
            }
        }
    }

    /// Runs until all chunks are verified and written.
    async fn fetch_all(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        recovered: &Bitmap,
    ) -> Result<(), DownloadError> {
        self.state.set_stage(Stage::Searching);
        self.counted = Some(self.state.rates.run());
        if self.store.has_hashes() {
            match self.reuse.clone() {
                Some(reuse) if !recovered.is_full() => {
                    self.is_reusing = true;
                    let store = self.store.clone();
                    self.spawn_write(move || Event::HashesKept(store.reuse(&reuse)));
                }
                _ => self.begin(self.store.verified(), recovered),
            }
        }
        let mut news = self.request.watch(&self.all.sources);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dial();
            self.ask_for_hashes();
            self.act()?;
            if let Some(fetch) = &self.fetch
                && fetch.is_complete()
                && !self.store.is_window()
            {
                self.publish(&fetch.status());
                return Ok(());
            }
            let wake = self.next_wake();
            let store = self.store.clone();
            tokio::select! {
                () = self.state.stop.cancelled() => return Err(DownloadError::Stopped),
                Some(event) = events.recv() => {
                    self.handle(event, recovered)?;
                    while let Ok(event) = events.try_recv() {
                        self.handle(event, recovered)?;
                    }
                }
                Some(update) = news.recv() => self.holders.handle_news(update),
                () = store.moved() => self.follow_readers(),
                () = sleep_until(wake.into()) => {
                    if let Some(fetch) = &mut self.fetch {
                        fetch.handle_timeout(Instant::now());
                    }
                }
                _ = tick.tick() => {
                    self.apply_limits();
                    self.choose_writes();
                    let status = self.fetch.as_ref().map(Fetch::status);
                    self.attribute(status.as_ref());
                    match &status {
                        Some(status) => self.publish(status),
                        None => self.publish_search(),
                    }
                    self.checkpoint();
                    self.advance_digest();
                    self.free_slots();
                    self.check_patience(status.as_ref())?;
                    if self.store.is_abandoned() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Starts once the hashes are known: creates the scheduler and announces the download.
    /// Followers know of the `recovered` chunks already.
    fn begin(&mut self, verified: Bitmap, recovered: &Bitmap) {
        if let Some(partial) = &self.partial {
            for chunk in verified.iter().filter(|&chunk| !recovered.contains(chunk)) {
                partial.availability.add(chunk);
            }
        }
        let sizes = verified.iter().map(|chunk| self.chunks.size(chunk));
        self.resumed_bytes = sizes.sum();
        let config = self.all.limits.fetch.clone();
        let mut fetch = Fetch::new(self.chunks, verified, config, rand::random());
        if self.digest.is_some() {
            // The plain digest is computed from the beginning of the file on.
            fetch.begin_run_at(ChunkIndex(0));
        }
        let now = Instant::now();
        for (&key, connected) in &mut self.peers {
            fetch.handle_peer_joined(now, key);
            if let Some((chunks, queue_bytes)) = connected.have.take() {
                fetch.handle_have_all(now, key, chunks, queue_bytes);
            }
        }
        self.fetch = Some(fetch);
        self.follow_readers();
        self.apply_limits();
        self.choose_writes();
        self.announce();
    }

    /// Follows the rate limits and the priority, which may change at any time.
    fn apply_limits(&mut self) {
        if let (Some(fetch), Some(counted)) = (&mut self.fetch, &self.counted) {
            counted.update();
            let max = self.all.limits.fetch.in_flight_max_bytes;
            self.is_held_back = counted.apply(fetch, max, self.chunks.chunk_bytes());
        }
    }

    /// Announces the partial download, unless it is announced already.
    fn announce(&mut self) {
        if let Some(partial) = &self.partial
            && !self.is_announced
        {
            self.is_announced = true;
            self.all.shares.offer(partial);
            self.all.shares.announce(&self.request.name, partial);
        }
    }

    /// Withdraws the partial download when it has had no source for long, so that its name does not
    /// attract nodes to a content that none of them can complete. The download resumes if a source
    /// appears.
    fn withdraw(&mut self) {
        if self.is_announced {
            self.is_announced = false;
            self.withdraw_partial();
        }
    }

    fn withdraw_partial(&self) {
        if let Some(partial) = &self.partial {
            self.all.shares.withdraw(&self.request.name, partial);
        }
    }

    /// Requests what readers want now, and forgets what was discarded to make room for it.
    fn follow_readers(&mut self) {
        if let (Store::Window(window), Some(fetch)) = (&self.store, &mut self.fetch) {
            let (focus, discarded) = window.refocus();
            for chunk in discarded {
                fetch.handle_discarded(chunk);
            }
            fetch.set_focus(Instant::now(), Some(focus));
        }
    }

    fn next_wake(&self) -> Instant {
        let fetch = self
            .fetch
            .as_ref()
            .and_then(Fetch::poll_timeout)
            .map(|(at, reason)| {
                trace!(reason, "timer");
                at
            });
        let far = Instant::now() + ANSWER_DEADLINE;
        [
            fetch,
            self.holders.poll_timeout(),
            self.hash_pages.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(far)
    }

    fn handle(&mut self, event: Event, recovered: &Bitmap) -> Result<(), DownloadError> {
        let now = Instant::now();
        match event {
            Event::Reached {
                node,
                result: Ok(peer),
            } => self.welcome(node, peer),
            Event::Reached {
                node,
                result: Err(fault),
            } => {
                debug!(peer = %node, %fault, "cannot reach a holder");
                self.holders.failed(&node, now, fault.into());
            }
            Event::Have {
                peer,
                chunks,
                queue_bytes,
            } => self.set_held_by(now, peer, chunks, queue_bytes),
            Event::HaveMore {
                peer,
                chunks,
                queue_bytes,
            } => self.add_held_by(now, peer, &chunks, queue_bytes),
            Event::PeerGone { peer, fault } => {
                trace!(?peer, %fault, "peer gone");
                self.lose_peer(peer, fault);
            }
            Event::Hashes { peer, page, result } => self.handle_hashes(peer, page, result),
            Event::HashesKept(result) => match result {
                Ok(verified) => {
                    self.is_reusing = false;
                    if let Some(reuse) = &self.reuse
                        && reuse.bytes() > 0
                    {
                        self.unflushed_bytes += reuse.bytes();
                        self.state.set_stage(Stage::Searching);
                    }
                    self.begin(verified, recovered);
                }
                Err(PartError::Disk(error)) => return Err(error.into()),
                Err(PartError::Cancelled) => return Err(DownloadError::Stopped),
                Err(error) => return Err(DownloadError::Internal(error.to_string())),
            },
            Event::Disk(error) => return Err(error.into()),
            Event::Checkpointed => self.checkpointing = false,
            Event::Digested => self.digesting = false,
            Event::Step { .. }
            | Event::Received { .. }
            | Event::Verified { .. }
            | Event::Corrupt { .. }
            | Event::Refused { .. }
            | Event::Broken { .. } => self.handle_request_event(now, event),
        }
        Ok(())
    }
}

/// Returns the result of a task. An aborted task is no error, a panic is.
fn no_panic(ended: Result<(), JoinError>) -> Result<(), DownloadError> {
    match ended {
        Err(lost) if lost.is_panic() => Err(DownloadError::Internal(lost.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::event::resume;
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_task_is_an_internal_error_and_an_abort_is_none() {
        let mut tasks: JoinSet<()> = JoinSet::new();
        tasks.spawn(std::future::pending()).abort();
        assert!(no_panic(tasks.join_next().await.unwrap()).is_ok());
        tasks.spawn(async { panic!("on purpose") });
        let ended = no_panic(tasks.join_next().await.unwrap());
        assert!(
            matches!(&ended, Err(DownloadError::Internal(text)) if text.contains("on purpose")),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_panic_in_blocking_work_reaches_the_task_that_waits_for_it() {
        let mut tasks: JoinSet<()> = JoinSet::new();
        let work = tokio::task::spawn_blocking(|| panic!("on purpose"));
        tasks.spawn(async move {
            match work.await {
                Ok(()) => {}
                Err(lost) => resume(lost),
            }
        });
        let ended = no_panic(tasks.join_next().await.unwrap());
        assert!(matches!(ended, Err(DownloadError::Internal(_))));
    }
}
