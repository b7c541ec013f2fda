//! The one interface to the files that this node offers. Serving and announcing change together
//! here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::QueryParseError;
use qshare_content::{
    AssetName, ChunkIndex, ContentId, ContentInfo, Hash, NodeId, Query, ShareKey, Topic,
};
use qshare_storage::{
    Asset, DiskError, HashIndex, HashOptions, HashPage, Library, LibraryConfig, LibraryEvent,
    PrivateFile, RECONCILE_EVERY, ReadError, ShareKeys, SharedFile,
};
use tokio::sync::{broadcast, watch};
use tracing::{debug, warn};

use super::audience::Audiences;
use super::catalogue::{Announced, Catalogue, Delta, Listing};
use super::collections::{Collections, Membership, SharedCollection};
use super::contents::{Contents, Holding, PartialContent};
use super::marks::Marks;
use super::memory::MemoryContent;
use super::private::{Found, PrivateShares, TopicState};
use crate::config::Shares;
use crate::error::StartError;
use crate::runtime::blocking;
use crate::vocabulary::NodeEvent;

/// A finished download.
pub(crate) struct Finished {
    pub(crate) name: AssetName,
    pub(crate) info: ContentInfo,
    pub(crate) path: PathBuf,
    /// The chunk hashes; empty if unknown, and for a content of one chunk.
    pub(crate) hashes: Vec<Hash>,
    /// Whether the target lies beneath a directory that may be shared.
    pub(crate) is_beneath: bool,
    /// Whether to serve the file until the node stops if it is in no shared directory.
    pub(crate) keep_serving: bool,
    /// The key of a private share.
    pub(crate) share_key: Option<ShareKey>,
    /// The collection that it is a member of.
    pub(crate) member: Option<Membership>,
}

/// The contents that this node serves and announces.
pub(crate) struct ShareStore {
    contents: Contents,
    catalogue: Arc<Catalogue>,
    private: Arc<PrivateShares>,
    marks: Option<Arc<Marks>>,
    /// Of the shared directories.
    listings: Option<Arc<Listings>>,
    audiences: Audiences,
    collections: Collections,
}

impl ShareStore {
    /// Opens the library of the shared directories, if there are any. Announces the events of the
    /// library, and passes them on as [`NodeEvent::Library`] if they are meant for the user.
    pub(crate) async fn open(
        shares: Option<Shares>,
        events: broadcast::Sender<NodeEvent>,
    ) -> Result<ShareStore, StartError> {
        let catalogue = Arc::new(Catalogue::new());
        let private = Arc::new(PrivateShares::new(catalogue.offers()));
        let marks = match &shares {
            None => None,
            Some(shares) => {
                let shares = shares.clone();
                let open = move || ShareKeys::open(&shares.state_dir).map(|keys| (keys, shares));
                let (keys, shares) = blocking(open).await?;
                Some(Arc::new(Marks::new(keys, shares.assets, shares.downloads)))
            }
        };
        let listings = shares.as_ref().map(|_| {
            Arc::new(Listings {
                catalogue: catalogue.clone(),
                private: private.clone(),
                marks: marks.clone(),
                listed: Mutex::default(),
            })
        });
        let library = match (shares, listings.clone()) {
            (None, _) | (_, None) => None,
            (Some(shares), Some(listings)) => {
                let open = move || {
                    open_library(&shares, move |event| {
                        match &event {
                            LibraryEvent::Added(asset) => listings.add(asset),
                            LibraryEvent::Removed(asset) => listings.remove(asset),
                            // A hundred thousand of these would displace the events that the user
                            // should read.
                            LibraryEvent::Hashing { .. } => {}
                            _ => {
                                let _ = events.send(NodeEvent::Library(event));
                            }
                        }
                    })
                };
                Some(Arc::new(blocking(open).await?))
            }
        };
        Ok(ShareStore {
            contents: Contents::new(library),
            catalogue,
            private,
            marks,
            listings,
            audiences: Audiences::default(),
            collections: Collections::default(),
        })
    }

    /// Returns the content if any of its bytes can be served to everybody.
    pub(crate) fn find(&self, content: &ContentId) -> Option<Holding> {
        let marks = self.marks.as_ref();
        let is_public = |asset: &Asset| marks.is_none_or(|marks| marks.is_public(asset));
        let found = self.contents.find(content, is_public);
        found.or_else(|| self.collections.find(content))
    }

