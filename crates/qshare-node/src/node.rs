//! The node: its parts put together, and what its owner can ask of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qshare_content::{AssetName, ContentId, Hash, NodeId, Query};
use qshare_net::{Endpoint, EndpointConfig, Greeting, KnownTrackers, Traversal};
use qshare_storage::{
    Asset, DiskError, Durability, HashOptions, Library, LibraryConfig, LibraryEvent,
    RECONCILE_EVERY, SharedFile, Target, unfinished,
};
use qshare_wire::hello::{FEATURE_BIRTHDAY_PUNCH, Role};
use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::Readiness;
use qshare_wire::{ALPN_PEER, CloseCode};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::config::{Limits, NodeConfig, NodeRole, Shares};
use crate::downloads::{self, Committer, Download, DownloadRequest, Downloads};
use crate::error::{FindError, StartError};
use crate::lan::{self, Lan};
use crate::nat::port_mapping::{self, PortMappings};
use crate::peers::{self, Peers};
use crate::runtime::blocking_batch::BlockingBatch;
use crate::runtime::buffer_pool::BufferPool;
use crate::shares::catalogue::Catalogue;
use crate::shares::contents::Contents;
use crate::trackers::session::{Established, SessionState, TrackerSession};
use crate::uploads::Uploads;
use crate::vocabulary::{Contact, Findings, FoundFile, NodeEvent, NodeStatus};

/// Events that a slow listener may lag behind before it misses some.
const EVENTS_KEPT: usize = 1024;
/// Once a tracker has answered, others get this long to add to it.
const OTHER_TRACKERS: Duration = Duration::from_millis(500);
/// Longest wait for a tracker that has just started and finds nothing.
const WARM_UP: Duration = Duration::from_secs(12);
const WARM_UP_PAUSE: Duration = Duration::from_millis(250);
/// Time for the other sides to be told that we leave. The packets that say so leave at once; the
/// rest of the time is for saying it again to those who have not heard it.
const GOODBYE: Duration = Duration::from_millis(500);
/// The same for a one-shot command, whose user waits for it.
const SHORT_GOODBYE: Duration = Duration::from_millis(10);
/// Time for tasks to end by themselves after that.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// A running node. Clones are the same node; it runs until [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    /// Subscribed before the shared directories were opened; for the first who asks.
    first_events: Arc<Mutex<Option<broadcast::Receiver<NodeEvent>>>>,
}

/// What all parts of a node share.
pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    pub(crate) greeting: Greeting,
    pub(crate) traversal: Traversal,
    pub(crate) limits: Limits,
    pub(crate) known_trackers: Option<KnownTrackers>,
    pub(crate) trackers: Vec<Arc<TrackerSession>>,
    pub(crate) lan: Lan,
    pub(crate) port_mappings: PortMappings,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) contents: Contents,
    pub(crate) buffers: Arc<BufferPool>,
    pub(crate) peers: Peers,
    pub(crate) uploads: Uploads,
    pub(crate) downloads: Downloads,
    pub(crate) committer: Committer,
    pub(crate) batch: BlockingBatch,
    pub(crate) events: broadcast::Sender<NodeEvent>,
    /// Cancelled first: downloads stop resumably, everything else goes on.
    pub(crate) downloads_stopping: CancellationToken,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    shares: Option<Shares>,
    received_bytes: AtomicU64,
}

