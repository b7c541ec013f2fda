//! The private listings of this node: contents that are served and announced under topics only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{ContentInfo, ShareKey, Topic};
use qshare_storage::SharedFile;
use tokio::sync::{broadcast, watch};

use super::contents::{Holding, PartialContent};

/// Changes that a slow tracker session may lag behind before it announces everything again.
const DELTAS_KEPT: usize = 1024;

/// A topic as it is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicState {
    pub(crate) topic: Topic,
    /// Whether this node has all of the content; None if it announces nothing of it any more.
    pub(crate) complete: Option<bool>,
}

/// What this node has of the content of one topic.
struct Listing {
    key: ShareKey,
    info: ContentInfo,
    /// Files in shared directories with this content.
    shared_files: usize,
    /// A file outside the shared directories.
    file: Option<Arc<SharedFile>>,
    /// Whether the file is the manifest of a collection of which members are missing.
    is_incomplete: bool,
    /// Whether `file` was withdrawn because its bytes have changed.
    changed: bool,
    /// An unfinished download, and whether it is announced.
    partial: Option<(Arc<PartialContent>, bool)>,
    /// The topic that must be unlocked: its own, or that of a collection whose member it is.
    unlocked_by: Topic,
}

impl Listing {
    fn holding(&self) -> Option<Holding> {
        if let Some(file) = &self.file {
            return Some(Holding::File(file.clone()));
        }
        if self.shared_files > 0 {
            return Some(Holding::Shared(self.info));
        }
        let (partial, _) = self.partial.as_ref()?;
        Some(Holding::Partial(partial.clone()))
    }

    /// Whether it is announced, and as complete.
    fn announced(&self) -> Option<bool> {
        if self.file.is_some() || self.shared_files > 0 {
            return Some(!self.is_incomplete);
        }
        let is_announced = self
            .partial
            .as_ref()
            .is_some_and(|(_, announced)| *announced);
        is_announced.then_some(false)
    }

    fn is_empty(&self) -> bool {
        self.holding().is_none() && !self.changed
    }
}

/// What this node has of a topic.
pub(crate) enum Found {
    Holding(Holding),
    /// Nothing any more, because its file has changed.
    Changed,
}

/// All private listings.
pub(crate) struct PrivateShares {
    by_topic: Mutex<BTreeMap<Topic, Listing>>,
    deltas: broadcast::Sender<TopicState>,
    /// Whether there ever was something to announce, private or public.
    offers: watch::Sender<bool>,
}

impl PrivateShares {
    /// `offers` is set when there is a first listing.
    pub(crate) fn new(offers: watch::Sender<bool>) -> PrivateShares {
        PrivateShares {
            by_topic: Mutex::default(),
            deltas: broadcast::Sender::new(DELTAS_KEPT),
            offers,
        }
    }

    /// Changes the listing of a content, and announces the difference.
    fn change(&self, key: &ShareKey, info: ContentInfo, change: impl FnOnce(&mut Listing)) {
        let topic = key.topic(&info.id());
        let mut by_topic = self.lock();
        let listing = by_topic.entry(topic).or_insert_with(|| Listing {
            key: key.clone(),
            info,
            shared_files: 0,
            file: None,
            is_incomplete: false,
            changed: false,
            partial: None,
            unlocked_by: topic,
        });
        let before = listing.announced();
        change(listing);
        let complete = listing.announced();
        if listing.is_empty() {
            by_topic.remove(&topic);
        }
        if before != complete {
            // Sent under the lock, so that subscribers get the changes in order.
            let _ = self.deltas.send(TopicState { topic, complete });
            self.offers
                .send_if_modified(|any| complete.is_some() && !std::mem::replace(any, true));
        }
    }

    /// Serves and announces a file outside the shared directories.
    pub(crate) fn add_file(&self, key: &ShareKey, file: Arc<SharedFile>) {
        let info = file.info();
        self.change(key, info, |listing| {
            listing.file = Some(file);
            listing.changed = false;
        });
    }

    /// Serves and announces the manifest of a collection, which counts as complete with all its
    /// members.
    pub(crate) fn add_manifest(&self, key: &ShareKey, file: Arc<SharedFile>, complete: bool) {
        let info = file.info();
        self.change(key, info, |listing| {
            listing.file = Some(file);
            listing.changed = false;
            listing.is_incomplete = !complete;
        });
    }

