//! The one interface to the files that this node offers. Serving and announcing change together
//! here.

mod directories;
mod downloads;
mod lookups;

use std::sync::Arc;

use qshare_content::{AssetName, ContentId, ContentInfo, Hash, ShareKey};
use qshare_storage::{
    Asset, DiskError, HashIndex, LibraryEvent, PrivateFile, ShareKeys, SharedFile,
};
use tokio::sync::{broadcast, watch};

use self::directories::{Listings, open_library};
pub(crate) use self::downloads::Finished;
use super::audience::Audiences;
use super::catalogue::{Announced, Catalogue, Delta};
use super::collections::{Collections, SharedCollection};
use super::contents::Contents;
use super::marks::Marks;
use super::memory::MemoryContent;
use super::private::{PrivateShares, TopicState};
use crate::config::Shares;
use crate::error::StartError;
use crate::runtime::blocking;
use crate::vocabulary::NodeEvent;

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
        let (library, listings) = match shares {
            None => (None, None),
            Some(shares) => {
                let (catalogue, private) = (catalogue.clone(), private.clone());
                let listings = Arc::new(Listings::new(catalogue, private, marks.clone()));
                let told = listings.clone();
                let on_event = move |event| match &event {
                    LibraryEvent::Added(asset) => told.add(asset),
                    LibraryEvent::Removed(asset) => told.remove(asset),
                    // A hundred thousand of these would displace the events that the user should
                    // read.
                    LibraryEvent::Hashing { .. } => {}
                    _ => {
                        let _ = events.send(NodeEvent::Library(event));
                    }
                };
                let library = blocking(move || open_library(&shares, on_event)).await?;
                (Some(Arc::new(library)), Some(listings))
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

    /// Returns the collections that this node serves.
    pub(crate) fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Returns who is served what.
    pub(crate) fn audiences(&self) -> &Audiences {
        &self.audiences
    }

    /// Returns which files came through private links.
    pub(super) fn marks(&self) -> Option<&Arc<Marks>> {
        self.marks.as_ref()
    }

    /// Returns the index of the shared directories, if there are any.
    pub(crate) fn hash_index(&self) -> Option<HashIndex> {
        Some(self.contents.library()?.hash_index())
    }

    /// Takes digests of earlier runs.
    pub(super) fn know_digests(&self, known: impl Iterator<Item = (ContentId, Hash)>) {
        self.catalogue.know_digests(known);
    }

    /// States the plain digest of a listed file.
    pub(super) fn state_digest(&self, asset: &Arc<Asset>, digest: Hash) {
        self.catalogue.state_digest(asset, digest);
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
}

fn asset(name: &AssetName, info: ContentInfo) -> Arc<Asset> {
    Arc::new(Asset::new(name.clone(), info))
}
