//! The node: composes the parts, routes their events, and stops them in order.

mod roster;
mod views;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qshare_content::{AssetName, Code, ContentInfo, NodeId, Query};
use qshare_net::{Endpoint, EndpointConfig, Greeting, Traversal};
use qshare_storage::{FolderError, HashError, HashIndex};
use qshare_wire::collection::FEATURE_COLLECTIONS;
use qshare_wire::hello::{FEATURE_BIRTHDAY_PUNCH, FEATURE_CODES, Role};
use qshare_wire::private::FEATURE_PRIVATE_SHARES;
use qshare_wire::{ALPN_PEER, Address, CloseCode};
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::codes::{CodeOffer, CodeOfferConfig, Codes, RedeemError, RedeemPatience, Redeemed};
use crate::collections::{
    self, Folder, FolderDownloads, FolderFetchError, FolderFound, FolderReader, FolderRequest,
};
use crate::config::{NodeConfig, NodeRole, RateLimits};
use crate::downloads::{
    Committer, ContentReader, Download, DownloadRequest, Downloads, DownloadsConfig, Follow,
    Roster, RosterConfig, StreamError,
};
use crate::error::{FindError, PartFailed, StartError};
use crate::follow::{self, follow};
use crate::lookup::{LanLookup, Lookup};
use crate::nat::PortMapper;
use crate::neighbours::Neighbours;
use crate::peers::{Acceptor, Adopter, Dialler, PathMonitor, PathRace, PeerEvent, PeerTable};
use crate::runtime::{BlockingBatch, BufferPool, Tasks};
use crate::shares::{ShareStore, digests};
use crate::sharing::{self, FolderShareRequest, Share, ShareRequest};
use crate::trackers::{IntroductionFrom, Trackers, TrackersConfig, local_candidates};
use crate::uploads::{Uploads, UploadsConfig};
use crate::vocabulary::{Contact, Findings, NodeEvent, NodeStatus};
pub use roster::{Downloads as DownloadRoster, VerifiedChunks};
pub use views::{ConnectedPeer, ListedShare, SharesPage, Traffic};

/// Events that a slow subscriber may lag behind before it misses some.
const EVENTS_KEPT: usize = 1024;
/// Introductions that may wait; a tracker that sends more waits.
const INTRODUCTIONS_MAX: usize = 64;
/// Time for announcing to peers and trackers that this node leaves. The first packets are sent at
/// once; the rest of the time is for retransmissions.
const GOODBYE: Duration = Duration::from_millis(500);
/// The shorter time of a one-shot command, whose user waits for it.
const SHORT_GOODBYE: Duration = Duration::from_millis(10);
/// Time for tasks to end by themselves after that.
const WIND_DOWN: Duration = Duration::from_secs(2);

/// A running node. Clones are the same node; it runs until [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    parts: Arc<Parts>,
    /// Subscribed before the shared directories were opened; for the first subscriber.
    first_events: Arc<Mutex<Option<broadcast::Receiver<NodeEvent>>>>,
}

/// The state behind the methods of [`Node`]. No part sees this struct: each gets its collaborators
/// when it is created.
struct Parts {
    endpoint: Endpoint,
    neighbours: Arc<Neighbours>,
    trackers: Arc<Trackers>,
    table: Arc<PeerTable>,
    port_mapper: Arc<PortMapper>,
    shares: Arc<ShareStore>,
    uploads: Arc<Uploads>,
    codes: Arc<Codes>,
    downloads: Arc<Downloads>,
    /// Of a node that runs for long.
    roster: Option<Arc<Roster>>,
    dialler: Arc<Dialler>,
    lookup: Lookup,
    events: broadcast::Sender<NodeEvent>,
    goodbye: Duration,
    tasks: Tasks,
}

