//! The files of the shared directories, each listed publicly or under its keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::{AssetName, ContentId, ShareKey};
use qshare_storage::{Asset, DiskError, Library, LibraryConfig, LibraryEvent, RECONCILE_EVERY};

use crate::config::Shares;
use crate::error::StartError;
use crate::shares::catalogue::Catalogue;
use crate::shares::marks::Marks;
use crate::shares::private::PrivateShares;

/// Lists the files of the shared directories, each publicly or under its keys.
pub(super) struct Listings {
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
    /// Returns a list without files. `marks` says which files are private.
    pub(super) fn new(
        catalogue: Arc<Catalogue>,
        private: Arc<PrivateShares>,
        marks: Option<Arc<Marks>>,
    ) -> Listings {
        Listings {
            catalogue,
            private,
            marks,
            listed: Mutex::default(),
        }
    }

    /// Lists a file: under its keys if it has any, else publicly.
    pub(super) fn add(&self, asset: &Arc<Asset>) {
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
    pub(super) fn add_key(&self, asset: &Asset, key: &ShareKey) {
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

    /// Takes a file off every list.
    pub(super) fn remove(&self, asset: &Arc<Asset>) {
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

/// Opens the library of the shared directories, which are made if they are missing.
pub(super) fn open_library(
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
