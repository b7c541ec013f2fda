//! The shared registry as the rest of the tracker uses it: composes the parts, and runs them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use qshare_net::Endpoint;
use qshare_registry::GroupId;
use qshare_wire::introduction::RelayTicket;
use qshare_wire::siblings::Sibling;
use tokio::sync::{mpsc, watch};

use super::address::SharedRegistryConfig;
use super::inbox::{TrackerMessage, post, read_inbox};
use super::introduction::{
    IntroductionAnswer, IntroductionRequest, IntroductionResult, Introductions,
};
use super::layout::{Layout, bytes_of};
use super::link::{Link, RegistryFault};
use super::lookup::SharedLookup;
use super::mailbox_records::{MailboxRecords, MailboxTimes};
use super::own_sessions::OwnSessions;
use super::pairing::{HostedRun, OpenRun, PairingMessage, Pairings};
use super::publisher::{OwnEntries, Publisher};
use super::reader::Reader;
use super::refusals::WriteRefusal;
use super::session_record::{ObservingTracker, SessionDetails, host_id};
use super::siblings::Siblings;
use super::usage::{TrackerUse, Usage};
use super::watches::{RemoteHolders, Watches};
use crate::registry_metrics::RegistryMetrics;

/// Time for an answer of Redis, and for one that waits up to a second for a message. A node that
/// asks this tracker because another one hangs has waited 500 ms already, and should wait no longer
/// than a second.
const RESPONSE_DEADLINE: Duration = Duration::from_millis(400);
const INBOX_DEADLINE: Duration = Duration::from_millis(2_500);
/// Messages that have arrived and are not handled yet.
const MESSAGES_MAX: usize = 1_024;

/// What the rest of the tracker does for other trackers.
pub(crate) trait TrackerPeer: Send + Sync {
    /// Introduces one of this tracker's nodes.
    fn introduce(
        &self,
        request: &IntroductionRequest,
    ) -> impl Future<Output = IntroductionResult> + Send;

    /// Carries out a run of another tracker's receiver at a mailbox of this tracker.
    fn host_run(&self, open: OpenRun, run: HostedRun) -> impl Future<Output = ()> + Send;

    /// Returns what networks use of this tracker, up to `max` of each kind, the heaviest ones.
    fn network_use(&self, max: usize) -> TrackerUse;

    /// Replaces what networks use of other trackers.
    fn set_use_elsewhere(&self, elsewhere: TrackerUse);

    /// Ends a mailbox of this tracker that had to yield.
    fn evict_mailbox(&self, number: u32);
}

/// A shared registry in use.
pub(crate) struct SharedRegistry {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) lookup: Arc<SharedLookup>,
    watches: Arc<Watches>,
    introductions: Introductions,
    pub(crate) pairings: Arc<Pairings>,
    siblings: Siblings,
    usage: Usage,
    link: Arc<Link>,
    inbox: Arc<Link>,
    layout: Layout,
    us: NodeId,
    observer: ObservingTracker,
    metrics: RegistryMetrics,
    /// Names the registry; see [`qshare_wire::hello::EXTENSION_REGISTRY`].
    id: watch::Sender<Option<[u8; 16]>>,
}

impl fmt::Debug for SharedRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegistry").finish_non_exhaustive()
    }
}