    /// Returns what this node has of a topic, and the topic that must be unlocked for it.
    pub(crate) fn find_private(&self, topic: &Topic) -> Option<(Found, Topic)> {
        let member = || {
            let (holding, unlocked_by) = self.collections.find_private(topic)?;
            Some((Found::Holding(holding), unlocked_by))
        };
        self.private.find(topic).or_else(member)
    }

    /// Returns what must be unlocked to learn that a member's collection has changed.
    pub(crate) fn changed_member(&self, topic: &Topic) -> Option<Topic> {
        self.collections.changed_member(topic)
    }

    /// Returns the collections that this node serves.
    pub(crate) fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Serves and announces a collection: to those who hold its key, if there is one, else to
    /// everybody. Called again when it becomes `complete`.
    pub(crate) fn add_collection(&self, collection: &Arc<SharedCollection>, complete: bool) {
        self.collections.insert(collection.clone());
        let manifest = collection.manifest.clone();
        match &collection.key {
            Some(key) => self.private.add_manifest(key, manifest, complete),
            None => {
                let info = manifest.info();
                self.contents.insert_file(manifest);
                let entry = Asset::collection(collection.name.clone(), info);
                self.catalogue.upsert(Arc::new(entry), complete);
            }
        }
    }

    /// Stops serving and announcing a collection. If it `changed`, those who hold the key are told
    /// so.
    pub(crate) fn remove_collection(&self, collection: &Arc<SharedCollection>, changed: bool) {
        self.collections.remove(collection, changed);
        let info = collection.manifest.info();
        let key = collection.key.as_ref();
        self.remove_file(&collection.name, info, key, changed);
    }

    /// Serves a content in memory, without announcing it.
    pub(crate) fn add_memory(&self, content: Arc<MemoryContent>) {
        self.contents.insert_memory(content);
    }

    /// Stops serving a content in memory.
    pub(crate) fn remove_memory(&self, id: &ContentId) {
        self.contents.remove_memory(id);
    }

    /// Returns the complete files that everybody may have beneath a directory.
    pub(crate) fn beneath(&self, directory: &AssetName) -> Vec<Arc<Asset>> {
        self.catalogue.beneath(directory)
    }

    /// Returns the key of a topic that this node serves.
    pub(crate) fn key_of(&self, topic: &Topic) -> Option<ShareKey> {
        self.private.key_of(topic)
    }

    /// Returns the index of the shared directories, if there are any.
    pub(crate) fn hash_index(&self) -> Option<HashIndex> {
        Some(self.contents.library()?.hash_index())
    }

    /// Returns who is served what.
    pub(crate) fn audiences(&self) -> &Audiences {
        &self.audiences
    }

    /// Returns which files came through private links.
    pub(super) fn marks(&self) -> Option<&Arc<Marks>> {
        self.marks.as_ref()
    }

    /// Returns whether the shared directories hold a content under another name.
    pub(crate) fn has_elsewhere(&self, content: &ContentId, name: &AssetName) -> bool {
        let library = self.contents.library();
        let other = |asset: &Asset| asset.name != *name;
        library.is_some_and(|library| library.find_named(content, other).is_some())
    }

    /// Serves and announces a file of the shared directories under a further key. A private file
    /// keeps the key; a public one is listed under it until the node stops.
    pub(crate) async fn add_key(
        &self,
        info: &ContentInfo,
        key: &ShareKey,
    ) -> Result<(), DiskError> {
        let library = self.contents.library();
        let (Some(library), Some(listings), Some(marks)) = (library, &self.listings, &self.marks)
        else {
            return Ok(());
        };
        let Some(asset) = library.find(&info.id()) else {
            return Ok(());
        };
        if !marks.keys_of(&asset).is_empty() {
            let file = PrivateFile {
                content: asset.id,
                key: key.clone(),
                name: asset.name.clone(),
                is_folder: false,
            };
            self.mark_private(file).await?;
        }
        listings.add_key(&asset, key);
        Ok(())
    }

    /// Serves and announces a file outside the shared directories: to those who hold the key, if
    /// there is one, else to everybody.
    pub(crate) fn add_file(&self, name: &AssetName, file: Arc<SharedFile>, key: Option<&ShareKey>) {
        let info = file.info();
        match key {
            Some(key) => self.private.add_file(key, file),
            None => {
                self.contents.insert_file(file);
                self.catalogue.upsert(asset(name, info), true);
            }
        }
    }

