//! A content of many chunks: the scheduler's decisions become streams, their ends its events.
//!
//! One task owns the scheduler ([`Fetch`]) and everything that changes with it. Around it run
//! tasks that each do one thing (reach a node, follow what a peer has, fetch one span) and tell
//! it what came of it. Hashing and writing happen on blocking threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, Hash, NodeId, tree};
use qshare_net::framed::{self, ReadError};
use qshare_storage::{
    DiskError, FinishError, HashOptions, OpenError, Opened, Part, PartError, PartOptions,
};
use qshare_swarm::{DropReason, Fetch, FetchAction, PeerKey, Refusal, RequestId, Span};
use qshare_wire::peer::{HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::{Message, Refused};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use super::holders::Holders;
use super::meter::Meter;
use super::request::{Answer, Step, chunk_request, fetch};
use super::whole::{blame, different, no_source, watch_all};
use super::{DownloadRequest, Shared};
use crate::contents::Active;
use crate::error::DownloadError;
use crate::node::Inner;
use crate::peers::{Peer, reach};
use crate::report::{PeerView, Report, Stage};

/// Time for the answer to an interest or a hash request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Pause before holders that had no hashes are asked again.
const HASHES_AGAIN: Duration = Duration::from_millis(500);
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// Events that may wait for the scheduler; whoever has more to tell waits.
const EVENTS: usize = 1024;

enum Event {
    Reached {
        node: NodeId,
        result: Result<Arc<Peer>, String>,
    },
    Have {
        peer: PeerKey,
        chunks: Bitmap,
        queue_bytes: u64,
    },
    HaveMore {
        peer: PeerKey,
        chunks: Vec<ChunkIndex>,
        queue_bytes: u64,
    },
    PeerGone {
        peer: PeerKey,
        cause: String,
    },
    Hashes {
        peer: PeerKey,
        page: u32,
        result: Result<Hashes, String>,
    },
    HashesKept(Result<Bitmap, PartError>),
    Step {
        request: RequestId,
        step: Step,
    },
    Received {
        request: RequestId,
    },
    Verified {
        request: RequestId,
    },
    Corrupt {
        request: RequestId,
    },
    Refused {
        request: RequestId,
        refused: Refused,
    },
    Broken {
        request: RequestId,
        cause: String,
    },
    Disk(DiskError),
    Checkpointed,
}

struct Connected {
    peer: Arc<Peer>,
    /// What it has, until the scheduler is there to be told.
    have: Option<(Bitmap, u64)>,
    follow: AbortHandle,
    asked_for_hashes: bool,
}

struct Running {
    peer: PeerKey,
    span: Span,
    withdraw: Option<oneshot::Sender<()>>,
    task: AbortHandle,
    received: bool,
}

/// The chunk hashes as far as they are known, before the scheduler can begin.
struct HashPages {
    pages: Vec<Vec<Hash>>,
    asking: bool,
    again_at: Option<Instant>,
}

struct Swarm<'a> {
    inner: &'a Arc<Inner>,
    request: &'a DownloadRequest,
    shared: &'a Arc<Shared>,
    content: ContentId,
    chunks: Chunks,
    part: Arc<Part>,
    active: Arc<Active>,
    hash_pages: HashPages,
    fetch: Option<Fetch>,
    holders: Holders,
    peers: HashMap<PeerKey, Connected>,
    running: HashMap<RequestId, Running>,
    tasks: JoinSet<()>,
    /// Blocking work on the part, to be waited for before it is closed.
    writes: TaskTracker,
    events: mpsc::Sender<Event>,
    meter: Meter,
    /// Bytes written since the last checkpoint, and whether one is under way.
    unflushed_bytes: u64,
    checkpointing: bool,
    last_checkpoint: Instant,
    /// When somebody was last there to fetch from.
    last_hope: Instant,
}