impl Node {
    /// Binds the socket, opens the shared directories and begins to announce and to serve.
    /// Unfinished downloads of an earlier run go on. Runs on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the port, the index or a directory cannot be had. An unreachable
    /// tracker is no error: the node keeps trying.
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        let NodeConfig {
            identity,
            group,
            listen,
            trackers,
            known_trackers,
            lan,
            punch_hard,
            port_mapping,
            role,
            limits,
        } = config;
        let endpoint = Endpoint::bind(
            &identity,
            &EndpointConfig {
                listen,
                accept_alpn: ALPN_PEER,
                transport: limits.transport.clone(),
            },
        )?;
        let (role, shares) = match role {
            NodeRole::Full(shares) => (Role::Node, Some(shares)),
            NodeRole::OneShot => (Role::OneShot, None),
        };
        let catalogue = Arc::new(Catalogue::new());
        let (events, first_events) = broadcast::channel(EVENTS_KEPT);
        let library = match shares.clone() {
            None => None,
            Some(shares) => {
                let (catalogue, events) = (catalogue.clone(), events.clone());
                let opened = tokio::task::spawn_blocking(move || {
                    open_library(&shares, move |event| tell(&catalogue, &events, event))
                });
                let opened = opened.await.unwrap_or_else(|error| {
                    std::panic::resume_unwind(error.into_panic());
                });
                Some(Arc::new(opened?))
            }
        };
        let trackers = trackers
            .into_iter()
            .map(|tracker| Arc::new(TrackerSession::new(tracker)));
        let traversal = Traversal::install(&endpoint);
        let inner = Arc::new(Inner {
            endpoint,
            traversal,
            greeting: Greeting {
                role,
                group,
                candidates: Vec::new(),
                features: if punch_hard {
                    FEATURE_BIRTHDAY_PUNCH
                } else {
                    0
                },
            },
            known_trackers,
            trackers: trackers.collect(),
            lan: Lan::new(lan),
            port_mappings: PortMappings::new(port_mapping && role == Role::Node),
            catalogue,
            contents: Contents::new(library),
            buffers: BufferPool::new(limits.buffers_kept_bytes),
            peers: Peers::new(&limits),
            uploads: Uploads::new(&limits, rand::random()),
            downloads: Downloads::new(&limits),
            committer: Committer::new(),
            batch: BlockingBatch::new(),
            events,
            downloads_stopping: CancellationToken::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shares,
            received_bytes: AtomicU64::new(0),
            limits,
        });
        inner.tasks.spawn(peers::accept_all(inner.clone()));
        inner.tasks.spawn({
            let (traversal, stopping) = (inner.traversal.clone(), inner.stopping.clone());
            async move {
                stopping.run_until_cancelled(traversal.run()).await;
            }
        });
        inner.tasks.spawn(lan::run(inner.clone()));
        inner.tasks.spawn(port_mapping::run(inner.clone()));
        for link in &inner.trackers {
            inner.tasks.spawn(link.clone().run(inner.clone()));
        }
        let node = Node {
            inner,
            first_events: Arc::new(Mutex::new(Some(first_events))),
        };
        node.resume_downloads().await;
        Ok(node)
    }

    /// Goes on with what an earlier run left in the downloads directory.
    async fn resume_downloads(&self) {
        let Some(shares) = self.inner.shares.clone() else {
            return;
        };
        let found = self
            .inner
            .blocking(move || unfinished(&shares.downloads))
            .await;
        for unfinished in found {
            self.download(DownloadRequest {
                name: unfinished.name,
                info: unfinished.info,
                target: unfinished.target,
                holders: Vec::new(),
                nodes: Vec::new(),
                force: false,
                durability: Durability::Immediate,
                give_up_after: None,
                keep_serving: false,
            });
        }
    }

    /// Who this node is.
    pub fn id(&self) -> NodeId {
        self.inner.endpoint.id()
    }

    /// Where it listens; an unspecified address means all interfaces.
    pub fn listen_address(&self) -> SocketAddr {
        // The socket is bound for as long as the endpoint lives.
        self.inner
            .endpoint
            .local_addr()
            .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Subscribes to events. The first subscription has all since the start, later ones only
    /// what happens after the call.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        let first = self
            .first_events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        first.unwrap_or_else(|| self.inner.events.subscribe())
    }

    /// Asks all trackers, and the nodes on this network where no tracker knows. Waits up to
    /// `patience` for the first of them to be reachable, and a little longer while a tracker that
    /// has just started finds nothing.
    ///
    /// # Errors
    ///
    /// [`FindError`] when nobody gave an answer. Finding nothing is an answer.
    pub async fn find(
        &self,
        query: &Query,
        limit: usize,
        patience: Duration,
    ) -> Result<Findings, FindError> {
        self.find_all(query, limit, patience, patience).await
    }

    /// Asks the trackers for up to `limit` files, as [`Node::find`] does: a tracker must be reached
    /// within `patience`, and what has been listed when `deadline` has passed is the result,
    /// truncated.
    ///
    /// # Errors
    ///
    /// [`FindError`], as [`Node::find`].
    pub async fn find_all(
        &self,
        query: &Query,
        limit: usize,
        patience: Duration,
        deadline: Duration,
    ) -> Result<Findings, FindError> {
        let inner = &self.inner;
        if inner.trackers.is_empty() && !inner.lan.is_on() {
            return Err(FindError::NoTracker);
        }
        let start = Instant::now();
        let until = saturating_add(start, patience);
        let end = saturating_add(start, deadline);
        let mut asked = JoinSet::new();
        for link in &inner.trackers {
            let (link, query) = (link.clone(), query.clone());
            asked.spawn(async move {
                let answer = ask(&link, &query, limit, until, end).await;
                (link.tracker.clone(), answer)
            });
        }
        let trackers_are_here = inner.trackers.iter().all(|link| link.is_on_this_machine());
        let trackers_gave_up = CancellationToken::new();
        let mut around = pin!(lan::find(inner, query, limit, until, &trackers_gave_up));
        let mut told: Option<Findings> = None;
        let mut neighbours: Option<Option<Findings>> = None;
        let mut failures = Vec::new();
        // Set by the first answer; what is not in by then is not waited for.
        let mut deadline = None;
        loop {
            let found_nothing = |found: &Findings| found.files.is_empty();
            // Trackers that know it are not kept waiting by a network that may know more.
            let trackers_know = told.as_ref().is_some_and(|found| !found_nothing(found));
            if asked.is_empty() && (trackers_know || neighbours.is_some()) {
                break;
            }
            if asked.is_empty() && told.is_none() && any_refused(&failures) {
                break;
            }
            tokio::select! {
                biased;
                Some(answer) = asked.join_next(), if !asked.is_empty() => match answer {
                    Ok((_, Ok(found))) => {
                        deadline.get_or_insert(Instant::now() + OTHER_TRACKERS);
                        if found_nothing(&found) {
                            trackers_gave_up.cancel();
                        }
                        told = Some(merge(told.unwrap_or_default(), found, limit));
                    }
                    Ok((tracker, Err(failure))) => failures.push((tracker, failure)),
                    Err(error) => debug!(%error, "a lookup failed"),
                },
                found = &mut around, if neighbours.is_none() => {
                    if let Some(found) = &found && (trackers_are_here || !found_nothing(found)) {
                        // A tracker on this machine would have answered long ago.
                        let grace = if trackers_are_here { Duration::ZERO } else { OTHER_TRACKERS };
                        deadline.get_or_insert(Instant::now() + grace);
                    }
                    neighbours = Some(found);
                },
                // Trackers end their answers themselves when the time is up, and say why they have
                // none.
                () = sleep_until(deadline.unwrap_or(until)), if deadline.is_some() => break,
            }
        }
        let refused = told.is_none() && any_refused(&failures);
        match (told, neighbours.flatten()) {
            // Somebody who should be trusted is not who they were: that is not passed over.
            _ if refused => Err(sum_up(failures)),
            (Some(told), Some(found)) => Ok(merge(told, found, limit)),
            (Some(found), None) | (None, Some(found)) => Ok(found),
            (None, None) if failures.is_empty() => Err(FindError::NoTracker),
            (None, None) => Err(sum_up(failures)),
        }
    }

    /// Begins a download, or joins the one of the same content to the same target.
    pub fn download(&self, request: DownloadRequest) -> Download {
        downloads::begin(&self.inner, request)
    }

    /// Downloads that have not ended, those of earlier runs included.
    pub fn downloads(&self) -> Vec<Download> {
        self.inner.downloads.list()
    }

    /// Nodes that were found on this machine's networks, and where they are.
    pub fn lan_nodes(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        self.inner.lan.nodes()
    }

    /// The node at a glance.
    pub fn status(&self) -> NodeStatus {
        let inner = &self.inner;
        let (assets, asset_bytes) = inner.catalogue.totals();
        let trackers = inner.trackers.iter();
        let library = inner.contents.library();
        NodeStatus {
            still_written: library.map_or_else(Vec::new, |library| library.still_written()),
            assets,
            asset_bytes,
            trackers: trackers
                .map(|link| (link.tracker.clone(), link.state().to_report()))
                .collect(),
            port_mapping: inner.port_mappings.state(),
            peers: inner.peers.count(),
            sent_bytes: inner.uploads.sent_bytes(),
            received_bytes: inner.received_bytes.load(Ordering::Relaxed),
            downloads: inner
                .downloads
                .list()
                .iter()
                .map(Download::status)
                .collect(),
        }
    }

    /// Stops: downloads resumably, what is being sent after at most `grace`, and with a goodbye
    /// to everybody. A second call does nothing.
    pub async fn shutdown(&self, grace: Duration) {
        let inner = &self.inner;
        inner.downloads_stopping.cancel();
        for download in inner.downloads.list() {
            let _ = timeout(grace.max(WIND_DOWN), download.finished()).await;
        }
        let _ = timeout(grace, inner.uploads.idle()).await;
        inner.stopping.cancel();
        let goodbye = match inner.greeting.role {
            Role::OneShot => SHORT_GOODBYE,
            _ => GOODBYE,
        };
        inner.endpoint.close(CloseCode::Goodbye, goodbye).await;
        inner.tasks.close();
        if timeout(WIND_DOWN, inner.tasks.wait()).await.is_err() {
            debug!(left = inner.tasks.len(), "tasks did not end in time");
        }
    }
}

