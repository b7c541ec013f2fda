//! The collections that this node serves: whole ones, and those that it receives.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use qshare_content::{
    AssetName, Bitmap, ChunkIndex, ContentId, ContentInfo, Hash, ShareKey, Topic,
};
use qshare_storage::{HashIndex, ReadError, SharedFile, SharedFolder};

use super::availability::Availability;
use super::contents::{Holding, PartialContent};

/// A collection with the members that this node has.
pub(crate) struct SharedCollection {
    pub(crate) name: AssetName,
    /// The manifest.
    pub(crate) manifest: Arc<SharedFile>,
    /// The modification times, if they are known.
    pub(crate) times: Option<Arc<SharedFile>>,
    /// The key of a private share.
    pub(crate) key: Option<ShareKey>,
    pub(crate) folder: SharedFolder,
    /// How requests name it.
    wire_id: ContentId,
    /// Reports members that became available.
    pub(crate) availability: Arc<Availability>,
    /// Members that are being fetched chunk by chunk.
    partials: Mutex<HashMap<ContentId, Arc<PartialContent>>>,
    /// In a private share, the members by the first bytes of their topics.
    by_topic: Vec<(u32, u32)>,
}

impl fmt::Debug for SharedCollection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCollection")
            .field("manifest", &self.manifest.info().id())
            .finish_non_exhaustive()
    }
}

impl SharedCollection {
    pub(crate) fn new(
        name: AssetName,
        manifest: Arc<SharedFile>,
        times: Option<Arc<SharedFile>>,
        key: Option<ShareKey>,
        folder: SharedFolder,
    ) -> SharedCollection {
        let list = folder.list();
        let mut by_topic = Vec::new();
        if let Some(key) = &key {
            let topics = (0..list.file_count()).filter_map(|at| {
                let topic = key.topic(&list.info(at)?.id());
                Some((head_of(&topic), at))
            });
            by_topic.extend(topics);
            by_topic.sort_unstable();
        }
        SharedCollection {
            wire_id: match &key {
                None => manifest.info().id(),
                Some(key) => ContentId(key.topic(&manifest.info().id()).0),
            },
            name,
            manifest,
            times,
            key,
            folder,
            availability: Availability::new(),
            partials: Mutex::default(),
            by_topic,
        }
    }

    /// Returns how requests name the collection.
    pub(crate) fn wire_id(&self) -> ContentId {
        self.wire_id
    }

    /// Serves a member that was written just now.
    pub(crate) fn adopt(&self, at: u32, hashes: Vec<Hash>) -> Result<(), ReadError> {
        if self.folder.adopt(at, hashes)? {
            self.availability.add(ChunkIndex(at));
        }
        Ok(())
    }

    /// Serves those of the members whose files an index has in their present state. Returns them.
    pub(crate) fn adopt_known(&self, members: &[u32], index: &HashIndex) -> Vec<u32> {
        let members = members.iter().copied();
        let known: Vec<u32> = members
            .filter(|&at| self.folder.adopt_known(at, index))
            .collect();
        for &at in &known {
            self.availability.add(ChunkIndex(at));
        }
        known
    }

    /// Serves a member whose file has new attributes and the same bytes.
    pub(crate) fn readopt(&self, at: u32) -> Result<(), ReadError> {
        self.folder.readopt(at)
    }

    /// Returns the members that can be served, wholly or in part, and whether all can be wholly.
    pub(crate) fn members(&self) -> (Bitmap, bool) {
        let mut members = self.folder.present();
        let is_complete = members.is_full();
        let list = self.folder.list();
        for id in self.lock().keys() {
            list.files_of(id)
                .for_each(|at| _ = members.insert(ChunkIndex(at)));
        }
        (members, is_complete)
    }

    /// Serves a member of which some chunks are there.
    fn offer(&self, partial: &Arc<PartialContent>) {
        self.lock().insert(partial.info.id(), partial.clone());
        if let Some(member) = &partial.member {
            self.availability.add(ChunkIndex(member.at));
        }
    }

    fn withdraw(&self, partial: &Arc<PartialContent>) {
        let mut partials = self.lock();
        let id = partial.info.id();
        if partials
            .get(&id)
            .is_some_and(|held| Arc::ptr_eq(held, partial))
        {
            partials.remove(&id);
        }
    }