    /// Stops serving and announcing a file that was [added](Self::add_file). If it `changed`, those
    /// who hold the key are told so.
    pub(crate) fn remove_file(
        &self,
        name: &AssetName,
        info: ContentInfo,
        key: Option<&ShareKey>,
        changed: bool,
    ) {
        match key {
            Some(key) => self.private.remove_file(key, info, changed),
            None => {
                self.catalogue.remove(asset(name, info));
                if !changed {
                    self.contents.remove_file(&info.id());
                }
            }
        }
    }

    /// Returns the path of a content in the shared directories.
    pub(crate) fn path(&self, content: &ContentId) -> Option<PathBuf> {
        self.contents.library()?.path(content)
    }

    /// Returns the shared files that programs are still writing.
    pub(crate) fn still_written(&self) -> Vec<PathBuf> {
        let library = self.contents.library();
        library.map_or_else(Vec::new, |library| library.still_written())
    }

    /// Serves an unfinished download. It is not announced yet: that needs its chunk hashes.
    pub(crate) fn offer(&self, partial: &Arc<PartialContent>) {
        if let Some(member) = &partial.member {
            return member.offer(partial);
        }
        match &partial.share_key {
            Some(key) => self.private.offer(key, partial),
            None => self.contents.insert(partial.clone()),
        }
    }

    /// Announces an unfinished download that is served already.
    pub(crate) fn announce(&self, name: &AssetName, partial: &PartialContent) {
        if partial.member.is_some() || partial.is_unannounced {
            return;
        }
        match &partial.share_key {
            Some(key) => self.private.announce(key, partial),
            None => self.catalogue.upsert(asset(name, partial.info), false),
        }
    }

    /// Stops serving and announcing an unfinished download.
    pub(crate) fn withdraw(&self, name: &AssetName, partial: &Arc<PartialContent>) {
        if let Some(member) = &partial.member {
            return member.withdraw(partial);
        }
        if let Some(key) = &partial.share_key {
            return self.private.withdraw(key, partial);
        }
        self.contents.remove(partial);
        self.catalogue.remove(asset(name, partial.info));
    }

    /// Stops serving a download that was [adopted](Self::adopt). Its announcement stays if the
    /// content is still served from elsewhere.
    pub(crate) fn withdraw_adopted(&self, name: &AssetName, partial: &Arc<PartialContent>) {
        if let Some(member) = &partial.member {
            return member.withdraw(partial);
        }
        if let Some(key) = &partial.share_key {
            return self.private.withdraw(key, partial);
        }
        self.contents.remove(partial);
        if self.find(&partial.info.id()).is_none() {
            self.catalogue.remove(asset(name, partial.info));
        }
    }

    /// Adopts a finished download. The library takes it if it is in a shared directory. Otherwise
    /// it is served until the node stops, if the request asked for that.
    pub(crate) async fn adopt(&self, finished: Finished) {
        let Finished {
            name,
            info,
            path,
            hashes,
            is_beneath,
            keep_serving,
            share_key,
            member,
        } = finished;
        if let Some(Membership { collection, at }) = member {
            if let Some(library) = self.contents.library().filter(|_| is_beneath).cloned() {
                let (path, hashes) = (path.clone(), hashes.clone());
                // Without it, the library hashes the file once more.
                if let Err(error) = blocking(move || library.adopt(&path, info, &hashes)).await {
                    debug!(%name, %error, "the index does not get a file of a folder");
                }
            }
            if let Err(error) = blocking(move || collection.adopt(at, hashes)).await {
                warn!(%name, %error, "cannot serve a file of a folder");
            }
            return;
        }
        let library = self.contents.library().filter(|_| is_beneath).cloned();
        if let Some(library) = library {
            if let Err(error) = blocking(move || library.adopt(&path, info, &hashes)).await {
                warn!(%name, %error, "cannot share a finished download");
            }
        } else if keep_serving {
            let opened = blocking(move || match hashes.is_empty() && info.length > 0 {
                true => SharedFile::hashed(&path, &HashOptions::default()),
                false => SharedFile::new(&path, info, hashes),
            });
            match opened.await {
                Ok(file) if file.info() == info => {
                    self.add_file(&name, Arc::new(file), share_key.as_ref());
                }
                Ok(_) => warn!(%name, "the finished file changed and is not served"),
                Err(error) => warn!(%name, %error, "cannot serve a finished download"),
            }
        }
    }

