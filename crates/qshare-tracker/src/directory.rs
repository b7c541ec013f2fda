//! The registry, shared by all sessions, and what its outputs lead to.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{ContentId, NodeId};
use qshare_registry::{
    Announced, Counts, EntryKey, Find, FindError, GroupId, Holder, HolderChange, NotAnnouncing,
    OpenError, Output, Page, Readiness, Refused, Registry, RegistryConfig, SessionGone, SessionId,
    WatchError, WatchId,
};
use qshare_wire::CloseCode;
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use quinn::Connection;
use tokio::sync::Notify;
use tracing::debug;

use crate::contacts::canonical;
use crate::session::{Control, close};

/// Entries put into the registry at once, before others have their turn: some milliseconds.
const ENTRIES_AT_ONCE: usize = 512;

/// The registry behind one lock that is never held while waiting.
pub(crate) struct Directory {
    group: GroupId,
    lease: Duration,
    inner: Mutex<Inner>,
}

struct Inner {
    registry: Registry,
    connections: HashMap<SessionId, Attached>,
    sessions_by_node: HashMap<NodeId, SessionId>,
    watchers: HashMap<WatchId, Arc<Notify>>,
}

/// How many introductions a node that did not ask for them gets at once, and a second.
const INTRODUCTIONS_BURST: f64 = 100.0;
const INTRODUCTIONS_PER_SECOND: f64 = 20.0;

/// A node in session, as others are introduced to it.
pub(crate) struct Member {
    pub(crate) connection: Connection,
    pub(crate) control: Control,
    claimed: Vec<SocketAddr>,
    /// It agrees to many probes.
    pub(crate) may_birthday_punch: bool,
    /// Where a knock came back from, if others are to be told.
    proven: Mutex<Option<SocketAddr>>,
    introductions: Mutex<(f64, Instant)>,
}

impl Member {
    pub(crate) fn new(
        connection: Connection,
        control: Control,
        claimed: Vec<SocketAddr>,
        features: u64,
    ) -> Member {
        Member {
            connection,
            control,
            claimed,
            may_birthday_punch: features & FEATURE_BIRTHDAY_PUNCH != 0,
            proven: Mutex::default(),
            introductions: Mutex::new((INTRODUCTIONS_BURST, Instant::now())),
        }
    }

    /// Where the node is besides where it is seen: proven first, then what it claimed itself.
    pub(crate) fn claims(&self) -> Vec<SocketAddr> {
        self.proven()
            .into_iter()
            .chain(self.claimed.iter().copied())
            .collect()
    }