    fn partial(&self, content: &ContentId) -> Option<Holding> {
        self.lock().get(content).cloned().map(Holding::Partial)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<PartialContent>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(self: &Arc<Self>, content: &ContentId) -> Option<Holding> {
        if let Some(at) = self.folder.find(content) {
            return Some(Holding::Member(self.clone(), at));
        }
        if let Some(partial) = self.partial(content) {
            return Some(partial);
        }
        let times = self.times.as_ref()?;
        (times.info().id() == *content).then(|| Holding::File(times.clone()))
    }

    fn find_topic(self: &Arc<Self>, topic: &Topic) -> Option<Holding> {
        if let Some(info) = self.member_of(topic) {
            return match self.folder.find(&info.id()) {
                Some(at) => Some(Holding::Member(self.clone(), at)),
                None => self.partial(&info.id()),
            };
        }
        let (key, times) = (self.key.as_ref()?, self.times.as_ref()?);
        (key.topic(&times.info().id()) == *topic).then(|| Holding::File(times.clone()))
    }

    /// Returns length and root of the member of a topic, whether or not it is there.
    fn member_of(&self, topic: &Topic) -> Option<ContentInfo> {
        let key = self.key.as_ref()?;
        let head = head_of(topic);
        let start = self.by_topic.partition_point(|&(other, _)| other < head);
        let candidates = self.by_topic.get(start..).unwrap_or_default();
        let candidates = candidates.iter().take_while(|(other, _)| *other == head);
        let list = self.folder.list();
        let mut infos = candidates.filter_map(|&(_, at)| list.info(at));
        infos.find(|info| key.topic(&info.id()) == *topic)
    }

    fn has_topic(&self, topic: &Topic) -> bool {
        self.member_of(topic).is_some()
    }

    /// Returns length and root of a member.
    pub(crate) fn member_info(&self, at: u32) -> ContentInfo {
        let info = self.folder.list().info(at);
        // A holding names an existing member.
        info.unwrap_or(ContentInfo {
            length: 0,
            root: Hash([0; 32]),
        })
    }
}

fn head_of(topic: &Topic) -> u32 {
    let [a, b, c, d, ..] = topic.0;
    u32::from_be_bytes([a, b, c, d])
}

/// A member that is being fetched.
#[derive(Clone, Debug)]
pub(crate) struct Membership {
    pub(crate) collection: Arc<SharedCollection>,
    /// Its number in the manifest.
    pub(crate) at: u32,
}

impl Membership {
    /// Serves a member of which some chunks are there.
    pub(crate) fn offer(&self, partial: &Arc<PartialContent>) {
        self.collection.offer(partial);
    }

    /// Stops serving an unfinished member.
    pub(crate) fn withdraw(&self, partial: &Arc<PartialContent>) {
        self.collection.withdraw(partial);
    }
}

/// Changed collections that are remembered.
const CHANGED_MAX: usize = 8;

/// All collections.
#[derive(Default)]
pub(crate) struct Collections {
    all: RwLock<Vec<Arc<SharedCollection>>>,
    /// Private ones that are no longer served because they have changed, oldest first. Those who
    /// fetch their members are told so.
    changed: Mutex<VecDeque<Arc<SharedCollection>>>,
}

impl Collections {
    /// Serves a collection, in the place of the same one.
    pub(crate) fn insert(&self, collection: Arc<SharedCollection>) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.wire_id() != collection.wire_id());
        self.changed()
            .retain(|other| other.wire_id() != collection.wire_id());
        all.push(collection);
    }

    /// Stops serving a collection. If it `changed`, those who fetch its members are told so.
    pub(crate) fn remove(&self, collection: &Arc<SharedCollection>, changed: bool) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, collection));
        let mut former = self.changed();
        if !changed {
            former.retain(|other| other.key != collection.key);
        } else if collection.key.is_some() {
            former.push_back(collection.clone());
            if former.len() > CHANGED_MAX {
                former.pop_front();
            }
        }
    }

    /// Returns what must be unlocked to learn that a member's collection has changed.
    pub(crate) fn changed_member(&self, topic: &Topic) -> Option<Topic> {
        let changed = self.changed();
        let mut of = changed.iter().rev();
        let found = of.find(|collection| collection.has_topic(topic))?;
        Some(Topic(found.wire_id().0))
    }

    fn changed(&self) -> MutexGuard<'_, VecDeque<Arc<SharedCollection>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a member of a public collection that can be served to everybody.
    pub(crate) fn find(&self, content: &ContentId) -> Option<Holding> {
        let public = |collection: &Arc<SharedCollection>| match &collection.key {
            None => collection.find(content),
            Some(_) => None,
        };
        self.first(public)
    }

    /// Returns a member of a private collection, and the topic that must be unlocked for it.
    pub(crate) fn find_private(&self, topic: &Topic) -> Option<(Holding, Topic)> {
        self.first(|collection| {
            let found = collection.find_topic(topic)?;
            Some((found, Topic(collection.wire_id().0)))
        })
    }

    /// Returns a collection by how requests name it.
    pub(crate) fn named(&self, wire_id: &ContentId) -> Option<Arc<SharedCollection>> {
        self.first(|collection| (collection.wire_id() == *wire_id).then(|| collection.clone()))
    }

    /// Returns the public collection of a name.
    pub(crate) fn public(&self, name: &AssetName) -> Option<Arc<SharedCollection>> {
        let is_it =
            |collection: &SharedCollection| collection.key.is_none() && collection.name == *name;
        self.first(|collection| is_it(collection).then(|| collection.clone()))
    }

    fn first<T>(&self, found: impl Fn(&Arc<SharedCollection>) -> Option<T>) -> Option<T> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().find_map(found)
    }
}
