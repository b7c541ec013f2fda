//! Watches: which sessions get the changes of a content's holders.

use std::collections::{BTreeMap, VecDeque};

use qshare_content::{ContentId, NodeId};
use rand::Rng;
use rand::seq::index;

use crate::holders::Presence;
use crate::node::Node;
use crate::resources::Resources;
use crate::slab::Key;
use crate::types::{Output, WatchId};

/// A change that has not been reported to a watcher yet.
#[derive(Clone, Copy)]
pub(crate) struct Untold {
    /// What the node had in the last report to the watcher.
    pub(crate) before: Presence,
    /// Whether its addresses changed since then.
    pub(crate) moved: bool,
}

struct Watch {
    content: ContentId,
    watcher: Key<Node>,
    untold: BTreeMap<NodeId, Untold>,
    order: VecDeque<NodeId>,
    /// Whether [`Output::WatchReady`] was emitted and not all changes have been read since.
    announced: bool,
}

/// All watches of one group.
#[derive(Default)]
pub(crate) struct Watches {
    by_id: BTreeMap<WatchId, Watch>,
    by_content: BTreeMap<ContentId, Vec<WatchId>>,
    /// Unreported changes of all watches.
    untold: usize,
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn is_watched(&self, content: ContentId) -> bool {
        self.by_content.contains_key(&content)
    }

    pub(crate) fn open(&mut self, id: WatchId, watcher: Key<Node>, content: ContentId) {
        let watch = Watch {
            content,
            watcher,
            untold: BTreeMap::new(),
            order: VecDeque::new(),
            announced: false,
        };
        self.by_id.insert(id, watch);
        self.by_content.entry(content).or_default().push(id);
    }

    /// Ends a watch; returns the watching node and the content.
    pub(crate) fn close(&mut self, id: WatchId) -> Option<(Key<Node>, ContentId)> {
        let watch = self.by_id.remove(&id)?;
        self.untold -= watch.untold.len();
        if let Some(watches) = self.by_content.get_mut(&watch.content) {
            watches.retain(|&other| other != id);
            if watches.is_empty() {
                self.by_content.remove(&watch.content);
            }
        }
        Some((watch.watcher, watch.content))
    }

    /// Records that `node`, whose key is `key`, had `untold.before` of a content that now has
    /// `holders` holders.
    ///
    /// While there are few holders, every change is reported to all watchers. Beyond that, a change
    /// is reported to each watcher with a certain probability, so that the reported holders remain
    /// a uniform sample (reservoir sampling). Otherwise a thousand joining nodes would cost a
    /// million messages.
    pub(crate) fn note(
        &mut self,
        content: ContentId,
        key: Key<Node>,
        node: NodeId,
        untold: Untold,
        holders: usize,
        resources: &mut Resources,
    ) {
        let Some(watches) = self.by_content.get(&content) else {
            return;
        };
        let enough = resources.config.watched_holders;
        let told = if holders <= enough {
            watches.len()
        } else {
            // Rounded at random, so that a few watchers of many holders get some reports, too.
            let scaled = watches.len() * enough;
            scaled / holders
                + usize::from(resources.rng.random_range(0..holders) < scaled % holders)
        };
        // If all watches together are at the limit, each may still have its share.
        let share = resources.config.changes_total / self.by_id.len().max(1);
        for at in index::sample(&mut resources.rng, watches.len(), told) {
            let id = watches[at];
            let Some(watch) = self.by_id.get_mut(&id) else {
                continue;
            };
            if watch.watcher == key {
                continue;
            }
            let kept = watch.untold.len();
            let fits = kept < resources.config.changes_per_watch
                && (self.untold < resources.config.changes_total || kept < share);
            match watch.untold.get_mut(&node) {
                Some(earlier) => earlier.moved |= untold.moved,
                None if fits => {
                    watch.untold.insert(node, untold);
                    self.untold += 1;
                    watch.order.push_back(node);
                }
                None => continue,
            }
            if !watch.announced {
                watch.announced = true;
                resources.outputs.push_back(Output::WatchReady(id));
            }
        }
    }

    /// Removes the oldest unreported change of a watch; returns its content, its node, and what the
    /// node had before.
    pub(crate) fn next_untold(&mut self, id: WatchId) -> Option<(ContentId, NodeId, Untold)> {
        let watch = self.by_id.get_mut(&id)?;
        let Some(node) = watch.order.pop_front() else {
            watch.announced = false;
            return None;
        };
        let untold = watch.untold.remove(&node)?;
        self.untold -= 1;
        Some((watch.content, node, untold))
    }
}