impl Inner {
    /// Runs something that blocks on a thread of its own. A panic in it goes on here.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is going away, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    pub(crate) fn count_received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Where a content lies in the shared directories, if it does.
    pub(crate) fn shared_path(&self, content: &ContentId) -> Option<PathBuf> {
        self.contents.library()?.path(content)
    }

    /// What becomes of a finished download: part of a shared directory, if that is where it lies;
    /// else served for as long as the node runs, if that was asked for. `hashes` is empty where
    /// they are not known, and for contents of one chunk.
    pub(crate) async fn take_in(
        self: &Arc<Self>,
        request: &DownloadRequest,
        path: &Path,
        hashes: Vec<Hash>,
    ) {
        let (path, info) = (path.to_path_buf(), request.info);
        let library = self.contents.library().cloned();
        let beneath = matches!(request.target, Target::Beneath { .. });
        if let Some(library) = library.filter(|_| beneath) {
            let adopted = self
                .blocking(move || library.adopt(&path, info, &hashes))
                .await;
            if let Err(error) = adopted {
                warn!(%error, "the download is not shared");
            }
        } else if request.keep_serving {
            let opened = self.blocking(move || match hashes.is_empty() && info.length > 0 {
                true => SharedFile::hashed(&path, &HashOptions::default()),
                false => SharedFile::new(&path, info, hashes),
            });
            match opened.await {
                Ok(file) if file.info() == info => {
                    self.contents.insert_file(Arc::new(file));
                    let asset = Asset::new(request.name.clone(), info);
                    self.catalogue.upsert(Arc::new(asset), true);
                }
                Ok(_) => warn!("the file changed and is not served"),
                Err(error) => warn!(%error, "the file is not served"),
            }
        }
    }
}