impl Node {
    /// Binds the socket, opens the shared directories and begins to announce and to serve.
    /// Unfinished downloads of an earlier run are resumed. The node runs on the current tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the port, the index, a directory or a thread cannot be had. An
    /// unreachable tracker is no error: the node keeps trying.
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
            sha256,
            role,
            limits,
        } = config;
        let (role, shared_dirs) = match role {
            NodeRole::Full(shares) => (Role::Node, Some(shares)),
            NodeRole::OneShot => (Role::OneShot, None),
        };
        let roster_dirs = shared_dirs
            .as_ref()
            .map(|shares| (shares.downloads.clone(), shares.state_dir.clone()));
        let is_one_shot = role == Role::OneShot;
        let endpoint = Endpoint::bind(
            &identity,
            &EndpointConfig {
                listen,
                accept_alpn: ALPN_PEER,
                transport: limits.transport.clone(),
            },
        )?;
        endpoint.pacing().set_up(limits.rates.up);
        endpoint.pacing().down.set(limits.rates.down);
        let us = endpoint.id();
        let greeting = Greeting {
            role,
            group: group.clone(),
            candidates: Vec::new(),
            features: FEATURE_CODES
                | FEATURE_PRIVATE_SHARES
                | FEATURE_COLLECTIONS
                | match punch_hard {
                    true => FEATURE_BIRTHDAY_PUNCH,
                    false => 0,
                },
            extensions: Vec::new(),
        };
        let committer = Committer::start()?;

        // From the bottom up: each part knows those before it.
        let tasks = Tasks::new();
        let (events, first_events) = broadcast::channel(EVENTS_KEPT);
        let state_dir = shared_dirs.as_ref().map(|dirs| dirs.state_dir.clone());
        let shares = Arc::new(ShareStore::open(shared_dirs, events.clone()).await?);
        if sha256 {
            digests::start(&shares, state_dir)?;
        }
        let neighbours = Arc::new(Neighbours::new(lan));
        let has_trackers = !trackers.is_empty();
        let (introductions, introduced) = mpsc::channel(INTRODUCTIONS_MAX);
        let trackers = Arc::new(Trackers::new(TrackersConfig {
            endpoint: endpoint.clone(),
            greeting: greeting.clone(),
            known: known_trackers,
            shares: shares.clone(),
            addresses: trackers,
            introductions,
            events: events.clone(),
            tasks: tasks.clone(),
        }));
        let traversal = Traversal::install(&endpoint);
        let table = Arc::new(PeerTable::new(
            us,
            limits.windows_max_bytes,
            endpoint.pacing().clone(),
        ));
        let (peer_events, peers_changed) = mpsc::unbounded_channel();
        let adopter = Arc::new(Adopter::new(
            endpoint.clone(),
            traversal.clone(),
            neighbours.clone(),
            table.clone(),
            peer_events,
            tasks.clone(),
        ));
        let race = Arc::new(PathRace::new(
            endpoint.clone(),
            greeting.clone(),
            traversal.clone(),
            trackers.clone(),
        ));
        let dialler = Arc::new(Dialler::new(
            table.clone(),
            neighbours.clone(),
            race.clone(),
            adopter.clone(),
            tasks.clone(),
        ));
        let monitor = Arc::new(PathMonitor::new(race, dialler.clone(), tasks.clone()));
        let acceptor = Arc::new(Acceptor::new(
            endpoint.clone(),
            greeting,
            limits.half_open_max,
            limits.accepted_connections_max,
            adopter,
            tasks.clone(),
        ));
        let port_mapper = Arc::new(PortMapper::new(
            port_mapping && !is_one_shot,
            endpoint.clone(),
            traversal.clone(),
            trackers.clone(),
            events.clone(),
        ));
        let lan_lookup = Arc::new(LanLookup::new(
            neighbours.clone(),
            dialler.clone(),
            trackers.clone(),
            is_one_shot,
        ));
        let buffers = BufferPool::new(limits.buffers_kept_bytes);
        let batch = Arc::new(BlockingBatch::new());
        let codes = Arc::new(Codes::new(
            us,
            trackers.clone(),
            neighbours.clone(),
            dialler.clone(),
            tasks.clone(),
        ));
        let uploads = Arc::new(Uploads::new(UploadsConfig {
            us,
            limits: &limits,
            shares: shares.clone(),
            neighbours: neighbours.clone(),
            codes: codes.clone(),
            buffers: buffers.clone(),
            batch: batch.clone(),
            pacing: endpoint.pacing().clone(),
            has_trackers,
            tasks: tasks.clone(),
        }));
        let downloads = Arc::new(Downloads::new(DownloadsConfig {
            us,
            limits: &limits,
            shares: shares.clone(),
            trackers: trackers.clone(),
            lan: lan_lookup.clone(),
            table: table.clone(),
            dialler: dialler.clone(),
            buffers,
            batch,
            committer,
            events: events.clone(),
            pacing: endpoint.pacing().clone(),
            tasks: tasks.clone(),
        }));

        let roster = roster_dirs.map(|(dir, state_dir)| {
            let folders = FolderDownloads::new(downloads.clone(), shares.clone(), &state_dir);
            Roster::new(RosterConfig {
                downloads: downloads.clone(),
                folders: Arc::new(folders),
                shares: shares.clone(),
                dir,
                state_dir,
                tasks: tasks.clone(),
            })
        });

        uploads.start();
        tasks.supervise(
            "peer events",
            route_peer_events(peers_changed, uploads.clone(), monitor),
        );
        tasks.supervise(
            "introductions",
            route_introductions(introduced, dialler.clone()),
        );
        tasks.supervise("accepting connections", acceptor.run());
        tasks.supervise("NAT traversal", traversal.run());
        let (discovering, offers) = (neighbours.clone(), shares.watch_offers());
        let (on, stopping) = (endpoint.clone(), tasks.stopping().clone());
        tasks.supervise_to_the_end("local network", async move {
            let shares = !is_one_shot;
            discovering.run(&on, group, shares, offers, &stopping).await;
        });
        let (mapper, stopping) = (port_mapper.clone(), tasks.stopping().clone());
        tasks.supervise_to_the_end("port mapping", async move { mapper.run(&stopping).await });
        trackers.start();
        report_failure(&tasks, &events);

        let lookup = Lookup::new(trackers.clone(), lan_lookup);
        let node = Node {
            parts: Arc::new(Parts {
                endpoint,
                neighbours,
                trackers,
                table,
                port_mapper,
                shares,
                uploads,
                codes,
                downloads,
                roster,
                dialler,
                lookup,
                events,
                goodbye: match is_one_shot {
                    true => SHORT_GOODBYE,
                    false => GOODBYE,
                },
                tasks,
            }),
            first_events: Arc::new(Mutex::new(Some(first_events))),
        };
        if let Some(roster) = &node.parts.roster {
            roster.restore().await;
            let parts = &node.parts;
            let following = follow(roster.clone(), parts.lookup.clone(), parts.dialler.clone());
            parts.tasks.supervise("followed downloads", following);
        }
        Ok(node)
    }

    /// Returns this node's id.
    pub fn id(&self) -> NodeId {
        self.parts.endpoint.id()
    }

    /// Returns the address on which it listens; an unspecified address means all interfaces.
    pub fn listen_address(&self) -> SocketAddr {
        // The socket is bound as long as the endpoint lives.
        let address = self.parts.endpoint.local_addr();
        address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Returns addresses at which nodes on the same networks may reach this node: the one on which
    /// it listens, or those of the interfaces.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let listen = self.listen_address();
        if !listen.ip().is_unspecified() {
            return vec![SocketAddr::new(listen.ip().to_canonical(), listen.port())];
        }
        let candidates = local_candidates(&self.parts.endpoint);
        let addresses = candidates
            .into_iter()
            .filter_map(|candidate| match candidate.address {
                Address::Socket(at) => Some(at),
                Address::TrackerHost { .. } => None,
            });
        let (four, six): (Vec<_>, Vec<_>) = addresses.partition(SocketAddr::is_ipv4);
        four.into_iter().chain(six).collect()
    }

    /// Subscribes to events. The first subscription has all events since the start, later ones only
    /// those after the call.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        let first = self.first_events.lock();
        let first = first.unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.parts.events.subscribe())
    }

    /// Waits until a part of the node fails, because its task panicked, for example. The node is
    /// unusable from then on. Stays pending while no part fails.
    pub async fn failure(&self) -> PartFailed {
        self.parts.tasks.failure().await
    }

    /// Asks all trackers, and the nodes of the local network where no tracker knows. Waits up to
    /// `patience` for the first of them to be reachable, and a little longer while a tracker that
    /// has just started finds nothing.
    ///
    /// # Errors
    ///
    /// [`FindError`] when there was no answer. Finding nothing is an answer.
    pub async fn find(
        &self,
        query: &Query,
        limit: usize,
        patience: Duration,
    ) -> Result<Findings, FindError> {
        self.find_all(query, limit, patience, patience).await
    }

    /// Asks for up to `limit` files, as [`Node::find`] does. A tracker must be reached within
    /// `patience`. The listing is truncated when `deadline` has passed.
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
        let lookup = &self.parts.lookup;
        lookup.find(query, limit, patience, deadline).await
    }

    /// Begins a download, or returns the running one of the same content to the same target.
    pub fn download(&self, request: DownloadRequest) -> Download {
        match &self.parts.roster {
            Some(roster) => roster.begin(request),
            None => self.parts.downloads.begin(request),
        }
    }

    /// Offers a code, which stands for a link until the result is dropped, closed, or 24 h have
    /// passed. It is claimed at all trackers and on the local network; it is replaced when three
    /// guesses at it failed.
    pub fn offer_code(&self, config: CodeOfferConfig) -> CodeOffer {
        self.parts.codes.offer(config)
    }

    /// Redeems a code: asks all trackers and the nodes of the local network for its link. At most
    /// three of them can test a guess at its words in one call.
    ///
    /// # Errors
    ///
    /// [`RedeemError`]. The code is never sent; its number is.
    pub async fn redeem(
        &self,
        code: &Code,
        patience: RedeemPatience,
    ) -> Result<Redeemed, RedeemError> {
        self.parts.codes.redeem(code, patience).await
    }

    /// Tells the sharer of a code that this receiver has everything, so that a share for a limited
    /// number of receivers can end. Takes 5 s at most. Returns whether the sharer knows now.
    pub async fn report_complete(&self, redeemed: &Redeemed) -> bool {
        self.parts.codes.report_complete(redeemed).await
    }

    /// Shares a file from where it lies, until the share or the node is stopped. Returns once the
    /// file is hashed.
    ///
    /// # Errors
    ///
    /// [`HashError`] when the file cannot be read or changes while it is hashed.
    pub async fn share_file(&self, request: ShareRequest) -> Result<Share, HashError> {
        let parts = &self.parts;
        let share = sharing::share(request, parts.shares.clone(), &parts.tasks).await?;
        // A one-shot node is discovered from now on.
        parts.neighbours.start();
        Ok(share)
    }

    /// Opens a content for reading the bytes of `range` in order, at most to its end, while they
    /// are fetched. The request's target is not used. See [`ContentReader`].
    ///
    /// # Errors
    ///
    /// When too many contents, or too many places of this one, are being read.
    pub fn read(
        &self,
        request: DownloadRequest,
        range: Range<u64>,
    ) -> Result<ContentReader, StreamError> {
        self.parts.downloads.read(request, range)
    }

    /// Shares a folder from where it lies, until the share or the node is stopped. Returns once all
    /// of its files are hashed.
    ///
    /// # Errors
    ///
    /// [`FolderError`] when the directory cannot be read or is too large, or hashing was cancelled.
    pub async fn share_folder(&self, request: FolderShareRequest) -> Result<Share, FolderError> {
        let parts = &self.parts;
        let share = sharing::share(request, parts.shares.clone(), &parts.tasks).await?;
        // A one-shot node is discovered from now on.
        parts.neighbours.start();
        Ok(share)
    }

    /// Asks holders for the folder that they share under a name: a collection, or a directory of
    /// their files. Returns its versions, the one with the most holders first.
    pub async fn ask_for_folder(
        &self,
        folder: &AssetName,
        holders: Vec<Contact>,
    ) -> Vec<FolderFound> {
        collections::ask_for_folder(&self.parts.dialler, folder, holders).await
    }

    /// Asks nodes that had a folder for it. Returns what they share under its name by now, if that
    /// is another version.
    pub async fn newer_folder(
        &self,
        follow: &Follow,
        present: ContentInfo,
        holders: Vec<Contact>,
    ) -> Option<FolderFound> {
        let parts = &self.parts;
        follow::newer_folder(&parts.lookup, &parts.dialler, follow, present, holders).await
    }

    /// Downloads the list of a folder, and validates it. Nothing of the folder itself is written.
    ///
    /// # Errors
    ///
    /// [`FolderFetchError`] when it cannot be downloaded, or is not valid.
    pub async fn open_folder(&self, request: FolderRequest) -> Result<Folder, FolderFetchError> {
        Folder::open(&self.parts.downloads, &self.parts.shares, request).await
    }

    /// Reads the list of a folder into memory, to read single files of it with [`Node::read`].
    ///
    /// # Errors
    ///
    /// [`FolderFetchError`] when it cannot be downloaded, or is not valid.
    pub async fn read_folder(
        &self,
        request: FolderRequest,
    ) -> Result<FolderReader, FolderFetchError> {
        FolderReader::open(&self.parts.downloads, request).await
    }

    /// Returns the index of hashed files in this node's state directory, if it has one.
    pub fn hash_index(&self) -> Option<HashIndex> {
        self.parts.shares.hash_index()
    }

    /// Returns the downloads that have not ended, those of earlier runs included.
    pub fn downloads(&self) -> Vec<Download> {
        self.parts.downloads.list()
    }

    /// Returns the nodes that were discovered on the local network, and their addresses.
    pub fn lan_nodes(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        self.parts.neighbours.nodes()
    }

    /// Limits the rates at which this node sends and receives, from now on.
    pub fn set_rate_limits(&self, limits: RateLimits) {
        let pacing = self.parts.endpoint.pacing();
        pacing.set_up(limits.up);
        pacing.down.set(limits.down);
        self.parts.table.share_windows();
    }

    /// Returns the rate limits in force.
    pub fn rate_limits(&self) -> RateLimits {
        let pacing = self.parts.endpoint.pacing();
        RateLimits {
            up: pacing.up(),
            down: pacing.down.limit(),
        }
    }

    /// Returns the node's status.
    pub fn status(&self) -> NodeStatus {
        let parts = &self.parts;
        let (assets, asset_bytes) = parts.shares.totals();
        let downloads = parts.downloads.list();
        NodeStatus {
            still_written: parts.shares.still_written(),
            assets,
            asset_bytes,
            trackers: parts.trackers.report(),
            port_mapping: parts.port_mapper.state(),
            peers: parts.table.count(),
            sent_bytes: parts.uploads.sent_bytes(),
            received_bytes: parts.downloads.received_bytes(),
            downloads: downloads.iter().map(Download::status).collect(),
        }
    }

    /// Stops the node. Downloads stop at once and can be resumed, running answers stop after at
    /// most `grace`, and connections are closed with a goodbye. A second call does nothing.
    pub async fn shutdown(&self, grace: Duration) {
        let parts = &self.parts;
        if let Some(roster) = &parts.roster
            && let Err(error) = roster.saved().await
        {
            warn!(%error, "cannot save the list of downloads");
        }
        parts.downloads.stop();
        for download in parts.downloads.all() {
            let _ = timeout(grace.max(WIND_DOWN), download.finished()).await;
        }
        let _ = timeout(grace, parts.uploads.idle()).await;
        parts.codes.shut_down().await;
        parts.tasks.stopping().cancel();
        let goodbye = parts.goodbye;
        parts.endpoint.close(CloseCode::Goodbye, goodbye).await;
        if timeout(WIND_DOWN, parts.tasks.wait()).await.is_err() {
            debug!(left = parts.tasks.count(), "tasks did not end in time");
        }
    }
}