impl SharedRegistry {
    pub(crate) fn new(
        config: &SharedRegistryConfig,
        group: GroupId,
        us: NodeId,
        listen: SocketAddr,
        lease: Duration,
    ) -> Result<SharedRegistry, RegistryFault> {
        let metrics = RegistryMetrics::new();
        let link = Arc::new(Link::new(config, RESPONSE_DEADLINE, metrics.clone())?);
        let inbox = Arc::new(Link::new(config, INBOX_DEADLINE, metrics.clone())?);
        let layout = Layout::new(group);
        let observer = ObservingTracker {
            host: host_id(),
            advertised: config.advertise,
        };
        let own = Arc::new(OwnSessions::default());
        let reader = Reader::new(
            Arc::clone(&link),
            layout.clone(),
            us,
            Arc::clone(&own),
            observer.clone(),
        );
        let lookup = Arc::new(SharedLookup::new(Arc::new(reader)));
        let publisher = Publisher::new(Arc::clone(&link), layout.clone(), us, own, lease);
        Ok(SharedRegistry {
            publisher: Arc::new(publisher),
            watches: Arc::new(Watches::new(
                Arc::clone(&link),
                layout.clone(),
                us,
                Arc::clone(&lookup),
            )),
            lookup,
            introductions: Introductions::default(),
            pairings: Arc::new(Pairings::new(Arc::clone(&link), layout.clone(), us)),
            siblings: Siblings {
                link: Arc::clone(&link),
                layout: layout.clone(),
                us,
                observer: observer.clone(),
                port: listen.port(),
                found: watch::Sender::default(),
            },
            usage: Usage::new(Arc::clone(&link), layout.clone(), us, observer.host),
            link,
            inbox,
            layout,
            us,
            observer,
            metrics,
            id: watch::Sender::new(None),
        })
    }

    /// Returns what is published of a node that this tracker observes at `observed`.
    pub(crate) fn details(
        &self,
        observed: SocketAddr,
        claimed: Vec<SocketAddr>,
        features: u64,
    ) -> SessionDetails {
        SessionDetails {
            observed,
            claimed,
            features,
            observer: self.observer.clone(),
        }
    }

    /// Returns this tracker's id.
    pub(crate) fn us(&self) -> NodeId {
        self.us
    }

    pub(crate) fn observer(&self) -> &ObservingTracker {
        &self.observer
    }

    /// Returns the registry's mailboxes, `max` at most over all trackers.
    pub(crate) fn mailboxes(&self, times: MailboxTimes, max: usize) -> MailboxRecords {
        MailboxRecords::new(Arc::clone(&self.link), &self.layout, self.us, times, max)
    }

