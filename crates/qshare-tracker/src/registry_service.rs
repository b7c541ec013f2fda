//! The registry as a service: one lock around it, and its outputs carried out.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{ContentId, NodeId, Topic};
use qshare_net::{Endpoint, close, close_because, framed, prove_address};
use qshare_registry::{
    Announced, AnnouncedTopic, Counts, EntryKey, EntryPosition, Find, FindError, GroupId,
    HolderChange, NetworkUse, NotAnnouncing, OpenError, Output, Page, Readiness, Refused, Registry,
    RegistryConfig, Sample, SessionGone, SessionId, TimeoutReason, WatchError, WatchId,
    topic_entry, topic_key,
};
use qshare_wire::CloseCode;
use qshare_wire::tracker::EntriesEvicted;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::debug;

use crate::access::Access;
use crate::clock::Clock;
use crate::contacts::canonical;
use crate::member::Member;
use crate::shared::{OwnEntries, SharedRegistry};

/// Entries that are put into the registry before other tasks get the thread: some milliseconds.
const ENTRIES_AT_ONCE: usize = 512;

/// Most addresses that are proven at once. Each takes up to 2 s and three datagrams.
const PROOFS_MAX: usize = 1024;
/// Evictions of this long are reported to their node together.
const EVICTION_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Time within which a node must take such a report.
const EVICTION_REPORT_DEADLINE: Duration = Duration::from_secs(30);
/// When a node may announce again what was evicted: one lease later, other nodes may have left.
const EVICTION_RETRY_MS: u32 = 30_000;

/// What a watch is about.
#[derive(Clone, Copy)]
pub(crate) enum Watched {
    Content(ContentId),
    Topic(Topic),
}

/// The registry behind one lock, which is never held across an await.
pub(crate) struct RegistryService {
    group: GroupId,
    lease: Duration,
    clock: Clock,
    work_is_left: Arc<Notify>,
    /// Publishes what changes, if the tracker shares a registry with others.
    shared: Option<Arc<SharedRegistry>>,
    state: Mutex<State>,
}

struct State {
    registry: Registry,
    connections: HashMap<SessionId, Arc<Member>>,
    sessions_by_node: HashMap<NodeId, SessionId>,
    watchers: HashMap<WatchId, Arc<Notify>>,
    /// Nodes whose entries were evicted, or that were, and that are published.
    evicted: Vec<Evictee>,
    /// Wakes [`RegistryService::expire_leases`].
    work_is_left: Arc<Notify>,
}

/// What was evicted, for the shared registry.
enum Evictee {
    Node(NodeId),
    Entries(NodeId),
}

impl State {
    /// Carries out the registry's outputs. None of them waits.
    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Superseded(session) => {
                    if let Some(older) = self.connections.remove(&session) {
                        debug!(%session, "replaced by a newer session");
                        close(&older.connection, CloseCode::Replaced);
                    }
                }
                Output::SessionEvicted(session) => {
                    if let Some(evicted) = self.connections.remove(&session) {
                        let node = evicted.node;
                        if self.sessions_by_node.get(&node) == Some(&session) {
                            self.evicted.push(Evictee::Node(node));
                        }
                        debug!(%session, "evicted to make room for nodes of other networks");
                        let reason =
                            "the tracker needs the slot for another network; reconnect in 5 s";
                        close_because(&evicted.connection, CloseCode::Busy, reason);
                    }
                }
                Output::EntriesEvicted(group, node) => {
                    let evicted = self.registry.take_evicted(group, node);
                    debug!(node = %node.short(), entries = evicted.count, "evicted to make room");
                    self.evicted.push(Evictee::Entries(node));
                    let session = self.sessions_by_node.get(&node);
                    let member = session.and_then(|session| self.connections.get(session));
                    if let Some(member) = member
                        && member.note_evicted(evicted.count)
                    {
                        tokio::spawn(report_evicted(Arc::clone(member)));
                    }
                }
                Output::WatchReady(watch) => {
                    if let Some(watcher) = self.watchers.get(&watch) {
                        watcher.notify_one();
                    }
                }
            }
        }
        let timeout = self.registry.poll_timeout();
        if timeout.is_some_and(|timeout| timeout.reason == TimeoutReason::WorkIsLeft) {
            self.work_is_left.notify_one();
        }
    }
}

