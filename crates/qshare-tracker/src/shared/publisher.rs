//! Publishes the sessions and entries of this tracker's nodes.
//!
//! One task works off what changed. What it has not published yet is bounded: where too much waits,
//! or Redis was away, all entries of the node are read from the registry in memory and published
//! anew under a higher epoch, after which older ones do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{ContentId, NodeId};
use qshare_registry::{Announced, EntryKey, EntryPosition, is_topic};
use rand::Rng;
use redis::Value;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::inbox::{TrackerMessage, post};
use super::layout::{
    ENTRY_LIFETIME, EntryFlags, Layout, Stamp, decode_removed, decode_trackers, strings_of,
};
use super::link::{Link, RegistryFault};
use super::reader::{Named, unlist};
use super::scripts::Call;
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

enum Change {
    Put(Announced),
    Remove(EntryKey),
    /// The end of a full announcement.
    Finish,
}

/// Walks all entries of a node.
#[derive(Clone, Copy)]
enum Walk {
    /// Nothing to do.
    Idle,
    /// Goes on behind this position.
    At(Option<EntryPosition>),
}

/// One node of this tracker, as it is published.
struct Published {
    number: u64,
    epoch: u32,
    details: SessionDetails,
    /// A newer session that has not announced anything yet. It may be a spare one, while the node
    /// announces to another tracker.
    pending: Option<(u64, SessionDetails)>,
    /// Whether the session, or its new details, must be published.
    must_open: bool,
    /// Whether anything was announced. Before, nothing is published: a node that has another
    /// session with the same registry leaves again without announcing.
    is_announcing: bool,
    /// Whether a full announcement has begun and not ended.
    is_in_full: bool,
    /// Whether all entries were published anew since that began.
    walked_in_full: bool,
    walk: Walk,
    changes: VecDeque<Change>,
    walked_at: Instant,
    refresh_at: Option<Instant>,
    not_before: Option<Instant>,
    is_queued: bool,
    leaving: Option<Leaving>,
    flushed: Vec<oneshot::Sender<()>>,
}

/// A node whose session has ended.
struct Leaving {
    /// When its entries go.
    at: Instant,
    keys: Vec<EntryKey>,
    is_closed: bool,
}

impl Published {
    fn stamp(&self) -> Stamp {
        Stamp {
            number: self.number,
            epoch: self.epoch,
        }
    }

    /// Publishes everything anew, so that what was published before does not count any more.
    fn begin_anew(&mut self) {
        self.epoch += 1;
        self.must_open = true;
        self.walk = Walk::At(None);
        self.changes.clear();
        self.walked_in_full = self.is_in_full;
    }

    /// Takes over the newer session that has just announced something. The node's earlier entries
    /// stay until it has announced all of them again. A number that is not higher comes from a
    /// clock that was set back.
    fn begin_session(&mut self) {
        let Some((number, details)) = self.pending.take() else {
            return;
        };
        self.number = number.max(self.number + 1);
        self.epoch = 0;
        self.details = details;
        self.must_open = true;
        self.is_in_full = false;
        if !matches!(self.walk, Walk::Idle) || !self.changes.is_empty() {
            self.walk = Walk::At(None);
            self.changes.clear();
        }
    }

    fn is_idle(&self) -> bool {
        !self.must_open && matches!(self.walk, Walk::Idle) && self.changes.is_empty()
    }

    fn wake(&mut self) {
        for waiting in self.flushed.drain(..) {
            let _ = waiting.send(());
        }
    }
}

#[derive(Default)]
struct State {
    nodes: HashMap<NodeId, Published>,
    queue: VecDeque<NodeId>,
    due: BTreeSet<(Instant, NodeId)>,
}

impl State {
    fn enqueue(&mut self, node: NodeId) {
        if let Some(published) = self.nodes.get_mut(&node)
            && published.is_announcing
            && !published.is_queued
        {
            published.is_queued = true;
            self.queue.push_back(node);
        }
    }

    fn set_due(&mut self, node: NodeId, at: Option<Instant>) {
        if let Some(published) = self.nodes.get_mut(&node) {
            if let Some(earlier) = published.refresh_at {
                self.due.remove(&(earlier, node));
            }
            published.refresh_at = at;
            if let Some(at) = at {
                self.due.insert((at, node));
            }
        }
    }

