//! A folder to share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::manifest::FolderList;
use qshare_content::{AssetName, FolderLink, ShareKey};
use qshare_storage::{
    BuiltFolder, Cancel, FileAttributes, FolderError, FolderOptions, FolderProgress, FolderSkip,
    HashIndex, build_folder,
};
use tracing::debug;

use super::{ShareVersion, Shareable, Subject};
use crate::runtime::blocking;
use crate::shares::{ShareStore, SharedCollection};

/// A folder to share.
#[derive(Clone)]
pub struct FolderShareRequest {
    /// The directory, which stays where it is.
    pub path: PathBuf,
    /// Its name for receivers.
    pub name: AssetName,
    /// The key of a private share. Without it, the folder is listed by its name.
    pub key: Option<ShareKey>,
    /// Hashes of earlier runs.
    pub index: Option<HashIndex>,
    /// Directories beneath it that are never shared (identities, state).
    pub exclude: Vec<PathBuf>,
    /// Raised to stop hashing.
    pub cancel: Cancel,
    /// Called with the progress of hashing, from several threads.
    pub progress: Option<Arc<dyn Fn(FolderProgress) + Send + Sync>>,
    /// Called for every path that is left out of the first version.
    pub skipped: Arc<dyn Fn(FolderSkip) + Send + Sync>,
}

impl Shareable for FolderShareRequest {
    type Hashed = BuiltFolder;
    type Served = Arc<SharedCollection>;
    type Error = FolderError;

    const CHECK_EVERY: Duration = Duration::from_secs(2);
    const SETTLE: Duration = Duration::ZERO;

    fn subject(&self) -> Subject {
        Subject {
            path: self.path.clone(),
            name: self.name.clone(),
            key: self.key.clone(),
        }
    }

    async fn hash(
        self: &Arc<Self>,
        _shares: &ShareStore,
        is_first: bool,
    ) -> Result<BuiltFolder, FolderError> {
        let request = self.clone();
        let build = move || {
            let skipped = |skip: FolderSkip| {
                if is_first {
                    (request.skipped)(skip);
                } else {
                    debug!(path = %skip.path.display(), reason = %skip.reason, "left out");
                }
            };
            let progress = request.progress.clone().filter(|_| is_first);
            let tell = move |now: FolderProgress| {
                if let Some(progress) = &progress {
                    progress(now);
                }
            };
            let wants_progress = is_first && request.progress.is_some();
            let options = FolderOptions {
                index: request.index.clone(),
                exclude: request.exclude.clone(),
                cancel: request.cancel.clone(),
                threads: 0,
                progress: wants_progress.then_some(&tell as &(dyn Fn(FolderProgress) + Sync)),
                skipped: &skipped,
            };
            build_folder(&request.path, &options)
        };
        blocking(build).await
    }

    fn describe(
        &self,
        _shares: &ShareStore,
        built: &BuiltFolder,
    ) -> (ShareVersion, Option<Arc<FolderList>>) {
        let version = ShareVersion {
            info: built.manifest.info(),
            number: 1,
            is_served: true,
            is_also_public: false,
            attributes: FileAttributes::default(),
            folder: Some(FolderLink {
                times: Some(built.times.info()),
            }),
            files: built.totals.files,
            bytes: built.totals.bytes,
        };
        (version, Some(built.folder.list().clone()))
    }

    fn serve(
        &self,
        shares: &ShareStore,
        built: BuiltFolder,
        previous: Option<&Arc<SharedCollection>>,
    ) -> Arc<SharedCollection> {
        // The same manifest replaces the older one: times or hidden files have changed.
        if let Some(previous) = previous
            && previous.manifest.info() != built.manifest.info()
        {
            shares.remove_collection(previous, true);
        }
        let collection = Arc::new(SharedCollection::new(
            self.name.clone(),
            Arc::new(built.manifest),
            Some(Arc::new(built.times)),
            self.key.clone(),
            built.folder,
        ));
        shares.audiences().begin_counting(collection.wire_id());
        shares.add_collection(&collection, true);
        collection
    }

    fn is_changed(collection: &Arc<SharedCollection>) -> bool {
        collection.folder.any_changed()
    }

    /// Files that have not changed are served on.
    fn set_aside(&self, _shares: &ShareStore, _collection: &Arc<SharedCollection>) {}

    fn withdraw(&self, shares: &ShareStore, collection: &Arc<SharedCollection>) {
        shares.remove_collection(collection, false);
        shares.audiences().forget(&collection.wire_id());
    }
}
