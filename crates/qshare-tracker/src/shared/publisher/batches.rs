//! Batches: which calls are carried out next, of several nodes in turn.

use std::collections::HashSet;
use std::time::Instant;

use qshare_content::{ContentId, NodeId};
use qshare_registry::{Announced, EntryKey, is_topic};
use rand::Rng;

use super::super::layout::{ENTRY_LIFETIME, EntryFlags, Stamp};
use super::super::reader::Named;
use super::super::scripts::Call;
use super::published::{Change, Leaving, Published, Walk};
use super::{BATCH_CALLS, BATCH_ENTRIES, OwnEntries, Publisher, REFRESHES_PER_LEASE};

/// What an answer is for.
pub(super) enum Purpose {
    Open(NodeId, Stamp),
    Refresh(NodeId, u64),
    Close(NodeId, u64),
    Put(ContentId),
    Remove(Named),
    Other,
}

/// Calls, and what they are for.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) calls: Vec<Call>,
    pub(super) purposes: Vec<Purpose>,
    pub(super) nodes: Vec<NodeId>,
}

impl Batch {
    pub(super) fn add(&mut self, call: Call, purpose: Purpose) {
        self.calls.push(call);
        self.purposes.push(purpose);
    }

    pub(super) fn is_full(&self) -> bool {
        self.calls.len() >= BATCH_CALLS
    }
}

impl Publisher {
    /// Returns when the node's lease is extended again, or ends if its session has; nodes are
    /// spread over the time.
    pub(super) fn next_refresh(&self, of: &Published) -> Instant {
        let interval = self.lease / REFRESHES_PER_LEASE;
        let now = Instant::now();
        let next = now + interval.mul_f64(rand::rng().random_range(0.7..1.0));
        let end = of.leaving.as_ref().map(|leaving| leaving.at);
        // An end that has come is handled already.
        let end = end.filter(|&end| end > now);
        end.map_or(next, |end| next.min(end))
    }

    pub(super) fn due_refreshes(&self) -> Batch {
        let mut batch = Batch::default();
        let mut state = self.lock();
        let now = Instant::now();
        while !batch.is_full()
            && let Some(&(at, node)) = state.due.first()
            && at <= now
        {
            let next = state.nodes.get(&node).map(|of| self.next_refresh(of));
            state.set_due(node, next);
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
    pub(super) fn next_batch(&self, own: &dyn OwnEntries) -> Batch {
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
                    // The answer tells whether the entries go.
                    let call = self.layout.close(node, stamp.number, self.us);
                    batch.add(call, Purpose::Close(node, stamp.number));
                    batch.nodes.push(node);
                    state.enqueue(node);
                    continue;
                }
                if leaving.keys.is_empty() {
                    // The last removals have been carried out: until then, lookups must take the
                    // entries in Redis for those of the memory, which has dropped them.
                    state.remove(node);
                    continue;
                }
                for _ in 0..BATCH_ENTRIES {
                    let Some(key) = leaving.keys.pop() else { break };
                    self.add_removal(&mut batch, node, stamp, key);
                }
                batch.nodes.push(node);
                state.enqueue(node);
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
    pub(super) fn add_changes(
        &self,
        batch: &mut Batch,
        node: NodeId,
        stamp: Stamp,
        of: &mut Published,
    ) {
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

    pub(super) fn add_entry(
        &self,
        batch: &mut Batch,
        node: NodeId,
        stamp: Stamp,
        entry: &Announced,
    ) {
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

    pub(super) fn add_removal(&self, batch: &mut Batch, node: NodeId, stamp: Stamp, key: EntryKey) {
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
}
