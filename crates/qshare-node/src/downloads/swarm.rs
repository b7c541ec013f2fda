//! A content of many chunks: the scheduler's decisions become streams, their ends its events.
//!
//! One task owns the scheduler ([`Fetch`]) and everything that changes with it. Around it run
//! tasks that each do one thing (reach a node, follow what a peer has, fetch one span) and tell
//! it what came of it. Hashing and writing happen on blocking threads.

mod follow;
mod hashes;
mod open;
mod peer_slots;
mod progress;
mod span;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId, NodeId};
use qshare_storage::{Asset, DiskError, FinishError, Opened, Part, PartError};
use qshare_swarm::{DropReason, Fetch, FetchAction, PeerKey, Refusal, RequestId, Span};
use qshare_wire::Refused;
use qshare_wire::peer::Hashes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

use super::meter::Meter;
use super::request::Step;
use super::single_chunk::{blame, different, watch_all};
use super::sources::holders::Holders;
use super::{DownloadRequest, Shared};
use crate::error::DownloadError;
use crate::node::Inner;
use crate::peers::{Peer, reach};
use crate::shares::contents::Active;
use crate::vocabulary::{Report, Stage};
use follow::follow;
use hashes::HashPages;
use open::open;
use progress::LOG_EVERY;
use span::{FetchSpan, fetch_span};

/// Time for the answer to an interest or a hash request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
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
        /// Another way to the peer has taken over.
        moved: bool,
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
    /// When it last held something that was missing, or came.
    useful_at: Instant,
}

struct Running {
    peer: PeerKey,
    span: Span,
    withdraw: Option<oneshot::Sender<()>>,
    task: AbortHandle,
    received: bool,
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
    /// When its sources are to be logged next, and looked at for those who may ask.
    log_at: Instant,
    show_at: Instant,
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
        hash_pages: HashPages::default(),
        holders: Holders::new(inner.endpoint.id(), request),
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
        log_at: Instant::now() + LOG_EVERY,
        show_at: Instant::now(),
        part,
        active,
    };
    let resumed_bytes = recovered.iter().map(|chunk| chunks.size(chunk)).sum();
    swarm.run(receiver, resumed_bytes).await
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
            if let Some(fetch) = &self.fetch
                && fetch.is_complete()
            {
                self.publish(&fetch.status());
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
                    let status = self.fetch.as_ref().map(Fetch::status);
                    if let Some(status) = &status {
                        self.publish(status);
                    }
                    self.checkpoint();
                    self.free_places();
                    self.check_patience(status.as_ref())?;
                }
            }
        }
    }

    /// The hashes are known: from now on there is something to decide.
    fn begin(&mut self, verified: Bitmap) {
        for chunk in verified.iter() {
            self.active.have.add(chunk);
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
        self.inner.catalogue.upsert(self.asset(), false);
    }

    fn asset(&self) -> Arc<Asset> {
        let (name, info) = (self.request.name.clone(), self.request.info);
        Arc::new(Asset::new(name, info))
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
                        buffers: self.inner.buffers.clone(),
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
        self.active.have.peer_left(key);
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
            } => {
                if self.peers.contains_key(&peer) {
                    self.active.have.peer_has_all(peer, chunks.clone());
                }
                match (&mut self.fetch, self.peers.get_mut(&peer)) {
                    (Some(fetch), _) => fetch.handle_have_all(now, peer, chunks, queue_bytes),
                    (None, Some(connected)) => connected.have = Some((chunks, queue_bytes)),
                    (None, None) => {}
                }
            }
            Event::HaveMore {
                peer,
                chunks,
                queue_bytes,
            } => {
                self.active.have.peer_has(peer, &chunks);
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
                    self.active.have.add(chunk);
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
            Event::Broken {
                request,
                cause,
                moved,
            } => {
                trace!(?request, %cause, moved, "request broke off");
                self.running.remove(&request);
                match moved {
                    true => fetch.handle_way_lost(now, request),
                    false => fetch.handle_failed(now, request),
                }
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
            useful_at: Instant::now(),
        };
        self.peers.insert(peer.key, connected);
        self.hash_pages.again_at = None;
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

    /// Stops offering what we have of it.
    fn withdraw_offer(&self) {
        self.inner.contents.remove(&self.active);
        self.inner.catalogue.remove(self.asset());
    }

    async fn finish(self, resumed_bytes: u64) -> Result<Report, DownloadError> {
        self.shared.set_stage(Stage::Finishing);
        let (part, durability) = (self.part.clone(), self.request.durability);
        let finished = self
            .inner
            .blocking(move || {
                let hashes = part.hashes().ok().flatten().unwrap_or_default();
                part.finish(durability).map(|path| (path, hashes))
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