fn open_library(
    shares: &Shares,
    on_event: impl Fn(LibraryEvent) + Send + 'static,
) -> Result<Library, StartError> {
    for dir in [&shares.assets, &shares.downloads] {
        std::fs::create_dir_all(dir).map_err(|error| DiskError::new("make", dir, error))?;
    }
    let config = LibraryConfig {
        roots: vec![shares.assets.clone(), shares.downloads.clone()],
        exclude: shares.exclude.clone(),
        state_dir: shares.state_dir.clone(),
        hash_threads: 0,
        reconcile_every: RECONCILE_EVERY,
    };
    Ok(Library::open(config, on_event)?)
}

/// Announces what the library offers, and passes on what a person should read.
fn tell(catalogue: &Catalogue, events: &broadcast::Sender<NodeEvent>, event: LibraryEvent) {
    match &event {
        LibraryEvent::Added(asset) => catalogue.upsert(asset.clone(), true),
        LibraryEvent::Removed(asset) => catalogue.remove(asset.clone()),
        // A hundred thousand of these would displace what a person should read.
        LibraryEvent::Hashing { .. } => {}
        _ => {
            let _ = events.send(NodeEvent::Library(event));
        }
    }
}

enum AskFailure {
    Away(String),
    Refused(String),
    Failed(String),
}