/// Serves and watches every node that is connected.
async fn route_peer_events(
    mut changes: mpsc::UnboundedReceiver<PeerEvent>,
    uploads: Arc<Uploads>,
    monitor: Arc<PathMonitor>,
) {
    while let Some(event) = changes.recv().await {
        match event {
            PeerEvent::Connected(peer, connection) => {
                uploads.serve(peer.clone(), &connection);
                monitor.start(peer);
            }
            PeerEvent::Replaced(peer, connection) => uploads.serve(peer, &connection),
            PeerEvent::Gone(peer) => uploads.client_left(&peer),
        }
    }
}

/// Follows the introductions that trackers pass on.
async fn route_introductions(
    mut introduced: mpsc::Receiver<IntroductionFrom>,
    dialler: Arc<Dialler>,
) {
    while let Some(introduction) = introduced.recv().await {
        dialler.handle_introduction(introduction);
    }
    // Without trackers there are none.
    std::future::pending::<()>().await;
}

/// Reports to subscribers when a part of the node fails.
fn report_failure(tasks: &Tasks, events: &broadcast::Sender<NodeEvent>) {
    let (watched, events) = (tasks.clone(), events.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = watched.stopping().cancelled() => {}
            failed = watched.failure() => {
                let _ = events.send(NodeEvent::Failed(failed));
            }
        }
    });
}