    fn remove(&mut self, node: NodeId) {
        self.set_due(node, None);
        if let Some(mut removed) = self.nodes.remove(&node) {
            removed.wake();
        }
    }
}

/// What an answer is for.
enum Purpose {
    Open(NodeId, Stamp),
    Refresh(NodeId, u64),
    Put(ContentId),
    Remove(Named),
    Other,
}

/// Calls, and what they are for.
#[derive(Default)]
struct Batch {
    calls: Vec<Call>,
    purposes: Vec<Purpose>,
    nodes: Vec<NodeId>,
}

impl Batch {
    fn add(&mut self, call: Call, purpose: Purpose) {
        self.calls.push(call);
        self.purposes.push(purpose);
    }

    fn is_full(&self) -> bool {
        self.calls.len() >= BATCH_CALLS
    }
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
    pub(crate) fn new(link: Arc<Link>, layout: Layout, us: NodeId, lease: Duration) -> Publisher {
        Publisher {
            link,
            layout,
            us,
            lease,
            state: Mutex::default(),
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
        loop {
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
                    let _ = timeout(self.until_due(), self.work.notified()).await;
                }
                Err(fault) => self.recover(fault).await,
            }
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

    /// A time after which a lease is extended again; nodes are spread over the time.
    fn next_refresh(&self) -> Instant {
        let interval = self.lease / REFRESHES_PER_LEASE;
        Instant::now() + interval.mul_f64(rand::rng().random_range(0.7..1.0))
    }

    fn due_refreshes(&self) -> Batch {
        let mut batch = Batch::default();
        let mut state = self.lock();
        let now = Instant::now();
        while !batch.is_full()
            && let Some(&(at, node)) = state.due.first()
            && at <= now
        {
            let next = self.next_refresh();
            state.set_due(node, Some(next));
            let Some(published) = state.nodes.get_mut(&node) else {
                continue;
            };
            if published
                .leaving
                .as_ref()
                .is_some_and(|leaving| leaving.at <= now)
            {
                state.enqueue(node);
                continue;
            }
            // Entries expire, too, if they are not published again.
            if now.duration_since(published.walked_at) > ENTRY_LIFETIME / 3 && published.is_idle() {
                published.walk = Walk::At(None);
            }
            let number = published.number;
            let call = self.layout.refresh(node, number, self.us, self.lease);
            if published.must_open {
                continue;
            }
            batch.add(call, Purpose::Refresh(node, number));
            if !matches!(published.walk, Walk::Idle) {
                state.enqueue(node);
            }
        }
        batch
    }

    /// Collects what is to be published next, of several nodes in turn.
    fn next_batch(&self, own: &dyn OwnEntries) -> Batch {
        let mut batch = Batch::default();
        let mut state = self.lock();
        let mut left = state.queue.len();
        let now = Instant::now();
        while left > 0
            && !batch.is_full()
            && let Some(node) = state.queue.pop_front()
        {
            left -= 1;
            let Some(published) = state.nodes.get_mut(&node) else {
                continue;
            };
            published.is_queued = false;
            if published.not_before.is_some_and(|at| now < at) {
                state.enqueue(node);
                continue;
            }
            published.not_before = None;
            let is_due = |leaving: &&mut Leaving| leaving.at <= now;
            let stamp = published.stamp();
            if let Some(leaving) = published.leaving.as_mut().filter(is_due) {
                if !leaving.is_closed {
                    let call = self.layout.close(node, stamp.number, self.us);
                    batch.add(call, Purpose::Other);
                    leaving.is_closed = true;
                }
                for _ in 0..BATCH_ENTRIES {
                    let Some(key) = leaving.keys.pop() else { break };
                    self.add_removal(&mut batch, node, stamp, key);
                }
                let is_done = leaving.keys.is_empty();
                batch.nodes.push(node);
                match is_done {
                    true => state.remove(node),
                    false => state.enqueue(node),
                }
                continue;
            }
            if published.must_open {
                let details = published.details.encode();
                let call = self.layout.open(node, stamp, self.us, details, self.lease);
                batch.add(call, Purpose::Open(node, stamp));
                published.must_open = false;
            } else if let Walk::At(after) = published.walk {
                // The registry is asked without the lock: it has one of its own, under which it
                // calls this publisher.
                drop(state);
                let read = own.entries_of(node, after, BATCH_ENTRIES);
                state = self.lock();
                let Some(published) = state.nodes.get_mut(&node) else {
                    continue;
                };
                if let Some((entries, last)) = read
                    && matches!(published.walk, Walk::At(at) if at == after)
                    && published.stamp() == stamp
                    && !published.must_open
                {
                    for entry in &entries {
                        self.add_entry(&mut batch, node, stamp, entry);
                    }
                    if last.is_some() {
                        published.walk = Walk::At(last);
                    } else {
                        published.walk = Walk::Idle;
                        published.walked_at = now;
                        if !published.is_in_full {
                            published.changes.push_back(Change::Finish);
                        }
                    }
                }
            } else {
                self.add_changes(&mut batch, node, stamp, published);
            }
            batch.nodes.push(node);
            let is_idle = state.nodes.get(&node).is_none_or(Published::is_idle);
            if !is_idle {
                state.enqueue(node);
            }
        }
        batch
    }

    /// Adds changes of one node, of each entry only the last one: in a cluster, the calls of a
    /// batch are not carried out in order.
    fn add_changes(&self, batch: &mut Batch, node: NodeId, stamp: Stamp, of: &mut Published) {
        let mut changes: Vec<Change> = Vec::new();
        while changes.len() < BATCH_ENTRIES
            && let Some(change) = of.changes.pop_front()
        {
            if matches!(change, Change::Finish) && !changes.is_empty() {
                of.changes.push_front(change);
                break;
            }
            let is_finish = matches!(change, Change::Finish);
            changes.push(change);
            if is_finish {
                break;
            }
        }
        let mut seen: HashSet<(String, ContentId)> = HashSet::new();
        for change in changes.into_iter().rev() {
            match change {
                Change::Finish => {
                    batch.add(self.layout.finish(node, stamp, self.us), Purpose::Other);
                }
                Change::Put(entry) => {
                    if seen.insert((entry.name.to_string(), entry.info.id())) {
                        self.add_entry(batch, node, stamp, &entry);
                    }
                }
                Change::Remove(key) => {
                    if seen.insert((key.name.to_string(), key.content)) {
                        self.add_removal(batch, node, stamp, key);
                    }
                }
            }
        }
    }

    fn add_entry(&self, batch: &mut Batch, node: NodeId, stamp: Stamp, entry: &Announced) {
        let (name, info) = (entry.name.as_str(), &entry.info);
        let flags = EntryFlags {
            complete: entry.complete,
            is_collection: entry.is_collection,
            metadata: entry.metadata,
        };
        let call = self.layout.put(node, stamp, name, info, flags);
        batch.add(call, Purpose::Put(info.id()));
        if is_topic(info) {
            return;
        }
        for call in self.layout.list(name, info) {
            batch.add(call, Purpose::Other);
        }
        if let Some(digest) = &entry.metadata.sha256 {
            for call in self.layout.list_digest(digest, info) {
                batch.add(call, Purpose::Other);
            }
        }
    }

    fn add_removal(&self, batch: &mut Batch, node: NodeId, stamp: Stamp, key: EntryKey) {
        let call = self
            .layout
            .remove(node, stamp, key.name.as_str(), key.content);
        let named = Named {
            name: key.name,
            content: key.content,
            // The answer tells.
            info: qshare_content::ContentInfo {
                length: 0,
                root: qshare_content::Hash([0; 32]),
            },
        };
        batch.add(call, Purpose::Remove(named));
    }

    /// Carries out a batch and handles the answers. Returns whether there was anything.
    async fn carry_out(&self, batch: Batch, own: &dyn OwnEntries) -> Result<bool, RegistryFault> {
        if batch.calls.is_empty() {
            self.wake(&batch.nodes);
            return Ok(false);
        }
        let values = match self.link.run(&batch.calls).await {
            Ok(values) => values,
            Err(fault) => {
                self.failed(&batch, self.link.is_up());
                return Err(fault);
            }
        };
        let mut messages: BTreeMap<NodeId, Vec<TrackerMessage>> = BTreeMap::new();
        let mut unnamed = Vec::new();
        for (purpose, value) in batch.purposes.into_iter().zip(values) {
            match purpose {
                Purpose::Open(node, stamp) => {
                    self.handle_opened(node, stamp, &value, own, &mut messages);
                }
                Purpose::Refresh(node, number) => self.handle_refreshed(node, number, &value, own),
                Purpose::Put(content) => {
                    for tracker in decode_trackers(&value) {
                        let message = TrackerMessage::Changed(content);
                        messages.entry(tracker).or_default().push(message);
                    }
                }
                Purpose::Remove(named) => {
                    let Some(removed) = decode_removed(value) else {
                        continue;
                    };
                    for &tracker in &removed.watchers {
                        let message = TrackerMessage::Changed(named.content);
                        messages.entry(tracker).or_default().push(message);
                    }
                    if let Some(info) = removed.unnamed {
                        unnamed.push((Named { info, ..named }, removed.has_names));
                    }
                }
                Purpose::Other => {}
            }
        }
        self.wake(&batch.nodes);
        let posts: Vec<Call> = messages
            .into_iter()
            .filter(|(tracker, _)| *tracker != self.us)
            .map(|(tracker, mut messages)| {
                messages.dedup();
                post(&self.layout, tracker, &messages)
            })
            .collect();
        if let Err(fault) = self.link.run(&posts).await {
            // Hints only; watchers read again by themselves.
            debug!(cause = %fault, "other trackers were not told");
        }
        for (named, has_names) in unnamed {
            // What stays listed is removed by the first that reads it.
            if unlist(&self.link, &self.layout, &named, has_names)
                .await
                .is_err()
            {
                break;
            }
        }
        Ok(true)
    }

    fn handle_opened(
        &self,
        node: NodeId,
        stamp: Stamp,
        value: &Value,
        own: &dyn OwnEntries,
        messages: &mut BTreeMap<NodeId, Vec<TrackerMessage>>,
    ) {
        let Value::Array(parts) = value else { return };
        if parts.first() != Some(&Value::Int(1)) {
            debug!(node = %node.short(), "has a newer session with another tracker");
            self.forget_if(node, stamp.number, own);
            return;
        }
        let former = strings_of(value).into_iter().next();
        if let Some(former) = former.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            let message = TrackerMessage::MovedAway(node);
            messages.entry(NodeId(former)).or_default().push(message);
        }
        let next = self.next_refresh();
        self.lock().set_due(node, Some(next));
    }