/// Asks one tracker, page by page.
async fn ask(
    link: &TrackerSession,
    query: &Query,
    limit: usize,
    until: Instant,
    end: Instant,
) -> Result<Findings, AskFailure> {
    let warm_until = Instant::now() + WARM_UP;
    loop {
        let up = match link.settled(until).await {
            SessionState::Up(up) => up,
            SessionState::Refused { cause } => return Err(AskFailure::Refused(cause)),
            SessionState::Away { cause } => {
                return Err(AskFailure::Away(
                    cause.unwrap_or_else(|| "no answer".into()),
                ));
            }
        };
        match ask_pages(&up, query, limit, end).await {
            Ok((found, Readiness::Warming))
                if found.files.is_empty() && Instant::now() < warm_until => {}
            Ok((found, _)) => return Ok(found),
            // The session was lost under way: worth another try while there is time.
            Err(_) if up.connection.close_reason().is_some() && Instant::now() < until => {}
            Err(cause) => return Err(AskFailure::Failed(cause)),
        }
        sleep(WARM_UP_PAUSE).await;
    }
}

async fn ask_pages(
    up: &Established,
    query: &Query,
    limit: usize,
    end: Instant,
) -> Result<(Findings, Readiness), String> {
    let mut found = Findings::default();
    let mut after = None;
    let mut readiness = None;
    loop {
        let page_limit = (limit - found.files.len()).min(MATCHES_MAX) as u16;
        let page = match (
            timeout_at(end, up.find(query, after.clone(), page_limit)).await,
            readiness,
        ) {
            (Ok(page), _) => page?,
            (Err(_), Some(readiness)) => {
                found.truncated = true;
                return Ok((found, readiness));
            }
            (Err(_), None) => return Err("no answer in time".into()),
        };
        found.files.extend(page.files);
        found.near = page.near;
        readiness = Some(page.readiness);
        match page.more {
            // A tracker that repeats a cursor would have us ask for ever.
            Some(more) if found.files.len() >= limit || after.as_ref() == Some(&more) => {
                found.truncated = true;
                return Ok((found, page.readiness));
            }
            Some(more) => after = Some(more),
            None => return Ok((found, page.readiness)),
        }
    }
}

/// Returns the instant after `time`; a year from now if the clock cannot represent it.
fn saturating_add(start: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    start + time.min(FAR)
}

/// Adds what one tracker found to what others did.
fn merge(a: Findings, b: Findings, limit: usize) -> Findings {
    let mut files: BTreeMap<(AssetName, ContentId), FoundFile> = BTreeMap::new();
    for file in a.files.into_iter().chain(b.files) {
        let key = (file.name.clone(), file.content);
        match files.get_mut(&key) {
            None => _ = files.insert(key, file),
            Some(known) => {
                // The same nodes announce to several trackers, so counts do not add up.
                known.complete = known.complete.max(file.complete);
                known.partial = known.partial.max(file.partial);
                add_contacts(&mut known.holders, file.holders);
            }
        }
    }
    let mut near = a.near;
    near.extend(b.near);
    near.dedup();
    let truncated = a.truncated || b.truncated || files.len() > limit;
    Findings {
        files: files.into_values().take(limit).collect(),
        truncated,
        near,
    }
}

fn add_contacts(known: &mut Vec<Contact>, more: Vec<Contact>) {
    for contact in more {
        match known.iter_mut().find(|other| other.node == contact.node) {
            None => known.push(contact),
            Some(other) => {
                other.complete |= contact.complete;
                for address in contact.addresses {
                    if !other.addresses.contains(&address) {
                        other.addresses.push(address);
                    }
                }
            }
        }
    }
}

fn any_refused(failures: &[(qshare_content::TrackerAddress, AskFailure)]) -> bool {
    let refused = |failure: &AskFailure| matches!(failure, AskFailure::Refused(_));
    failures.iter().any(|(_, failure)| refused(failure))
}

fn sum_up(failures: Vec<(qshare_content::TrackerAddress, AskFailure)>) -> FindError {
    let refused = |failure: &AskFailure| matches!(failure, AskFailure::Refused(_));
    let all_refused = !failures.is_empty() && failures.iter().all(|(_, failure)| refused(failure));
    let mut causes = Vec::new();
    for (tracker, failure) in failures {
        match failure {
            AskFailure::Failed(cause) => return FindError::Failed { tracker, cause },
            AskFailure::Away(cause) | AskFailure::Refused(cause) => causes.push((tracker, cause)),
        }
    }
    if all_refused {
        FindError::Refused(causes)
    } else {
        FindError::Unreachable(causes)
    }
}
