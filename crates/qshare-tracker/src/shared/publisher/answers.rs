//! Carries batches out: what Redis answers, and what a failure means.

use std::collections::BTreeMap;
use std::time::Instant;

use qshare_content::NodeId;
use redis::Value;
use tracing::debug;

use super::super::inbox::{TrackerMessage, post};
use super::super::layout::{Stamp, decode_removed, decode_trackers, strings_of};
use super::super::link::RegistryFault;
use super::super::reader::{Named, unlist};
use super::super::scripts::Call;
use super::batches::{Batch, Purpose};
use super::{OwnEntries, PAUSE_AFTER_REFUSAL, Publisher};

impl Publisher {
    /// Carries out a batch and handles the answers. Returns whether there was anything.
    pub(super) async fn carry_out(
        &self,
        batch: Batch,
        own: &dyn OwnEntries,
    ) -> Result<bool, RegistryFault> {
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
                Purpose::Close(node, number) => self.handle_closed(node, number, &value),
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

    pub(super) fn handle_opened(
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
        let mut state = self.lock();
        let next = state.nodes.get(&node).map(|of| self.next_refresh(of));
        state.set_due(node, next);
    }

    pub(super) fn handle_refreshed(
        &self,
        node: NodeId,
        number: u64,
        value: &Value,
        own: &dyn OwnEntries,
    ) {
        match value {
            Value::Int(0) => {
                // Redis lost it: it was restarted, or a replica took over that had not received it.
                let mut state = self.lock();
                state.failed_at = Some(Instant::now());
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

    /// A session that ended is marked so. If the node has a newer one with another tracker, its
    /// entries stay until it has announced everything there.
    pub(super) fn handle_closed(&self, node: NodeId, number: u64, value: &Value) {
        let mut state = self.lock();
        let Some(published) = state.nodes.get_mut(&node) else {
            return;
        };
        let is_same = published.number == number;
        let Some(leaving) = published.leaving.as_mut().filter(|_| is_same) else {
            // It has returned.
            return;
        };
        if *value == Value::Int(-1) {
            debug!(node = %node.short(), "left after it had moved to another tracker");
            state.remove(node);
        } else {
            leaving.is_closed = true;
        }
    }

    /// Forgets a node if its session is still the one with this number.
    pub(super) fn forget_if(&self, node: NodeId, number: u64, own: &dyn OwnEntries) {
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
    pub(super) fn wake(&self, nodes: &[NodeId]) {
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
    pub(super) fn failed(&self, batch: &Batch, is_up: bool) {
        let mut state = self.lock();
        state.failed_at = Some(Instant::now());
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
}