pub(super) async fn run(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
) -> Result<Report, DownloadError> {
    let part = match open(inner, request, shared).await? {
        Opened::Complete { path } => {
            inner.take_in(request, &path, Vec::new()).await;
            return Ok(Report::already_there(
                request,
                path,
                shared.started.elapsed(),
            ));
        }
        Opened::Part(part) => Arc::new(part),
    };
    let chunks = Chunks::of_length(request.info.length);
    let recovered = part.recovered();
    let active = Arc::new(Active::new(request.info, part.clone(), recovered.clone()));
    inner.contents.insert(active.clone());
    let (events, receiver) = mpsc::channel(EVENTS);
    let swarm = Swarm {
        inner,
        request,
        shared,
        content: request.info.id(),
        chunks,
        fetch: None,
        hash_pages: HashPages {
            pages: Vec::new(),
            asking: false,
            again_at: None,
        },
        holders: Holders::new(inner.endpoint.id(), &request.holders),
        peers: HashMap::new(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
        writes: TaskTracker::new(),
        events,
        meter: Meter::default(),
        unflushed_bytes: 0,
        checkpointing: false,
        last_checkpoint: Instant::now(),
        last_hope: Instant::now(),
        part,
        active,
    };
    let resumed_bytes = recovered.iter().map(|chunk| chunks.size(chunk)).sum();
    swarm.run(receiver, resumed_bytes).await
}

/// Opens the part; hashes what an earlier run left.
async fn open(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
) -> Result<Opened, DownloadError> {
    shared.set_stage(Stage::Recovering);
    let hashing = HashOptions::default();
    let cancel = hashing.cancel.clone();
    let options = PartOptions {
        force: request.force,
        hashing,
    };
    let (target, info) = (request.target.clone(), request.info);
    let open = inner.blocking(move || Part::open(&target, info, &options));
    let mut open = std::pin::pin!(open);
    let opened = tokio::select! {
        opened = &mut open => opened,
        () = shared.stop.cancelled() => {
            cancel.cancel();
            open.await
        }
    };
    opened.map_err(|error| match error {
        OpenError::Different(path) => different(path),
        OpenError::Disk(error) => error.into(),
        OpenError::Cancelled => DownloadError::Stopped,
        other => DownloadError::InTheWay {
            path: request.target.path(),
            why: describe(&other),
        },
    })
}

fn describe(error: &OpenError) -> String {
    match error {
        OpenError::OtherUnfinished { .. } => {
            format!("{error}; --force discards that one, -o writes elsewhere")
        }
        OpenError::Locked(_) => format!("{error} by another qshare; wait for it, or stop it"),
        other => other.to_string(),
    }
}

impl Swarm<'_> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        resumed_bytes: u64,
    ) -> Result<Report, DownloadError> {
        let result = self.fetch_all(&mut events).await;
        // Whatever still waits to be written is written before the part is closed or finished.
        self.tasks.abort_all();
        events.close();
        while events.recv().await.is_some() {}
        self.writes.close();
        self.writes.wait().await;
        match result {
            Ok(()) => self.finish(resumed_bytes).await,
            Err(error) => {
                self.withdraw_offer();
                let part = self.part.clone();
                if let Err(error) = self.inner.blocking(move || part.close()).await {
                    debug!(%error, "the part was not closed cleanly");
                }
                Err(error)
            }
        }
    }

    /// Runs until all chunks are verified and written.
    async fn fetch_all(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<(), DownloadError> {
        self.shared.set_stage(Stage::Searching);
        if self.part.has_hashes() {
            self.begin(self.part.verified());
        }
        let mut news = watch_all(self.inner, self.request);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dial();
            self.ask_for_hashes();
            self.act();
            if self.fetch.as_ref().is_some_and(Fetch::is_complete) {
                self.publish();
                return Ok(());
            }
            let wake = self.next_wake();
            tokio::select! {
                () = self.shared.stop.cancelled() => return Err(DownloadError::Stopped),
                Some(event) = events.recv() => {
                    self.handle(event)?;
                    while let Ok(event) = events.try_recv() {
                        self.handle(event)?;
                    }
                }
                Some(update) = news.recv() => self.holders.handle_news(update),
                () = sleep_until(wake.into()) => {
                    if let Some(fetch) = &mut self.fetch {
                        fetch.handle_timeout(Instant::now());
                    }
                }
                _ = tick.tick() => {
                    self.publish();
                    self.checkpoint();
                    self.check_patience()?;
                }
            }
        }
    }

    /// The hashes are known: from now on there is something to decide.
    fn begin(&mut self, verified: Bitmap) {
        for chunk in verified.iter() {
            self.active.add(chunk);
        }
        let config = self.inner.limits.fetch.clone();
        let mut fetch = Fetch::new(self.chunks, verified, config, rand::random());
        let now = Instant::now();
        for (&key, connected) in &mut self.peers {
            fetch.handle_peer_joined(now, key);
            if let Some((chunks, queue_bytes)) = connected.have.take() {
                fetch.handle_have_all(now, key, chunks, queue_bytes);
            }
        }
        self.fetch = Some(fetch);
        let (name, info) = (self.request.name.clone(), self.request.info);
        self.inner.catalogue.upsert(name, info, false);
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
        [fetch, self.holders.poll_timeout(), self.hash_pages.again_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    /// Reaches for more holders, as many as are allowed.
    fn dial(&mut self) {
        let max = self.inner.limits.peers_per_download_max;
        while let Some((node, addresses)) = self.holders.next_to_dial(Instant::now(), max) {
            let (inner, events) = (self.inner.clone(), self.events.clone());
            self.tasks.spawn(async move {
                let result = reach(&inner, node, &addresses).await;
                let _ = events.send(Event::Reached { node, result }).await;
            });
        }
    }

    /// Asks one of those who are there for the next page of chunk hashes.
    fn ask_for_hashes(&mut self) {
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
            let asked = framed::ask::<HashRequest, Hashes>(&peer.connection, &request);
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

    /// Does what the scheduler decides.
    fn act(&mut self) {
        let Some(fetch) = &mut self.fetch else { return };
        let mut dropped = Vec::new();
        while let Some(action) = fetch.poll_action(Instant::now()) {
            match action {
                FetchAction::Request {
                    request,
                    peer,
                    span,
                } => {
                    let Some(connected) = self.peers.get(&peer) else {
                        continue;
                    };
                    let (sender, withdraw) = oneshot::channel();
                    let task = self.tasks.spawn(fetch_span(FetchSpan {
                        request,
                        peer: connected.peer.clone(),
                        content: self.content,
                        chunks: self.chunks,
                        span,
                        part: self.part.clone(),
                        memory: self.inner.downloads.memory.clone(),
                        writes: self.writes.clone(),
                        events: self.events.clone(),
                        withdraw,
                    }));
                    let withdraw = Some(sender);
                    let running = Running {
                        peer,
                        span,
                        withdraw,
                        task,
                        received: false,
                    };
                    self.running.insert(request, running);
                }
                FetchAction::Withdraw { request } => {
                    let running = self.running.get_mut(&request);
                    if let Some(sender) = running.and_then(|running| running.withdraw.take()) {
                        let _ = sender.send(());
                    }
                }
                FetchAction::Abandon { request } => {
                    if let Some(running) = self.running.remove(&request) {
                        running.task.abort();
                    }
                }
                FetchAction::DropPeer { peer, reason } => dropped.push((peer, reason)),
            }
        }
        for (peer, reason) in dropped {
            self.drop_peer(peer, reason);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn drop_peer(&mut self, key: PeerKey, reason: DropReason) {
        let Some(connected) = self.peers.get(&key) else {
            return;
        };
        let node = connected.peer.node;
        debug!(peer = %node, ?reason, "dropped");
        if reason == DropReason::Corrupt {
            self.holders.ban(&node);
            blame(self.inner, node, self.request);
        }
        self.lose_peer(key, format!("{reason:?}").to_lowercase());
    }

    /// A peer is gone or not wanted any more; what it has sent in full is still verified.
    fn lose_peer(&mut self, key: PeerKey, cause: String) {
        let Some(connected) = self.peers.remove(&key) else {
            return;
        };
        connected.follow.abort();
        self.running.retain(|_, running| {
            let stays = running.peer != key || running.received;
            if !stays {
                running.task.abort();
            }
            stays
        });
        if let Some(fetch) = &mut self.fetch {
            fetch.handle_peer_left(Instant::now(), key);
        }
        self.holders
            .failed(&connected.peer.node, Instant::now(), cause);
    }

    fn handle(&mut self, event: Event) -> Result<(), DownloadError> {
        let now = Instant::now();
        match event {
            Event::Reached {
                node,
                result: Ok(peer),
            } => self.welcome(node, peer),
            Event::Reached {
                node,
                result: Err(cause),
            } => {
                debug!(peer = %node, %cause, "cannot be reached");
                self.holders.failed(&node, now, cause);
            }
            Event::Have {
                peer,
                chunks,
                queue_bytes,
            } => match (&mut self.fetch, self.peers.get_mut(&peer)) {
                (Some(fetch), _) => fetch.handle_have_all(now, peer, chunks, queue_bytes),
                (None, Some(connected)) => connected.have = Some((chunks, queue_bytes)),
                (None, None) => {}
            },
            Event::HaveMore {
                peer,
                chunks,
                queue_bytes,
            } => {
                if let Some(fetch) = &mut self.fetch {
                    fetch.handle_have(now, peer, &chunks, queue_bytes);
                } else if let Some((have, queue)) = self
                    .peers
                    .get_mut(&peer)
                    .and_then(|connected| connected.have.as_mut())
                {
                    chunks.iter().for_each(|&chunk| _ = have.insert(chunk));
                    *queue = queue_bytes;
                }
            }
            Event::PeerGone { peer, cause } => {
                trace!(?peer, %cause, "peer gone");
                self.lose_peer(peer, cause);
            }
            Event::Hashes { peer, page, result } => self.handle_hashes(peer, page, result),
            Event::HashesKept(result) => match result {
                Ok(verified) => self.begin(verified),
                Err(PartError::Disk(error)) => return Err(error.into()),
                Err(_) => return Err(DownloadError::Stopped),
            },
            Event::Disk(error) => return Err(error.into()),
            Event::Checkpointed => self.checkpointing = false,
            Event::Step { .. }
            | Event::Received { .. }
            | Event::Verified { .. }
            | Event::Corrupt { .. }
            | Event::Refused { .. }
            | Event::Broken { .. } => self.handle_request_event(now, event),
        }
        Ok(())
    }

    fn handle_request_event(&mut self, now: Instant, event: Event) {
        let Some(fetch) = &mut self.fetch else { return };
        match event {
            Event::Step {
                request,
                step: Step::Started,
            } => fetch.handle_started(now, request),
            Event::Step {
                request,
                step: Step::Progress(bytes),
            } => {
                self.inner.count_received(bytes);
                fetch.handle_progress(now, request, bytes);
            }
            Event::Received { request } => {
                if let Some(running) = self.running.get_mut(&request) {
                    running.received = true;
                }
                fetch.handle_received(now, request);
            }
            Event::Verified { request } => {
                let completed = fetch.handle_verified(now, request);
                let running = self.running.remove(&request);
                if let Some(running) = running {
                    let bytes = running.span.size(&self.chunks);
                    self.unflushed_bytes += bytes;
                    if let Some(connected) = self.peers.get(&running.peer) {
                        let chunks = u32::from(completed.is_some());
                        self.meter.credit(&connected.peer, bytes, chunks);
                        self.holders.succeeded(&connected.peer.node);
                    }
                }
                if let Some(chunk) = completed {
                    self.part.mark_verified(chunk);
                    self.active.add(chunk);
                }
                self.shared.set_stage(Stage::Fetching);
            }
            Event::Corrupt { request } => {
                self.running.remove(&request);
                fetch.handle_corrupt(now, request);
            }
            Event::Refused { request, refused } => {
                self.running.remove(&request);
                match to_swarm(&refused) {
                    Some(refusal) => fetch.handle_refused(now, request, refusal),
                    None if refused.refusal() == qshare_wire::Refusal::Withdrawn => {
                        fetch.handle_withdrawn(now, request);
                    }
                    None => fetch.handle_failed(now, request),
                }
            }
            Event::Broken { request, cause } => {
                trace!(?request, %cause, "request broke off");
                self.running.remove(&request);
                fetch.handle_failed(now, request);
            }
            _ => {}
        }
    }

    /// A node was reached: follow what it has.
    fn welcome(&mut self, node: NodeId, peer: Arc<Peer>) {
        self.holders.connected(&node);
        if let Some(fetch) = &mut self.fetch {
            fetch.handle_peer_joined(Instant::now(), peer.key);
        }
        let follow = self.tasks.spawn(follow(
            peer.clone(),
            self.content,
            self.chunks.count(),
            self.events.clone(),
        ));
        let connected = Connected {
            peer: peer.clone(),
            have: None,
            follow,
            asked_for_hashes: false,
        };
        self.peers.insert(peer.key, connected);
        self.hash_pages.again_at = None;
    }

    fn handle_hashes(&mut self, key: PeerKey, page: u32, result: Result<Hashes, String>) {
        self.hash_pages.asking = false;
        let Some(connected) = self.peers.get_mut(&key) else {
            return;
        };
        let hashes = match result {
            Ok(hashes) => hashes,
            Err(cause) => {
                debug!(peer = %connected.peer.node, %cause, "no hashes");
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

    /// Makes what is verified durable, now and then.
    fn checkpoint(&mut self) {
        let limits = &self.inner.limits;
        let due = self.last_checkpoint.elapsed() >= limits.checkpoint_interval
            || self.unflushed_bytes >= limits.checkpoint_bytes;
        if !due || self.checkpointing || self.unflushed_bytes == 0 {
            return;
        }
        self.checkpointing = true;
        self.unflushed_bytes = 0;
        self.last_checkpoint = Instant::now();
        let (part, events) = (self.part.clone(), self.events.clone());
        self.writes.spawn_blocking(move || {
            let event = match part.checkpoint() {
                Err(PartError::Disk(error)) => Event::Disk(error),
                _ => Event::Checkpointed,
            };
            let _ = events.blocking_send(event);
        });
    }

    /// Gives up when there was nobody to fetch from for too long.
    fn check_patience(&mut self) -> Result<(), DownloadError> {
        let hope = match &self.fetch {
            None => !self.peers.is_empty(),
            Some(fetch) => {
                let status = fetch.status();
                let useful = status
                    .peers
                    .iter()
                    .any(|peer| peer.dropped.is_none() && peer.chunks > 0);
                (useful && status.unheld_chunks < status.chunks - status.verified_chunks)
                    || status.in_flight_bytes > 0
            }
        };
        if hope {
            self.last_hope = Instant::now();
            return Ok(());
        }
        let waited = self.last_hope.elapsed();
        match self.request.give_up_after {
            Some(patience) if waited >= patience => Err(no_source(self.request, &self.holders)),
            _ => Ok(()),
        }
    }

    fn publish(&mut self) {
        let Some(fetch) = &self.fetch else { return };
        let status = fetch.status();
        let rate = self.meter.sample(Instant::now(), status.received_bytes);
        let left = self.chunks.length().saturating_sub(status.verified_bytes);
        let sources = status
            .peers
            .iter()
            .filter(|peer| peer.dropped.is_none() && peer.chunks > 0);
        let sources = sources.count() as u32;
        let views = status.peers.iter().filter_map(|peer| {
            let connected = self.peers.get(&peer.peer)?;
            Some(PeerView {
                node: connected.peer.node,
                address: connected.peer.address,
                path: connected.peer.path,
                chunks: peer.chunks,
                outstanding_bytes: peer.outstanding_bytes,
                bytes_per_second: peer.rate_bytes_per_second,
                received_bytes: peer.received_bytes,
                dropped: peer
                    .dropped
                    .map(|reason| format!("{reason:?}").to_lowercase()),
            })
        });
        let views: Vec<PeerView> = views.collect();
        *self
            .shared
            .peers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = views;
        let waited = self.last_hope.elapsed();
        self.shared.progress.send_modify(|progress| {
            progress.verified_bytes = status.verified_bytes;
            progress.bytes_per_second = rate;
            progress.time_left =
                (rate > 0).then(|| Duration::from_secs_f64(left as f64 / rate as f64));
            progress.sources = sources;
            progress.trouble = (waited > Duration::from_secs(2))
                .then(|| format!("nobody to fetch from{}", self.holders.describe_failures()));
        });
    }

    /// Stops offering what we have of it.
    fn withdraw_offer(&self) {
        self.inner.contents.remove(&self.active);
        self.inner
            .catalogue
            .remove(&self.request.name, self.content);
    }

    async fn finish(self, resumed_bytes: u64) -> Result<Report, DownloadError> {
        self.shared.set_stage(Stage::Finishing);
        let (part, sync) = (self.part.clone(), self.request.sync);
        let finished = self
            .inner
            .blocking(move || {
                let hashes = part.hashes().ok().flatten().unwrap_or_default();
                part.finish(sync).map(|path| (path, hashes))
            })
            .await;
        let (path, hashes) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                self.withdraw_offer();
                return Err(match error {
                    FinishError::Different(path) => different(path),
                    FinishError::Disk(error) => error.into(),
                    FinishError::Incomplete { .. } => DownloadError::Stopped,
                });
            }
        };
        // Offered as complete before it is no longer offered as partial, so that it never vanishes.
        self.inner.take_in(self.request, &path, hashes).await;
        self.inner.contents.remove(&self.active);
        if self.inner.contents.find(&self.content).is_none() {
            self.withdraw_offer();
        }
        let status = self.fetch.as_ref().map(Fetch::status).unwrap_or_default();
        Ok(Report {
            content: self.content,
            name: self.request.name.clone(),
            size_bytes: self.request.info.length,
            path,
            elapsed: self.shared.started.elapsed(),
            resumed_bytes,
            received_bytes: status.received_bytes,
            wasted_bytes: status.wasted_bytes,
            sources: self.meter.into_sources(),
            already_there: false,
        })
    }
}

/// What the scheduler makes of a refusal; None where it is told otherwise.
fn to_swarm(refused: &Refused) -> Option<Refusal> {
    use qshare_wire::Refusal as Wire;
    match refused.refusal() {
        Wire::NotHere => Some(Refusal::NotHere),
        Wire::NotYet => Some(Refusal::NotYet),
        Wire::Busy => {
            let retry_after = Duration::from_millis(refused.retry_after_ms.into());
            Some(Refusal::Busy { retry_after })
        }
        Wire::Changed => Some(Refusal::Changed),
        Wire::NotAllowed => Some(Refusal::NotAllowed),
        Wire::Withdrawn | Wire::Invalid | Wire::Failed | Wire::Other(_) => None,
    }
}

/// Tells what a peer has, and as it gets more, until it is lost.
async fn follow(peer: Arc<Peer>, content: ContentId, count: u32, events: mpsc::Sender<Event>) {
    let cause = tokio::select! {
        cause = follow_until_lost(&peer, content, count, &events) => cause,
        () = peer.retired.cancelled() => "another connection took over".into(),
    };
    let _ = events
        .send(Event::PeerGone {
            peer: peer.key,
            cause,
        })
        .await;
}

async fn follow_until_lost(
    peer: &Arc<Peer>,
    content: ContentId,
    count: u32,
    events: &mpsc::Sender<Event>,
) -> String {
    let interest = Interest {
        content,
        extensions: Vec::new(),
    };
    let asked = framed::ask::<Interest, Have>(&peer.connection, &interest);
    // The sending half is kept: closing it would end the interest.
    let (first, _send, mut recv) = match timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(ReadError::Refused(refused))) => return format!("it says {:?}", refused.refusal()),
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "it did not say what it has".into(),
    };
    let Some(event) = have_event(peer.key, count, first) else {
        return "what it says to have makes no sense".into();
    };
    if events.send(event).await.is_err() {
        return String::new();
    }
    loop {
        let frame = match framed::read_frame(&mut recv, Have::BODY_MAX_BYTES).await {
            Ok(frame) => frame,
            Err(error) => return error.to_string(),
        };
        let event = match frame.kind {
            Have::TYPE => frame
                .decode()
                .ok()
                .and_then(|have| have_event(peer.key, count, have)),
            HaveMore::TYPE => frame.decode::<HaveMore>().ok().map(|more| Event::HaveMore {
                peer: peer.key,
                chunks: more.chunks.into_iter().map(ChunkIndex).collect(),
                queue_bytes: more.queue_bytes,
            }),
            // Later versions may say more.
            _ => continue,
        };
        let Some(event) = event else {
            return "what it says to have makes no sense".into();
        };
        if events.send(event).await.is_err() {
            return String::new();
        }
    }
}

fn have_event(peer: PeerKey, count: u32, have: Have) -> Option<Event> {
    let chunks = match have.complete {
        true => Bitmap::full(count),
        false => Bitmap::from_bytes(count, &have.bitmap)?,
    };
    Some(Event::Have {
        peer,
        chunks,
        queue_bytes: have.queue_bytes,
    })
}

struct FetchSpan {
    request: RequestId,
    peer: Arc<Peer>,
    content: ContentId,
    chunks: Chunks,
    span: Span,
    part: Arc<Part>,
    memory: Arc<Semaphore>,
    writes: TaskTracker,
    events: mpsc::Sender<Event>,
    withdraw: oneshot::Receiver<()>,
}

/// Fetches one span, and has it verified and written.
async fn fetch_span(job: FetchSpan) {
    let FetchSpan {
        request,
        peer,
        content,
        chunks,
        span,
        part,
        memory,
        writes,
        events,
        withdraw,
    } = job;
    let asked = chunk_request(content, &chunks, span);
    let expected = span.size(&chunks);
    // Other downloads of this node may have asked for much, too. The largest chunk always fits.
    let permits = u32::try_from(expected).unwrap_or(u32::MAX);
    let Ok(permit) = memory.acquire_many_owned(permits).await else {
        return;
    };
    let on_step = |step| {
        let events = events.clone();
        async move {
            let _ = events.send(Event::Step { request, step }).await;
        }
    };
    let answer = fetch(&peer.connection, &asked, expected, withdraw, on_step).await;
    let (bytes, path) = match answer {
        Answer::Data { bytes, path } => (bytes, path),
        Answer::Refused(refused) => {
            let _ = events.send(Event::Refused { request, refused }).await;
            return;
        }
        Answer::Broken(cause) => {
            let _ = events.send(Event::Broken { request, cause }).await;
            return;
        }
    };
    let _ = events.send(Event::Received { request }).await;
    let verdict = writes.spawn_blocking(move || {
        let verdict = verify_and_write(request, &part, &chunks, span, &bytes, &path);
        drop((bytes, permit));
        verdict
    });
    let verdict = verdict.await;
    if let Ok(event) = verdict {
        let _ = events.send(event).await;
    }
}

fn verify_and_write(
    request: RequestId,
    part: &Part,
    chunks: &Chunks,
    span: Span,
    bytes: &[u8],
    path: &[Hash],
) -> Event {
    let hash = match part.hash(span.chunk) {
        Ok(Some(hash)) => hash,
        Err(PartError::Disk(error)) => return Event::Disk(error),
        _ => {
            return Event::Broken {
                request,
                cause: "the chunk's hash is not known".into(),
            };
        }
    };
    let written = if span.is_whole(chunks) {
        if tree::chunk_hash(chunks, bytes) != hash {
            return Event::Corrupt { request };
        }
        part.write_verified(span.chunk, bytes).map(|_| ())
    } else {
        let Span {
            chunk,
            height,
            index,
        } = span;
        if !tree::verify_subtree(chunks, chunk, &hash, height, index, bytes, path) {
            return Event::Corrupt { request };
        }
        let start = span.range(chunks).start - chunks.range(chunk).start;
        part.write(chunk, start, bytes)
    };
    match written {
        Ok(()) => Event::Verified { request },
        Err(PartError::Disk(error)) => Event::Disk(error),
        Err(error) => Event::Broken {
            request,
            cause: error.to_string(),
        },
    }
}
