//! Publishes the sessions and entries of this tracker's nodes.
//!
//! One task works off what changed. What it has not published yet is bounded: where too much waits,
//! or Redis was away, all entries of the node are read from the registry in memory and published
//! anew under a higher epoch, after which older ones do not count.

mod answers;
mod batches;
mod published;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_registry::{Announced, EntryKey, EntryPosition};
use rand::Rng;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::published::{Change, Leaving, Published, State, Walk};
use super::layout::Layout;
use super::link::{Link, RegistryFault};
use super::own_sessions::OwnSessions;
use super::session_record::SessionDetails;

/// Calls of one batch.
const BATCH_CALLS: usize = 1_024;
/// Entries of one node that are published in one batch.
const BATCH_ENTRIES: usize = 256;
/// Changes of one node that wait; beyond, all of its entries are published anew.
const CHANGES_MAX: usize = 8_192;
/// A session's lease is extended this often.
const REFRESHES_PER_LEASE: u32 = 3;
/// Longest pause without looking for what is due.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause if what waits cannot be published yet.
const PAUSE_WHILE_WAITING: Duration = Duration::from_millis(20);
/// Pause after Redis refused a write, because its memory is full for example.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// Longest wait of a node for its announcement to be published. While Redis is away, announcements
/// are acknowledged without it.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// The registry in memory, as the publisher uses it.
pub(crate) trait OwnEntries: Send + Sync {
    /// Returns entries of a node that follow `after`, and the position of the last one. None while
    /// some that it lists no longer exist.
    fn entries_of(
        &self,
        node: NodeId,
        after: Option<EntryPosition>,
        max: usize,
    ) -> Option<(Vec<Announced>, Option<EntryPosition>)>;

    /// The node has a newer session with another tracker.
    fn moved_away(&self, node: NodeId);
}

/// Publishes this tracker's sessions and entries.
pub(crate) struct Publisher {
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    lease: Duration,
    state: Mutex<State>,
    work: Notify,
}