    /// Fills `bytes` with those of a content from `offset` on, within one chunk. Blocks.
    pub(crate) fn read_into(
        &self,
        holding: &Holding,
        chunk: ChunkIndex,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        self.contents.read_into(holding, chunk, offset, bytes)
    }

    /// Reads a page of chunk hashes with its proof. Blocks.
    pub(crate) fn hash_page(&self, holding: &Holding, page: u32) -> Result<HashPage, ReadError> {
        self.contents.hash_page(holding, page)
    }

    /// Returns everything that is announced, and subscribes to every change from now on.
    pub(crate) fn subscribe(&self) -> (Vec<Announced>, broadcast::Receiver<Delta>) {
        self.catalogue.subscribe()
    }

    /// Returns the topics that are announced, and subscribes to every change from now on.
    pub(crate) fn subscribe_topics(&self) -> (Vec<TopicState>, broadcast::Receiver<TopicState>) {
        self.private.subscribe()
    }

    /// Returns a watch that reports when there is a first entry.
    pub(crate) fn watch_offers(&self) -> watch::Receiver<bool> {
        self.catalogue.watch_offers()
    }

    /// Lists the entries that match a query, from the end of the last page on.
    ///
    /// # Errors
    ///
    /// When the query holds an invalid glob.
    pub(crate) fn list(
        &self,
        us: NodeId,
        query: &Query,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listing, QueryParseError> {
        self.catalogue.list(us, query, after, limit)
    }

    /// Returns the number of complete files, and the sum of their lengths in bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        self.catalogue.totals()
    }
}

impl ShareStore {
    /// Returns the plain digest of a content, if it was stated.
    pub(super) fn digest_of(&self, content: &ContentId) -> Option<Hash> {
        self.catalogue.digest_of(content)
    }

    /// Takes digests of earlier runs.
    pub(super) fn know_digests(&self, known: impl Iterator<Item = (ContentId, Hash)>) {
        self.catalogue.know_digests(known);
    }

    /// States the plain digest of a listed file.
    pub(super) fn state_digest(&self, asset: &Arc<Asset>, digest: Hash) {
        self.catalogue.state_digest(asset, digest);
    }

    /// Returns a number that differs after every change of the list.
    pub(crate) fn revision(&self) -> u64 {
        self.catalogue.revision()
    }

    /// Returns a listed content, with one of its names.
    pub(crate) fn listed(&self, content: &ContentId) -> Option<Announced> {
        if let Some(asset) = self
            .contents
            .library()
            .and_then(|library| library.find(content))
        {
            return Some(Announced {
                sha256: self.catalogue.digest_of(&asset.id),
                asset,
                complete: true,
            });
        }
        // Everything else that is served is rare: finished files elsewhere, and running downloads.
        self.find(content)?;
        self.catalogue.find(content)
    }
}

/// Lists the files of the shared directories, each publicly or under its keys.
struct Listings {
    catalogue: Arc<Catalogue>,
    private: Arc<PrivateShares>,
    marks: Option<Arc<Marks>>,
    /// Those with keys.
    listed: Mutex<BTreeMap<(AssetName, ContentId), Listed>>,
}

/// A file in a shared directory that is listed under share keys.
struct Listed {
    keys: Vec<ShareKey>,
    /// Whether it is listed publicly, too.
    is_public: bool,
}

impl Listings {
    fn add(&self, asset: &Arc<Asset>) {
        let marks = self.marks.as_ref();
        let keys = marks.map_or_else(Vec::new, |marks| marks.keys_of(asset));
        // The files of a private folder are listed by the folder alone.
        if keys.is_empty() && marks.is_none_or(|marks| !marks.is_in_folder(asset)) {
            return self.catalogue.upsert(asset.clone(), true);
        }
        for key in &keys {
            self.private.add_shared(key, asset.info);
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_public = false;
        listed.insert((asset.name.clone(), asset.id), Listed { keys, is_public });
    }

    /// Lists a file under a further key.
    fn add_key(&self, asset: &Asset, key: &ShareKey) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let one = listed
            .entry((asset.name.clone(), asset.id))
            .or_insert_with(|| Listed {
                keys: Vec::new(),
                is_public: true,
            });
        if !one.keys.contains(key) {
            one.keys.push(key.clone());
            self.private.add_shared(key, asset.info);
        }
    }