    fn handle_refreshed(&self, node: NodeId, number: u64, value: &Value, own: &dyn OwnEntries) {
        match value {
            Value::Int(0) => {
                // Redis lost it: it was restarted, or a replica took over that had not received it.
                let mut state = self.lock();
                if let Some(published) = state.nodes.get_mut(&node)
                    && published.number == number
                {
                    published.begin_anew();
                    state.enqueue(node);
                }
            }
            Value::Int(-1) => {
                debug!(node = %node.short(), "has a newer session with another tracker");
                self.forget_if(node, number, own);
            }
            _ => {}
        }
    }

    /// Forgets a node if its session is still the one with this number.
    fn forget_if(&self, node: NodeId, number: u64, own: &dyn OwnEntries) {
        {
            let mut state = self.lock();
            let known = state.nodes.get(&node);
            if known.is_none_or(|published| published.number != number) {
                return;
            }
            state.remove(node);
        }
        own.moved_away(node);
    }

    /// Wakes those that wait for nodes which have nothing left to publish.
    fn wake(&self, nodes: &[NodeId]) {
        let mut state = self.lock();
        for node in nodes {
            if let Some(published) = state.nodes.get_mut(node)
                && published.is_idle()
            {
                published.wake();
            }
        }
    }

    /// A batch has failed. If the connection was lost, everything is published anew: other writes
    /// may have been lost, too, and a delayed one may still be carried out. Otherwise only the
    /// nodes of this batch, later.
    fn failed(&self, batch: &Batch, is_up: bool) {
        let mut state = self.lock();
        let nodes: Vec<NodeId> = match is_up {
            true => batch.nodes.clone(),
            false => state.nodes.keys().copied().collect(),
        };
        let later = Instant::now() + PAUSE_AFTER_REFUSAL;
        for node in nodes {
            let Some(published) = state.nodes.get_mut(&node) else {
                continue;
            };
            if published.is_announcing {
                published.begin_anew();
                published.not_before = is_up.then_some(later);
            }
            if let Some(leaving) = &mut published.leaving {
                leaving.is_closed = false;
            }
            published.wake();
            state.enqueue(node);
        }
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