    /// Returns a watch that reports each new connection to Redis: it may have lost everything.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.link.connections()
    }

    /// Whether Redis answers.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Returns why Redis refuses writes; None if it accepts them.
    pub(crate) fn write_refusal(&self) -> Option<WriteRefusal> {
        self.link.write_refusal()
    }

    pub(crate) fn metrics(&self) -> &RegistryMetrics {
        &self.metrics
    }

    /// Returns the registry's id, once it is known.
    pub(crate) fn id(&self) -> Option<[u8; 16]> {
        *self.id.borrow()
    }

    /// Returns what nodes are told of other trackers.
    pub(crate) fn siblings(&self) -> watch::Receiver<Arc<Vec<Sibling>>> {
        self.siblings.found.subscribe()
    }

    /// Returns the holders of a content at other trackers, as they change.
    pub(crate) fn watch(&self, content: ContentId) -> watch::Receiver<Option<RemoteHolders>> {
        self.watches.watch(content)
    }

    /// Asks another tracker to introduce one of its nodes. None if no tracker has a session with
    /// it, or that tracker does not answer.
    pub(crate) async fn introduce(
        &self,
        asked: NodeId,
        asker: NodeId,
        details: SessionDetails,
        id: u64,
        key: [u8; 16],
        relay: Option<RelayTicket>,
    ) -> Option<IntroductionResult> {
        let sessions = self.lookup.reader().sessions(vec![asked]).await.ok()?;
        let to = sessions.get(&asked)?.as_ref()?.tracker;
        if to == self.us {
            return None;
        }
        let request = IntroductionRequest {
            request: rand::random(),
            tracker: self.us,
            tracker_port: self.siblings.port,
            asker,
            details,
            asked,
            id,
            key,
            relay,
        };
        self.introductions
            .ask(&self.link, &self.layout, to, request)
            .await
    }

    /// Runs until the tracker stops. Never returns.
    pub(crate) async fn run(
        self: Arc<Self>,
        endpoint: Endpoint,
        own: Arc<dyn OwnEntries>,
        peer: Arc<impl TrackerPeer + 'static>,
    ) {
        let (messages, received) = mpsc::channel(MESSAGES_MAX);
        let inbox = read_inbox(
            Arc::clone(&self.inbox),
            self.layout.clone(),
            self.us,
            messages,
        );
        tokio::join!(
            Arc::clone(&self.publisher).run(own),
            inbox,
            self.handle_messages(received, Arc::clone(&peer)),
            self.usage.run(&*peer),
            self.siblings.run(endpoint),
            self.learn_id(),
        );
    }

    /// Tells other trackers that this one stops.
    pub(crate) async fn leave(&self) {
        self.siblings.leave().await;
    }

    /// Connects, and refuses registries that would lose entries.
    pub(crate) async fn check(&self) -> Result<(), RegistryFault> {
        self.link.connect().await?;
        self.exchange_id().await
    }

    /// Gives the registry an id if it has none: again after each connection, since a restarted
    /// Redis may be empty.
    async fn learn_id(&self) {
        let mut connections = self.link.connections();
        loop {
            while self.exchange_id().await.is_err() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            if connections.changed().await.is_err() {
                return;
            }
        }
    }

    async fn exchange_id(&self) -> Result<(), RegistryFault> {
        let ours = self.id().unwrap_or_else(rand::random);
        let calls = [Layout::name_registry(ours), Layout::registry_name()];
        self.link.run(&calls[..1]).await?;
        let values = self.link.run(&calls[1..]).await?;
        let id = values.first().and_then(bytes_of);
        let id = id.and_then(|bytes| bytes.try_into().ok());
        let id = id.ok_or(RegistryFault::Malformed)?;
        self.id.send_replace(Some(id));
        Ok(())
    }

    async fn handle_messages(
        self: &Arc<Self>,
        mut messages: mpsc::Receiver<TrackerMessage>,
        peer: Arc<impl TrackerPeer + 'static>,
    ) {
        while let Some(message) = messages.recv().await {
            match message {
                TrackerMessage::Changed(content) => self.watches.hint(content),
                TrackerMessage::MovedAway(node) => {
                    // A hint: the next refresh of the session's lease tells for certain.
                    self.publisher.check_soon(node);
                }
                TrackerMessage::Introduced(answer) => self.introductions.handle_answer(answer),
                TrackerMessage::Pairing(message) => self.handle_pairing(message, &peer),
                TrackerMessage::Introduce(request) => {
                    let (shared, peer) = (Arc::clone(self), Arc::clone(&peer));
                    tokio::spawn(async move { shared.handle_request(request, &*peer).await });
                }
            }
        }
        std::future::pending::<()>().await;
    }

    fn handle_pairing(&self, message: PairingMessage, peer: &Arc<impl TrackerPeer + 'static>) {
        match message {
            PairingMessage::Open(open) => {
                if let Some(run) = self.pairings.host(&open) {
                    let peer = Arc::clone(peer);
                    tokio::spawn(async move { peer.host_run(open, run).await });
                }
            }
            PairingMessage::ToSharer { tracker, run, step } => {
                self.pairings.handle_receiver_step(tracker, run, step);
            }
            PairingMessage::ToReceiver { run, step } => {
                self.pairings.handle_sharer_step(run, step);
            }
            PairingMessage::Evicted { number } => peer.evict_mailbox(number),
        }
    }

    async fn handle_request(&self, request: IntroductionRequest, peer: &impl TrackerPeer) {
        let result = match self.introductions.begin(&request) {
            Ok(()) => {
                let result = peer.introduce(&request).await;
                self.introductions.end(&request, result.clone());
                result
            }
            Err(Some(result)) => result,
            Err(None) => return,
        };
        let answer = IntroductionAnswer {
            request: request.request,
            result,
        };
        let message = [TrackerMessage::Introduced(answer)];
        // The asking tracker repeats its request if the answer is lost.
        let _ = self
            .link
            .run(&[post(&self.layout, request.tracker, &message)])
            .await;
    }
}