    /// Stops serving a file outside the shared directories. If it `changed`, that is what those who
    /// unlock its topic are told from now on.
    pub(crate) fn remove_file(&self, key: &ShareKey, info: ContentInfo, changed: bool) {
        self.change(key, info, |listing| {
            listing.file = None;
            listing.changed = changed;
        });
    }

    /// Serves and announces a file in a shared directory.
    pub(crate) fn add_shared(&self, key: &ShareKey, info: ContentInfo) {
        self.change(key, info, |listing| listing.shared_files += 1);
    }

    /// Stops serving a file in a shared directory.
    pub(crate) fn remove_shared(&self, key: &ShareKey, info: ContentInfo) {
        self.change(key, info, |listing| {
            listing.shared_files = listing.shared_files.saturating_sub(1);
        });
    }

    /// Serves an unfinished download, which is not announced yet.
    pub(crate) fn offer(&self, key: &ShareKey, partial: &Arc<PartialContent>) {
        self.change(key, partial.info, |listing| {
            let announced = listing
                .partial
                .as_ref()
                .is_some_and(|(_, announced)| *announced);
            listing.partial = Some((partial.clone(), announced));
        });
    }

    /// Announces an unfinished download that is served already.
    pub(crate) fn announce(&self, key: &ShareKey, partial: &PartialContent) {
        self.change(key, partial.info, |listing| {
            if let Some((_, announced)) = &mut listing.partial {
                *announced = true;
            }
        });
    }

    /// Stops serving and announcing an unfinished download.
    pub(crate) fn withdraw(&self, key: &ShareKey, partial: &Arc<PartialContent>) {
        self.change(key, partial.info, |listing| {
            let is_it = |(held, _): &mut (Arc<PartialContent>, bool)| Arc::ptr_eq(held, partial);
            listing.partial.take_if(is_it);
        });
    }

    /// Returns what can be served of a topic, and the topic that must be unlocked for it.
    pub(crate) fn find(&self, topic: &Topic) -> Option<(Found, Topic)> {
        let by_topic = self.lock();
        let listing = by_topic.get(topic)?;
        let found = listing.holding().map_or(Found::Changed, Found::Holding);
        Some((found, listing.unlocked_by))
    }

    /// Returns the key of a topic that this node serves.
    pub(crate) fn key_of(&self, topic: &Topic) -> Option<ShareKey> {
        self.lock().get(topic).map(|listing| listing.key.clone())
    }

    /// Returns the announced topics, and subscribes to every change from now on.
    pub(crate) fn subscribe(&self) -> (Vec<TopicState>, broadcast::Receiver<TopicState>) {
        let by_topic = self.lock();
        let all = by_topic.iter().map(|(&topic, listing)| TopicState {
            topic,
            complete: listing.announced(),
        });
        let all = all.filter(|state| state.complete.is_some()).collect();
        (all, self.deltas.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Topic, Listing>> {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::Hash;

    use super::*;

    #[test]
    fn a_topic_is_announced_while_a_file_has_its_content() {
        let private = PrivateShares::new(watch::Sender::new(false));
        let (key, other) = (ShareKey::from_bytes([1; 16]), ShareKey::from_bytes([2; 16]));
        let info = ContentInfo {
            length: 1,
            root: Hash([3; 32]),
        };
        let topic = key.topic(&info.id());
        let (before, mut deltas) = private.subscribe();
        assert!(before.is_empty());
        private.add_shared(&key, info);
        private.add_shared(&key, info);
        private.add_shared(&other, info);
        assert_eq!(private.subscribe().0.len(), 2);
        assert_eq!(private.key_of(&topic), Some(key.clone()));
        assert_eq!(private.find(&topic).unwrap().1, topic);
        private.remove_shared(&key, info);
        private.remove_shared(&key, info);
        assert!(private.find(&topic).is_none() && private.key_of(&topic).is_none());
        let told: Vec<_> = std::iter::from_fn(|| deltas.try_recv().ok()).collect();
        let state = |topic, complete| TopicState { topic, complete };
        let expected = [
            state(topic, Some(true)),
            state(other.topic(&info.id()), Some(true)),
            state(topic, None),
        ];
        assert_eq!(told, expected);
    }
}