/// Tells a node how many of its entries were evicted, once a second at most.
async fn report_evicted(member: Arc<Member>) {
    loop {
        tokio::time::sleep(EVICTION_REPORT_INTERVAL).await;
        let Some(entries) = member.take_evicted() else {
            return;
        };
        let message = EntriesEvicted {
            entries: u32::try_from(entries).unwrap_or(u32::MAX),
            retry_after_ms: EVICTION_RETRY_MS,
            extensions: Vec::new(),
        };
        let mut control = member.control.lock().await;
        let written = framed::write(&mut control, &message);
        if !matches!(
            tokio::time::timeout(EVICTION_REPORT_DEADLINE, written).await,
            Ok(Ok(()))
        ) {
            // A part of the message may have been written: nothing can follow it.
            close(&member.connection, CloseCode::Busy);
            return;
        }
    }
}

impl fmt::Debug for RegistryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryService").finish_non_exhaustive()
    }
}

impl RegistryService {
    pub(crate) fn new(
        group: GroupId,
        config: RegistryConfig,
        clock: Clock,
        shared: Option<Arc<SharedRegistry>>,
    ) -> RegistryService {
        let work_is_left = Arc::new(Notify::new());
        RegistryService {
            group,
            lease: config.lease,
            work_is_left: Arc::clone(&work_is_left),
            shared,
            state: Mutex::new(State {
                registry: Registry::new(config, clock.now(), rand::random()),
                connections: HashMap::new(),
                sessions_by_node: HashMap::new(),
                watchers: HashMap::new(),
                evicted: Vec::new(),
                work_is_left,
            }),
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the registry, then carries out its outputs.
    fn with<T>(&self, act: impl FnOnce(&mut Registry, Instant) -> T) -> T {
        let mut state = self.lock();
        // The clock is read under the lock, so that the registry's time never runs backwards.
        let now = self.clock.now();
        let done = act(&mut state.registry, now);
        state.drain();
        let evicted = std::mem::take(&mut state.evicted);
        drop(state);
        self.publish_evicted(evicted);
        done
    }

    fn publish_evicted(&self, evicted: Vec<Evictee>) {
        let Some(shared) = &self.shared else { return };
        for evictee in evicted {
            match evictee {
                Evictee::Node(node) => shared.publisher.closed(node, Vec::new(), true),
                Evictee::Entries(node) => shared.publisher.changed_otherwise(node),
            }
        }
    }

    /// Publishes a member's addresses.
    fn publish_moved(&self, node: NodeId, member: &Member) {
        if let Some(shared) = &self.shared {
            let details = shared.details(member.observed.get(), member.claims(), member.features);
            shared.publisher.moved(node, details);
        }
    }

    /// Opens a session; `number` is what the node calls it.
    pub(crate) fn open(
        &self,
        node: NodeId,
        number: u64,
        member: Member,
    ) -> Result<SessionId, OpenError> {
        let mut state = self.lock();
        let now = self.clock.now();
        let observed = member.observed.get();
        let opened =
            state
                .registry
                .handle_session_opened(now, self.group, node, observed, &member.claims());
        if let Ok(session) = opened {
            if let Some(shared) = &self.shared {
                let details = shared.details(observed, member.claims(), member.features);
                shared.publisher.opened(node, number, details);
            }
            let member = Arc::new(member);
            state.connections.insert(session, member);
            state.sessions_by_node.insert(node, session);
        }
        state.drain();
        opened
    }

    /// Ends a session. Returns whether the node has no newer one.
    pub(crate) fn close(&self, session: SessionId, node: NodeId, clean: bool) -> bool {
        let mut state = self.lock();
        let now = self.clock.now();
        state.connections.remove(&session);
        let is_last = state.sessions_by_node.get(&node) == Some(&session);
        if is_last {
            state.sessions_by_node.remove(&node);
            if let Some(shared) = &self.shared {
                let keys = self.keys_of(&state.registry, node);
                shared.publisher.closed(node, keys, clean);
            }
        }
        state.registry.handle_session_closed(now, session, clean);
        state.drain();
        is_last
    }

    /// Whether the registry has run for long enough to know all entries.
    pub(crate) fn readiness(&self) -> Readiness {
        self.with(|registry, now| registry.readiness(now))
    }

    /// Closes the sessions of nodes that may not connect any more, and of those that may announce
    /// and could not, or the reverse: they connect again and announce what they may.
    pub(crate) fn apply_lists(&self, access: &Access) {
        let state = self.lock();
        for (node, session) in &state.sessions_by_node {
            let Some(member) = state.connections.get(session) else {
                continue;
            };
            if !access.may_connect(node) {
                close(&member.connection, CloseCode::NotAllowed);
            } else if access.may_announce(node) != member.may_announce {
                let why = "the list of nodes that may announce has changed";
                close_because(&member.connection, CloseCode::Busy, why);
            }
        }
    }

    fn keys_of(&self, registry: &Registry, node: NodeId) -> Vec<EntryKey> {
        let mut keys = Vec::new();
        let mut after = None;
        loop {
            let (entries, last) = registry.entries_of(self.group, node, after, ENTRIES_AT_ONCE);
            keys.extend(entries.into_iter().map(|entry| EntryKey {
                content: entry.info.id(),
                name: entry.name,
            }));
            match last {
                Some(_) => after = last,
                None => return keys,
            }
        }
    }

    /// Returns a node in session, to introduce another to it.
    pub(crate) fn introducible(&self, node: NodeId) -> Option<Arc<Member>> {
        let state = self.lock();
        let session = state.sessions_by_node.get(&node)?;
        state.connections.get(session).map(Arc::clone)
    }

    /// Replaces the address of a node that a knock has proven. From then on, it is sent to other
    /// nodes.
    pub(crate) fn set_proven(&self, node: NodeId, session: SessionId, at: Option<SocketAddr>) {
        let mut state = self.lock();
        let State {
            registry,
            connections,
            ..
        } = &mut *state;
        let Some(member) = connections.get(&session) else {
            return;
        };
        if member.set_proven(at) != at {
            debug!(%session, ?at, "proven address changed");
            let (now, observed) = (self.clock.now(), member.observed.get());
            // It fails for an ended session, whose task is about to remove it here, too.
            let _ = registry.handle_moved(now, session, observed, &member.claims());
        }
        let member = Arc::clone(member);
        state.drain();
        drop(state);
        self.publish_moved(node, &member);
    }

    pub(crate) fn begin_announcement(
        &self,
        node: NodeId,
        session: SessionId,
    ) -> Result<(), SessionGone> {
        self.with(|registry, now| registry.handle_announcement_begun(now, session))?;
        if let Some(shared) = &self.shared {
            shared.publisher.begun(node);
        }
        Ok(())
    }

    pub(crate) fn end_announcement(
        &self,
        node: NodeId,
        session: SessionId,
    ) -> Result<usize, NotAnnouncing> {
        let dropped =
            self.with(|registry, now| registry.handle_announcement_ended(now, session))?;
        if let Some(shared) = &self.shared {
            shared.publisher.ended(node);
        }
        Ok(dropped)
    }

    /// Waits until other trackers can find what the node announced, unless the shared registry is
    /// away.
    pub(crate) async fn flushed(&self, node: NodeId) {
        if let Some(shared) = &self.shared {
            shared.publisher.flushed(node).await;
        }
    }

    /// Lists entries; returns the refused ones by their position in `entries`.
    pub(crate) async fn announce(
        &self,
        node: NodeId,
        session: SessionId,
        entries: &[Announced],
    ) -> Result<Vec<Refused>, SessionGone> {
        let mut refused = Vec::new();
        for (batch, entries) in entries.chunks(ENTRIES_AT_ONCE).enumerate() {
            let first = batch * ENTRIES_AT_ONCE;
            let taken =
                self.with(|registry, now| registry.handle_announced(now, session, entries))?;
            if let Some(shared) = &self.shared {
                let is_taken = |at: &usize| !taken.iter().any(|refused| refused.position == *at);
                let listed = entries.iter().enumerate();
                let listed = listed.filter(|(at, _)| is_taken(at));
                let listed = listed.map(|(_, entry)| entry.clone());
                shared.publisher.announced(node, listed);
            }
            refused.extend(taken.into_iter().map(|refused| Refused {
                position: first + refused.position,
                ..refused
            }));
            tokio::task::yield_now().await;
        }
        Ok(refused)
    }

    pub(crate) async fn withdraw(
        &self,
        node: NodeId,
        session: SessionId,
        keys: &[EntryKey],
    ) -> Result<(), SessionGone> {
        for keys in keys.chunks(ENTRIES_AT_ONCE) {
            self.with(|registry, now| registry.handle_withdrawn(now, session, keys))?;
            if let Some(shared) = &self.shared {
                shared.publisher.withdrawn(node, keys);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Adds topics; returns how many were refused, and why the first of them was.
    pub(crate) async fn announce_topics(
        &self,
        node: NodeId,
        session: SessionId,
        topics: &[AnnouncedTopic],
    ) -> Result<Vec<Refused>, SessionGone> {
        let mut refused = Vec::new();
        for topics in topics.chunks(ENTRIES_AT_ONCE) {
            let taken =
                self.with(|registry, now| registry.handle_topics_announced(now, session, topics))?;
            if let Some(shared) = &self.shared {
                let is_taken = |at: &usize| !taken.iter().any(|refused| refused.position == *at);
                let listed = topics.iter().enumerate().filter(|(at, _)| is_taken(at));
                let listed = listed.map(|(_, topic)| topic_entry(topic));
                shared.publisher.announced(node, listed);
            }
            refused.extend(taken);
            tokio::task::yield_now().await;
        }
        Ok(refused)
    }

    pub(crate) async fn withdraw_topics(
        &self,
        node: NodeId,
        session: SessionId,
        topics: &[Topic],
    ) -> Result<(), SessionGone> {
        for topics in topics.chunks(ENTRIES_AT_ONCE) {
            self.with(|registry, now| registry.handle_topics_withdrawn(now, session, topics))?;
            if let Some(shared) = &self.shared {
                let keys: Vec<EntryKey> = topics.iter().map(|&topic| topic_key(topic)).collect();
                shared.publisher.withdrawn(node, &keys);
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Looks something up in the tracker's group, which `find` names from then on.
    pub(crate) fn find(&self, find: &mut Find) -> Result<Page, FindError> {
        find.group = self.group;
        self.with(|registry, now| registry.find(now, find))
    }

    /// Begins a watch. `ready` is notified when [`Watching::changes`] has something.
    pub(crate) fn watch(
        self: &Arc<Self>,
        session: SessionId,
        watched: Watched,
        ready: Arc<Notify>,
    ) -> Result<Watching, WatchError> {
        let mut state = self.lock();
        let (registry, now) = (&mut state.registry, self.clock.now());
        let watch = match watched {
            Watched::Content(content) => registry.watch(now, session, content)?,
            Watched::Topic(topic) => registry.watch_topic(now, session, topic)?,
        };
        state.watchers.insert(watch, ready);
        state.drain();
        Ok(Watching {
            service: Arc::clone(self),
            watch,
        })
    }

    pub(crate) fn holders(
        &self,
        watched: Watched,
        limit: usize,
        asking: NodeId,
    ) -> (Sample, Readiness) {
        self.with(|registry, now| {
            let (group, asking) = (self.group, Some(asking));
            let holders = match watched {
                Watched::Content(content) => registry.holders(now, group, content, limit, asking),
                Watched::Topic(topic) => registry.topic_holders(now, group, topic, limit, asking),
            };
            (holders, registry.readiness(now))
        })
    }

    /// Returns what networks use of the registry in memory.
    pub(crate) fn network_use(&self, max: usize) -> NetworkUse {
        self.lock().registry.network_use(max)
    }

    /// Replaces what networks use of other trackers' registries.
    pub(crate) fn set_use_elsewhere(&self, elsewhere: NetworkUse) {
        self.lock().registry.set_use_elsewhere(elsewhere);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|registry, now| {
            registry.handle_timeout(now);
            registry.counts()
        })
    }

    /// Ends leases when they expire, so that watchers get reports, and finishes the work of earlier
    /// calls. Never returns.
    pub(crate) async fn expire_leases(&self) {
        loop {
            let due = self.with(|registry, now| {
                registry.handle_timeout(now);
                registry.poll_timeout()
            });
            match due {
                Some(due) if due.reason == TimeoutReason::WorkIsLeft => {
                    tokio::task::yield_now().await;
                }
                due => {
                    // A lease that begins during the sleep does not end before it.
                    let at = due.map_or_else(|| self.clock.now() + self.lease, |due| due.at);
                    tokio::select! {
                        () = self.clock.sleep_until(at) => {}
                        () = self.work_is_left.notified() => {}
                    }
                }
            }
        }
    }

    /// Looks for nodes whose address changed (QUIC connection migration), and takes a new address
    /// once a round trip has proven it. Never returns.
    pub(crate) async fn follow_moves(&self, endpoint: Endpoint, interval: Duration) {
        let mut last = None;
        loop {
            tokio::time::sleep(interval).await;
            let moved = self.moved(last);
            last = moved.last().map(|(session, _)| *session);
            let mut proofs = JoinSet::new();
            for (session, member) in moved {
                let endpoint = endpoint.clone();
                proofs.spawn(async move {
                    let proven = prove_address(&endpoint, &member.connection).await;
                    (session, member, proven)
                });
            }
            while let Some(proof) = proofs.join_next().await {
                let Ok((session, member, Some(observed))) = proof else {
                    continue;
                };
                debug!(%session, from = %member.observed.get(), to = %observed, "moved");
                member.observed.set(observed);
                self.with(|registry, now| {
                    // The session may have ended meanwhile.
                    let _ = registry.handle_moved(now, session, observed, &member.claims());
                });
                let node = self.node_of(session);
                if let Some(node) = node {
                    self.publish_moved(node, &member);
                }
            }
        }
    }

    fn node_of(&self, session: SessionId) -> Option<NodeId> {
        let state = self.lock();
        let node = state.connections.get(&session)?.node;
        (state.sessions_by_node.get(&node) == Some(&session)).then_some(node)
    }

    /// Returns a bounded number of sessions whose packets come from another address than the proven
    /// one, beginning after session `last`: a session that never proves its address does not
    /// keep another one waiting.
    fn moved(&self, last: Option<SessionId>) -> Vec<(SessionId, Arc<Member>)> {
        let mut moved: Vec<(SessionId, Arc<Member>)> = self
            .lock()
            .connections
            .iter()
            .filter(|(_, member)| {
                canonical(member.connection.remote_address()) != member.observed.get()
            })
            .map(|(&session, member)| (session, Arc::clone(member)))
            .collect();
        moved.sort_by_key(|&(session, _)| (last.is_some_and(|last| session <= last), session));
        moved.truncate(PROOFS_MAX);
        moved
    }
}

impl OwnEntries for RegistryService {
    fn entries_of(
        &self,
        node: NodeId,
        after: Option<EntryPosition>,
        max: usize,
    ) -> Option<(Vec<Announced>, Option<EntryPosition>)> {
        self.with(|registry, now| {
            registry.handle_timeout(now);
            let is_sweeping = registry.is_sweeping(self.group, node);
            (!is_sweeping).then(|| registry.entries_of(self.group, node, after, max))
        })
    }

    fn moved_away(&self, node: NodeId) {
        let mut state = self.lock();
        let session = state.sessions_by_node.remove(&node);
        let member = session.and_then(|session| state.connections.remove(&session));
        let now = self.clock.now();
        state.registry.handle_moved_away(now, self.group, node);
        state.drain();
        if let Some(member) = member {
            close(&member.connection, CloseCode::Replaced);
        }
    }
}

/// A watch that ends when this is dropped.
pub(crate) struct Watching {
    service: Arc<RegistryService>,
    watch: WatchId,
}

impl Watching {
    /// Returns up to `max` changes that the watcher has not been told yet.
    pub(crate) fn changes(&self, max: usize) -> Vec<HolderChange> {
        self.service.with(|registry, now| {
            let changes = std::iter::from_fn(|| registry.poll_change(now, self.watch));
            changes.take(max).collect()
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.service.lock();
        state.watchers.remove(&self.watch);
        state.registry.unwatch(self.watch);
    }
}