    /// Where a knock came back from, if others are to be told.
    pub(crate) fn proven(&self) -> Option<SocketAddr> {
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more introduction is not too many.
    pub(crate) fn may_be_introduced(&self) -> bool {
        let mut introductions = self
            .introductions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.saturating_duration_since(introductions.1).as_secs_f64();
        let left = (introductions.0 + passed * INTRODUCTIONS_PER_SECOND).min(INTRODUCTIONS_BURST);
        let may = left >= 1.0;
        *introductions = (if may { left - 1.0 } else { left }, now);
        may
    }
}

/// The connection of a session, with what the registry knows of its address.
struct Attached {
    member: Arc<Member>,
    seen_at: SocketAddr,
}

impl Inner {
    /// Carries out what the registry wants done. None of it waits.
    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Superseded(session) => {
                    if let Some(older) = self.connections.remove(&session) {
                        debug!(%session, "replaced by a newer session");
                        close(&older.member.connection, CloseCode::Replaced);
                    }
                }
                Output::WatchReady(watch) => {
                    if let Some(watcher) = self.watchers.get(&watch) {
                        watcher.notify_one();
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    pub(crate) fn new(group: GroupId, config: RegistryConfig) -> Directory {
        Directory {
            group,
            lease: config.lease,
            inner: Mutex::new(Inner {
                registry: Registry::new(config, Instant::now(), rand::random()),
                connections: HashMap::new(),
                sessions_by_node: HashMap::new(),
                watchers: HashMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the registry, then what follows from it.
    fn with<T>(&self, act: impl FnOnce(&mut Registry, Instant) -> T) -> T {
        let mut inner = self.lock();
        // Under the lock, so that the registry's time never runs backwards.
        let now = Instant::now();
        let done = act(&mut inner.registry, now);
        inner.drain();
        done
    }

    pub(crate) fn open(&self, node: NodeId, member: Member) -> Result<SessionId, OpenError> {
        let mut inner = self.lock();
        let now = Instant::now();
        let seen_at = canonical(member.connection.remote_address());
        let opened =
            inner
                .registry
                .handle_session_opened(now, self.group, node, seen_at, &member.claims());
        if let Ok(session) = opened {
            let member = Arc::new(member);
            let attached = Attached { member, seen_at };
            inner.connections.insert(session, attached);
            inner.sessions_by_node.insert(node, session);
        }
        inner.drain();
        opened
    }

    /// Notes a session's end; whether the node has no other.
    pub(crate) fn closed(&self, session: SessionId, node: NodeId, clean: bool) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.connections.remove(&session);
        let is_last = inner.sessions_by_node.get(&node) == Some(&session);
        if is_last {
            inner.sessions_by_node.remove(&node);
        }
        inner.registry.handle_session_closed(now, session, clean);
        inner.drain();
        is_last
    }

    /// A node in session, to be told of another.
    pub(crate) fn introducible(&self, node: NodeId) -> Option<Arc<Member>> {
        let inner = self.lock();
        let session = inner.sessions_by_node.get(&node)?;
        inner
            .connections
            .get(session)
            .map(|attached| Arc::clone(&attached.member))
    }

    /// Others are told from now on that a node is here, too; or no longer that it is where it was.
    pub(crate) fn prove(&self, session: SessionId, at: Option<SocketAddr>) {
        let mut inner = self.lock();
        let Inner {
            registry,
            connections,
            ..
        } = &mut *inner;
        let Some(attached) = connections.get(&session) else {
            return;
        };
        let member = &attached.member;
        let known = {
            let mut proven = member.proven.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *proven, at)
        };
        if known != at {
            debug!(%session, ?at, "proven");
            let (now, seen_at) = (Instant::now(), attached.seen_at);
            // An ended session is about to be taken out of the connections.
            let _ = registry.handle_moved(now, session, seen_at, &member.claims());
        }
        inner.drain();
    }

    pub(crate) fn begin_announcement(&self, session: SessionId) -> Result<(), SessionGone> {
        self.with(|registry, now| registry.handle_announcement_begun(now, session))
    }

    pub(crate) fn end_announcement(&self, session: SessionId) -> Result<usize, NotAnnouncing> {
        self.with(|registry, now| registry.handle_announcement_ended(now, session))
    }

    /// Returns the entries that were not taken, by their position in `entries`.
    pub(crate) async fn announce(
        &self,
        session: SessionId,
        entries: &[Announced],
    ) -> Result<Vec<Refused>, SessionGone> {
        let mut refused = Vec::new();
        for (batch, entries) in entries.chunks(ENTRIES_AT_ONCE).enumerate() {
            let first = batch * ENTRIES_AT_ONCE;
            let taken =
                self.with(|registry, now| registry.handle_announced(now, session, entries))?;
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
        session: SessionId,
        keys: &[EntryKey],
    ) -> Result<(), SessionGone> {
        for keys in keys.chunks(ENTRIES_AT_ONCE) {
            self.with(|registry, now| registry.handle_withdrawn(now, session, keys))?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(crate) fn find(&self, find: Find) -> Result<Page, FindError> {
        let find = Find {
            group: self.group,
            ..find
        };
        self.with(|registry, now| registry.find(now, &find))
    }

    /// Begins a watch; what is to be read of it is announced through `ready`.
    pub(crate) fn watch(
        self: &Arc<Self>,
        session: SessionId,
        content: ContentId,
        ready: Arc<Notify>,
    ) -> Result<Watching, WatchError> {
        let mut inner = self.lock();
        let watch = inner.registry.watch(Instant::now(), session, content)?;
        inner.watchers.insert(watch, ready);
        inner.drain();
        Ok(Watching {
            directory: Arc::clone(self),
            watch,
        })
    }

    pub(crate) fn holders(
        &self,
        content: ContentId,
        limit: usize,
        asking: NodeId,
    ) -> (Vec<Holder>, Readiness) {
        self.with(|registry, now| {
            let holders = registry.holders(now, self.group, content, limit, Some(asking));
            (holders, registry.readiness(now))
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|registry, now| {
            registry.handle_timeout(now);
            registry.counts()
        })
    }

    /// Ends leases when they are due, so that watchers hear of it. Never returns.
    pub(crate) async fn expire_leases(&self) {
        loop {
            let due = self.with(|registry, now| {
                registry.handle_timeout(now);
                registry.poll_timeout()
            });
            // A lease that begins while we sleep lasts for at least as long.
            let at = due.map_or_else(|| Instant::now() + self.lease, |due| due.at);
            tokio::time::sleep_until(at.into()).await;
        }
    }

    /// Looks for nodes whose address changed (QUIC connection migration). Never returns.
    pub(crate) async fn follow_moves(&self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let mut inner = self.lock();
            let Inner {
                registry,
                connections,
                ..
            } = &mut *inner;
            let now = Instant::now();
            for (&session, attached) in connections {
                let seen_at = canonical(attached.member.connection.remote_address());
                if seen_at != attached.seen_at {
                    debug!(%session, from = %attached.seen_at, to = %seen_at, "moved");
                    attached.seen_at = seen_at;
                    // An ended session is about to be taken out of the connections.
                    let _ = registry.handle_moved(now, session, seen_at, &attached.member.claims());
                }
            }
            inner.drain();
        }
    }
}

/// A watch that ends when this is dropped.
pub(crate) struct Watching {
    directory: Arc<Directory>,
    watch: WatchId,
}

impl Watching {
    /// Up to `max` changes that were not told yet.
    pub(crate) fn changes(&self, max: usize) -> Vec<HolderChange> {
        self.directory.with(|registry, now| {
            let changes = std::iter::from_fn(|| registry.poll_change(now, self.watch));
            changes.take(max).collect()
        })
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut inner = self.directory.lock();
        inner.watchers.remove(&self.watch);
        inner.registry.unwatch(self.watch);
    }
}