    fn remove(&self, asset: &Arc<Asset>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        match listed.remove(&(asset.name.clone(), asset.id)) {
            None => self.catalogue.remove(asset.clone()),
            Some(Listed { keys, is_public }) => {
                for key in &keys {
                    self.private.remove_shared(key, asset.info);
                }
                if is_public {
                    self.catalogue.remove(asset.clone());
                }
            }
        }
    }
}

fn asset(name: &AssetName, info: ContentInfo) -> Arc<Asset> {
    Arc::new(Asset::new(name.clone(), info))
}

fn open_library(
    shares: &Shares,
    on_event: impl Fn(LibraryEvent) + Send + 'static,
) -> Result<Library, StartError> {
    for dir in [&shares.assets, &shares.downloads] {
        std::fs::create_dir_all(dir).map_err(|error| DiskError::new("make", dir, error))?;
    }
    let config = LibraryConfig {
        roots: vec![shares.assets.clone(), shares.downloads.clone()],
        exclude: shares.exclude.clone(),
        state_dir: shares.state_dir.clone(),
        hash_threads: 0,
        reconcile_every: RECONCILE_EVERY,
    };
    Ok(Library::open(config, on_event)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use qshare_content::tree;
    use qshare_storage::{Opened, Part, PartOptions, Target};

    use super::*;

    async fn empty() -> ShareStore {
        ShareStore::open(None, broadcast::Sender::new(8))
            .await
            .unwrap()
    }

    fn partial(dir: &Path, length: u64) -> Arc<PartialContent> {
        let info = ContentInfo {
            length,
            root: Hash([7; 32]),
        };
        let target = Target::Path(dir.join("file"));
        match Part::open(&target, info, &PartOptions::default()).unwrap() {
            Opened::Part(part) => Arc::new(PartialContent::new(info, Arc::new(part), None)),
            Opened::Complete { .. } => panic!("there was no file"),
        }
    }

    fn announced(store: &ShareStore) -> Vec<(String, bool)> {
        let (entries, _) = store.subscribe();
        let entry = |entry: &Announced| (entry.asset.name.to_string(), entry.complete);
        entries.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn a_partial_download_is_served_before_it_is_announced_and_withdrawn_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = (empty().await, AssetName::new("file").unwrap());
        let partial = partial(dir.path(), 8 << 20);
        let id = partial.info.id();
        store.offer(&partial);
        assert!(matches!(store.find(&id), Some(Holding::Partial(_))));
        assert_eq!(announced(&store), []);
        store.announce(&name, &partial);
        assert_eq!(announced(&store), [("file".to_owned(), false)]);
        store.withdraw(&name, &partial);
        assert!(store.find(&id).is_none());
        assert_eq!(announced(&store), []);
    }

    #[tokio::test]
    async fn verified_chunks_are_recorded_in_the_part_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let partial = partial(dir.path(), 8 << 20);
        let (before, mut batches) = partial.subscribe();
        assert_eq!(before.count(), 0);
        let holding = Holding::Partial(partial.clone());
        assert!(!holding.has(ChunkIndex(1)));
        partial.mark_verified(ChunkIndex(1));
        assert!(holding.has(ChunkIndex(1)) && !partial.is_complete());
        assert_eq!(&*batches.try_recv().unwrap(), [ChunkIndex(1)]);
        assert!(partial.subscribe().0.contains(ChunkIndex(1)));
    }

    #[tokio::test]
    async fn a_finished_file_replaces_its_partial_download_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = (empty().await, AssetName::new("file").unwrap());
        let bytes = b"hello";
        let info = ContentInfo {
            length: bytes.len() as u64,
            root: tree::leaf_hash(bytes),
        };
        let path = dir.path().join("other");
        std::fs::write(&path, bytes).unwrap();
        let finished = Finished {
            name: name.clone(),
            info,
            path,
            hashes: Vec::new(),
            is_beneath: false,
            keep_serving: true,
            share_key: None,
            member: None,
        };
        store.adopt(finished).await;
        assert!(matches!(store.find(&info.id()), Some(Holding::File(_))));
        assert_eq!(announced(&store), [("file".to_owned(), true)]);
        let partial = partial(dir.path(), 8 << 20);
        store.offer(&partial);
        store.announce(&AssetName::new("part").unwrap(), &partial);
        // Nothing else serves this content.
        store.withdraw_adopted(&AssetName::new("part").unwrap(), &partial);
        assert_eq!(announced(&store), [("file".to_owned(), true)]);
    }
}
