//! A file to share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::manifest::FolderList;
use qshare_content::{AssetName, ShareKey};
use qshare_storage::{HashError, HashIndex, HashOptions, SharedFile};

use super::{ShareVersion, Shareable, Subject};
use crate::access::Access;
use crate::runtime::blocking;
use crate::shares::ShareStore;

/// A file to share.
#[derive(Clone)]
pub struct ShareRequest {
    /// The file, which stays where it is.
    pub path: PathBuf,
    /// Its name for receivers.
    pub name: AssetName,
    /// The key of a private share. Without it, the file is listed by its name, as those in shared
    /// directories are.
    pub key: Option<ShareKey>,
    /// How the file is hashed: the progress, and how to stop it.
    pub hashing: HashOptions,
    /// The hashes of earlier runs; None for those of the node's shared directories.
    pub index: Option<HashIndex>,
}

impl ShareRequest {
    fn remove(&self, shares: &ShareStore, file: &SharedFile, changed: bool) {
        shares.remove_file(&self.name, file.info(), self.key.as_ref(), changed);
    }
}

impl Shareable for ShareRequest {
    type Hashed = Arc<SharedFile>;
    type Served = Arc<SharedFile>;
    type Error = HashError;

    const CHECK_EVERY: Duration = Duration::from_secs(1);
    const SETTLE: Duration = Duration::from_secs(1);

    fn subject(&self) -> Subject {
        Subject {
            path: self.path.clone(),
            name: self.name.clone(),
            key: self.key.clone(),
        }
    }

    async fn hash(
        self: &Arc<Self>,
        shares: &ShareStore,
        _is_first: bool,
    ) -> Result<Arc<SharedFile>, HashError> {
        let request = self.clone();
        let index = self.index.clone().or_else(|| shares.hash_index());
        let open = move || match &index {
            Some(index) => SharedFile::indexed(&request.path, index, &request.hashing),
            None => SharedFile::hashed(&request.path, &request.hashing),
        };
        blocking(open).await.map(Arc::new)
    }

    fn describe(
        &self,
        shares: &ShareStore,
        file: &Arc<SharedFile>,
    ) -> (ShareVersion, Option<Arc<FolderList>>) {
        let info = file.info();
        let version = ShareVersion {
            info,
            number: 1,
            is_served: true,
            is_also_public: self.key.is_some() && shares.find(&info.id()).is_some(),
            attributes: file.attributes(),
            folder: None,
            files: 1,
            bytes: info.length,
        };
        (version, None)
    }

    fn serve(
        &self,
        shares: &ShareStore,
        file: Arc<SharedFile>,
        _previous: Option<&Arc<SharedFile>>,
    ) -> Arc<SharedFile> {
        let access = Access::new(&file.info(), self.key.as_ref());
        shares.audiences().begin_counting(access.wire_id());
        shares.add_file(&self.name, file.clone(), self.key.as_ref());
        file
    }

    fn is_changed(file: &Arc<SharedFile>) -> bool {
        file.is_changed()
    }

    fn set_aside(&self, shares: &ShareStore, file: &Arc<SharedFile>) {
        self.remove(shares, file, true);
    }

    fn withdraw(&self, shares: &ShareStore, file: &Arc<SharedFile>) {
        self.remove(shares, file, false);
        let access = Access::new(&file.info(), self.key.as_ref());
        shares.audiences().forget(&access.wire_id());
    }
}