impl Publisher {
    pub(super) fn new(
        link: Arc<Link>,
        layout: Layout,
        us: NodeId,
        own_sessions: Arc<OwnSessions>,
        lease: Duration,
    ) -> Publisher {
        Publisher {
            link,
            layout,
            us,
            lease,
            state: Mutex::new(State {
                own_sessions,
                ..State::default()
            }),
            work: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has opened a session. Nothing is published before it announces something.
    pub(crate) fn opened(&self, node: NodeId, number: u64, details: SessionDetails) {
        let mut state = self.lock();
        match state.nodes.get_mut(&node) {
            Some(known) => {
                known.leaving = None;
                known.pending = Some((number, details));
            }
            None => {
                let published = Published {
                    number,
                    epoch: 0,
                    details,
                    pending: None,
                    must_open: true,
                    is_announcing: false,
                    is_in_full: false,
                    walked_in_full: false,
                    walk: Walk::Idle,
                    changes: VecDeque::new(),
                    walked_at: Instant::now(),
                    refresh_at: None,
                    not_before: None,
                    is_queued: false,
                    leaving: None,
                    flushed: Vec::new(),
                };
                state.nodes.insert(node, published);
                state.own_sessions.begin(node, number);
            }
        }
        state.enqueue(node);
        drop(state);
        self.work.notify_one();
    }

    fn change(&self, node: NodeId, act: impl FnOnce(&mut Published)) {
        let mut state = self.lock();
        if let Some(published) = state.nodes.get_mut(&node) {
            published.is_announcing = true;
            published.begin_session();
            act(published);
            if published.changes.len() > CHANGES_MAX {
                published.begin_anew();
            }
        }
        state.enqueue(node);
        drop(state);
        self.work.notify_one();
    }

    /// A full announcement has begun.
    pub(crate) fn begun(&self, node: NodeId) {
        self.change(node, |published| {
            published.is_in_full = true;
            published.walked_in_full = !matches!(published.walk, Walk::Idle);
        });
    }

    /// The registry in memory has taken these entries.
    pub(crate) fn announced(&self, node: NodeId, entries: impl Iterator<Item = Announced>) {
        self.change(node, |published| {
            published.changes.extend(entries.map(Change::Put));
        });
    }

    pub(crate) fn withdrawn(&self, node: NodeId, keys: &[EntryKey]) {
        self.change(node, |published| {
            let keys = keys.iter().cloned();
            published.changes.extend(keys.map(Change::Remove));
        });
    }

    /// A full announcement has ended.
    pub(crate) fn ended(&self, node: NodeId) {
        self.change(node, |published| {
            published.is_in_full = false;
            if std::mem::take(&mut published.walked_in_full) {
                // Entries that were not announced again were published under the same stamp.
                published.begin_anew();
            } else {
                published.changes.push_back(Change::Finish);
            }
        });
    }

    /// The registry in memory has changed what it keeps of a node in another way.
    pub(crate) fn changed_otherwise(&self, node: NodeId) {
        self.change(node, Published::begin_anew);
    }

    /// The node's addresses have changed.
    pub(crate) fn moved(&self, node: NodeId, details: SessionDetails) {
        let mut state = self.lock();
        match state.nodes.get_mut(&node) {
            Some(Published {
                pending: Some((_, pending)),
                ..
            }) => *pending = details,
            Some(published) => {
                published.details = details;
                published.must_open = true;
            }
            None => {}
        }
        state.enqueue(node);
        drop(state);
        self.work.notify_one();
    }

    /// The node's session has ended; `keys` are all of its entries. Without a goodbye they stay for
    /// the lease.
    pub(crate) fn closed(&self, node: NodeId, keys: Vec<EntryKey>, clean: bool) {
        let mut state = self.lock();
        let Some(published) = state.nodes.get_mut(&node) else {
            return;
        };
        if !published.is_announcing {
            state.remove(node);
            return;
        }
        let now = Instant::now();
        let at = if clean { now } else { now + self.lease };
        published.pending = None;
        published.leaving = Some(Leaving {
            at,
            keys,
            is_closed: false,
        });
        if clean {
            published.changes.clear();
            published.walk = Walk::Idle;
            published.must_open = false;
            state.enqueue(node);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Extends the node's lease at once, which tells whether it has a newer session elsewhere.
    pub(crate) fn check_soon(&self, node: NodeId) {
        let mut state = self.lock();
        let is_refreshed = |published: &Published| published.refresh_at.is_some();
        if state.nodes.get(&node).is_some_and(is_refreshed) {
            state.set_due(node, Some(Instant::now()));
        }
        drop(state);
        self.work.notify_one();
    }

    /// Returns how many changes wait to be published, and of how many nodes all entries do.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        let queued = state.queue.iter().filter_map(|node| state.nodes.get(node));
        queued.fold((0, 0), |(changes, walks), published| {
            let is_walked = !matches!(published.walk, Walk::Idle);
            (
                changes + published.changes.len(),
                walks + usize::from(is_walked),
            )
        })
    }

    /// Whether entries of living nodes may be missing from Redis, because it refuses writes of any
    /// tracker, or was away or found to have lost entries within the last lease: other trackers
    /// need time to notice and to publish theirs. A node may hold what Redis does not have then.
    pub(crate) fn is_behind(&self) -> bool {
        let failed_at = self.lock().failed_at;
        failed_at.is_some_and(|at| at.elapsed() < self.lease) || self.link.write_refusal().is_some()
    }

    /// Waits until what the node announced is published, unless Redis is away.
    pub(crate) async fn flushed(&self, node: NodeId) {
        if !self.link.is_up() {
            return;
        }
        let waiting = {
            let mut state = self.lock();
            match state.nodes.get_mut(&node) {
                Some(published) if !published.is_idle() => {
                    let (wake, waiting) = oneshot::channel();
                    published.flushed.push(wake);
                    waiting
                }
                _ => return,
            }
        };
        let _ = timeout(FLUSH_DEADLINE, waiting).await;
    }

    /// Publishes until the tracker stops. Never returns.
    pub(crate) async fn run(self: Arc<Self>, own: Arc<dyn OwnEntries>) {
        let mut connections = self.link.connections();
        loop {
            if connections.has_changed().unwrap_or(false) && *connections.borrow_and_update() > 1 {
                self.handle_reconnected();
            }
            let refreshes = self.due_refreshes();
            let worked = match self.carry_out(refreshes, &*own).await {
                Ok(worked) => {
                    let batch = self.next_batch(&*own);
                    match self.carry_out(batch, &*own).await {
                        Ok(more) => Ok(worked || more),
                        Err(fault) => Err(fault),
                    }
                }
                Err(fault) => Err(fault),
            };
            match worked {
                Ok(true) => {}
                Ok(false) => {
                    tokio::select! {
                        _ = timeout(self.until_due(), self.work.notified()) => {}
                        _ = connections.changed() => connections.mark_changed(),
                    }
                }
                Err(fault) => self.recover(fault).await,
            }
        }
    }

    /// There is a new connection: Redis may have come back empty, or as a replica that lacks the
    /// last writes, although none of this tracker's own was lost. The leases of all nodes are
    /// extended at once, which tells whose entries are missing.
    fn handle_reconnected(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        state.failed_at = Some(now);
        let published = state
            .nodes
            .iter()
            .filter(|(_, published)| published.refresh_at.is_some());
        let nodes: Vec<NodeId> = published.map(|(&node, _)| node).collect();
        for node in nodes {
            state.set_due(node, Some(now));
        }
    }

    /// Returns how long to wait if nothing new happens.
    fn until_due(&self) -> Duration {
        let state = self.lock();
        if !state.queue.is_empty() {
            // Something waits for the registry in memory, or for a pause to end.
            return PAUSE_WHILE_WAITING;
        }
        let first = state.due.first().map(|(at, _)| *at);
        first.map_or(PAUSE_MAX, |at| {
            at.saturating_duration_since(Instant::now()).min(PAUSE_MAX)
        })
    }

    /// Waits until Redis answers again.
    async fn recover(&self, fault: RegistryFault) {
        debug!(cause = %fault, "cannot publish");
        if self.link.is_up() {
            return;
        }
        loop {
            let pause = rand::rng().random_range(0.1..0.3);
            sleep(Duration::from_secs_f64(pause)).await;
            if self.link.connect().await.is_ok() {
                return;
            }
        }
    }
}
