//! Watches: who wants to hear which holders of a content come, change and go.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use qshare_content::{ContentId, NodeId};
use rand::Rng;
use rand::seq::index;

use crate::holders::Presence;
use crate::registry::{Holder, Output, Shared};
use crate::room::Node;
use crate::slab::Key;

/// Names a watch; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a content cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The session has ended.
    #[error("this session has ended")]
    Gone,
    /// The session watches as many contents as it may.
    #[error("more than {limit} contents watched")]
    TooMany {
        /// [`crate::RegistryConfig::watches_per_session`].
        limit: usize,
    },
}

/// What happened to one holder of a watched content, seen from what the watcher knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderChange {
    /// It has some of it now.
    Joined(Holder),
    /// It has all of it now, or no longer all, or it is to be reached elsewhere.
    Changed(Holder),
    /// It has nothing of it any more.
    Left(NodeId),
}

/// A change that a watcher has not been told yet.
#[derive(Clone, Copy)]
pub(crate) struct Untold {
    /// What the node had when the watcher was last told.
    pub(crate) before: Presence,
    /// Whether it is to be reached elsewhere since then.
    pub(crate) moved: bool,
}

struct Watch {
    content: ContentId,
    watcher: Key<Node>,
    untold: BTreeMap<NodeId, Untold>,
    order: VecDeque<NodeId>,
    /// Whether the owner was told that there is something to read, and has not read since.
    announced: bool,
}

/// All watches of one group.
#[derive(Default)]
pub(crate) struct Watches {
    by_id: BTreeMap<WatchId, Watch>,
    by_content: BTreeMap<ContentId, Vec<WatchId>>,
    /// Untold changes of all watches.
    untold: usize,
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn contents(&self) -> impl Iterator<Item = ContentId> {
        self.by_content.keys().copied()
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

    /// Ends a watch; returns whose it was.
    pub(crate) fn close(&mut self, id: WatchId) -> Option<Key<Node>> {
        let watch = self.by_id.remove(&id)?;
        self.untold -= watch.untold.len();
        if let Some(watches) = self.by_content.get_mut(&watch.content) {
            watches.retain(|&other| other != id);
            if watches.is_empty() {
                self.by_content.remove(&watch.content);
            }
        }
        Some(watch.watcher)
    }

    /// Notes that `node`, whose key is `key`, had `before` of a content that `holders` hold now.
    ///
    /// All watchers hear of a change as long as there are few holders. Beyond that each hears
    /// with the odds that keep what it was told a uniform sample of the holders (reservoir
    /// sampling): a thousand nodes that join would otherwise cost a million messages.
    pub(crate) fn note(
        &mut self,
        content: ContentId,
        key: Key<Node>,
        node: NodeId,
        untold: Untold,
        holders: usize,
        shared: &mut Shared,
    ) {
        let Some(watches) = self.by_content.get(&content) else {
            return;
        };
        let enough = shared.config.watched_holders;
        let told = if holders <= enough {
            watches.len()
        } else {
            // Rounded at random, so that few watchers of many holders hear something, too.
            let scaled = watches.len() * enough;
            scaled / holders + usize::from(shared.rng.random_range(0..holders) < scaled % holders)
        };
        // Once all watches together have as many as may be kept, each may still have its share.
        let share = shared.config.changes_total / self.by_id.len().max(1);
        for at in index::sample(&mut shared.rng, watches.len(), told) {
            let id = watches[at];
            let Some(watch) = self.by_id.get_mut(&id) else {
                continue;
            };
            if watch.watcher == key {
                continue;
            }
            let kept = watch.untold.len();
            let room = kept < shared.config.changes_per_watch
                && (self.untold < shared.config.changes_total || kept < share);
            match watch.untold.get_mut(&node) {
                Some(earlier) => earlier.moved |= untold.moved,
                None if room => {
                    watch.untold.insert(node, untold);
                    self.untold += 1;
                    watch.order.push_back(node);
                }
                None => continue,
            }
            if !watch.announced {
                watch.announced = true;
                shared.outputs.push_back(Output::WatchReady(id));
            }
        }
    }

    /// The oldest untold change of a watch: its content, the node, and what is remembered.
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
