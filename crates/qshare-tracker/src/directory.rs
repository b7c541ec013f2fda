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
use quinn::Connection;
use tokio::sync::Notify;
use tracing::debug;

use crate::contacts::canonical;
use crate::session::close;

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
    watchers: HashMap<WatchId, Arc<Notify>>,
}

/// The connection of a session, with what the registry knows of its address.
struct Attached {
    connection: Connection,
    seen_at: SocketAddr,
    claimed: Vec<SocketAddr>,
}

impl Inner {
    /// Carries out what the registry wants done. None of it waits.
    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Superseded(session) => {
                    if let Some(older) = self.connections.remove(&session) {
                        debug!(%session, "replaced by a newer session");
                        close(&older.connection, CloseCode::Replaced);
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

    pub(crate) fn open(
        &self,
        connection: &Connection,
        node: NodeId,
        claimed: Vec<SocketAddr>,
    ) -> Result<SessionId, OpenError> {
        let mut inner = self.lock();
        let now = Instant::now();
        let seen_at = canonical(connection.remote_address());
        let opened = inner
            .registry
            .handle_session_opened(now, self.group, node, seen_at, &claimed);
        if let Ok(session) = opened {
            let attached = Attached {
                connection: connection.clone(),
                seen_at,
                claimed,
            };
            inner.connections.insert(session, attached);
        }
        inner.drain();
        opened
    }

    pub(crate) fn closed(&self, session: SessionId, clean: bool) {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.connections.remove(&session);
        inner.registry.handle_session_closed(now, session, clean);
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
                let seen_at = canonical(attached.connection.remote_address());
                if seen_at != attached.seen_at {
                    debug!(%session, from = %attached.seen_at, to = %seen_at, "moved");
                    attached.seen_at = seen_at;
                    // An ended session is about to be taken out of the connections.
                    let _ = registry.handle_moved(now, session, seen_at, &attached.claimed);
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
