//! Sharing a folder from where it lies, while the node runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::manifest::{FolderList, ManifestTotals};
use qshare_content::{AssetName, ContentInfo, ShareKey};
use qshare_storage::{
    BuiltFolder, Cancel, FolderError, FolderOptions, FolderProgress, FolderSkip, HashIndex,
    build_folder,
};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::access::Access;
use crate::runtime::{Tasks, blocking};
use crate::shares::{Audience, ShareStore, SharedCollection};

/// How often the files of a shared folder are compared with the list. A change is noticed at once
/// by a read, which fails then.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Part of the time that goes into looking at many files: a twentieth.
const PAUSE_FACTOR: u32 = 20;

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

/// The state of a shared folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderVersion {
    /// Length and root of the manifest that is, or was last, served.
    pub info: ContentInfo,
    /// Length and root of the modification times.
    pub times: ContentInfo,
    /// What the folder holds.
    pub totals: ManifestTotals,
    /// Counts the manifests that the folder has had, from 1.
    pub number: u64,
    /// Whether all of it is served. Otherwise files have changed, and are not hashed yet.
    pub is_served: bool,
}

/// A shared folder. Clones are the same share, which ends with [`FolderShare::stop`] or with the
/// node.
#[derive(Clone)]
pub struct FolderShare {
    request: Arc<FolderShareRequest>,
    shares: Arc<ShareStore>,
    version: watch::Receiver<FolderVersion>,
    list: watch::Receiver<Arc<FolderList>>,
    stop: CancellationToken,
}

impl FolderShare {
    /// Returns the name for receivers.
    pub fn name(&self) -> &AssetName {
        &self.request.name
    }

    /// Returns the key of a private share.
    pub fn key(&self) -> Option<&ShareKey> {
        self.request.key.as_ref()
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.request.path
    }

    /// Returns the current version.
    pub fn version(&self) -> FolderVersion {
        self.version.borrow().clone()
    }

    /// Returns the list of files of the current version.
    pub fn list(&self) -> Arc<FolderList> {
        self.list.borrow().clone()
    }

    /// Waits until the version has changed since the last call. Stays pending after the share has
    /// ended.
    pub async fn changed(&mut self) -> FolderVersion {
        match self.version.changed().await {
            Ok(()) => self.version.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns who is served the current version.
    pub fn audience(&self) -> Audience {
        let info = self.version.borrow().info;
        let access = Access::new(&info, self.request.key.as_ref());
        self.shares.audiences().current(&access.wire_id())
    }

    /// Ends the share. Answers that are being sent continue.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Hashes a folder, serves and announces it, and follows its changes. A new version of a private
/// share keeps the share's key, so that a code keeps its meaning; its topic and its link are new.
pub(crate) async fn share_folder(
    request: FolderShareRequest,
    shares: Arc<ShareStore>,
    tasks: &Tasks,
) -> Result<FolderShare, FolderError> {
    let request = Arc::new(request);
    let built = build(&request, true).await?;
    let stop = tasks.stopping().child_token();
    let version = watch::Sender::new(version_of(&built, 1));
    let list = watch::Sender::new(built.folder.list().clone());
    let share = FolderShare {
        request: request.clone(),
        shares: shares.clone(),
        version: version.subscribe(),
        list: list.subscribe(),
        stop: stop.clone(),
    };
    let following = Following {
        request,
        shares,
        version,
        list,
    };
    let mut served = following.serve(built);
    tasks.spawn(async move {
        let _ = stop
            .run_until_cancelled(following.follow(&mut served))
            .await;
        following.withdraw(&served, false);
    });
    Ok(share)
}

async fn build(
    request: &Arc<FolderShareRequest>,
    is_first: bool,
) -> Result<BuiltFolder, FolderError> {
    let request = request.clone();
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

fn version_of(built: &BuiltFolder, number: u64) -> FolderVersion {
    FolderVersion {
        info: built.manifest.info(),
        times: built.times.info(),
        totals: built.totals,
        number,
        is_served: true,
    }
}

/// Follows the changes of a shared folder.
struct Following {
    request: Arc<FolderShareRequest>,
    shares: Arc<ShareStore>,
    version: watch::Sender<FolderVersion>,
    list: watch::Sender<Arc<FolderList>>,
}

impl Following {
    fn serve(&self, built: BuiltFolder) -> Arc<SharedCollection> {
        let FolderShareRequest { name, key, .. } = &*self.request;
        let collection = Arc::new(SharedCollection::new(
            name.clone(),
            Arc::new(built.manifest),
            Some(Arc::new(built.times)),
            key.clone(),
            built.folder,
        ));
        self.shares.audiences().begin_counting(collection.wire_id());
        self.shares.add_collection(&collection, true);
        collection
    }

    fn withdraw(&self, collection: &Arc<SharedCollection>, changed: bool) {
        self.shares.remove_collection(collection, changed);
        if !changed {
            self.shares.audiences().forget(&collection.wire_id());
        }
    }

    /// Serves every version of the folder. Never returns.
    async fn follow(&self, served: &mut Arc<SharedCollection>) {
        let mut pause = CHECK_EVERY;
        loop {
            sleep(pause).await;
            let (looked_at, begun) = (served.clone(), Instant::now());
            if !blocking(move || looked_at.folder.any_changed()).await {
                pause = CHECK_EVERY.max(begun.elapsed() * PAUSE_FACTOR);
                continue;
            }
            self.version
                .send_if_modified(|version| std::mem::replace(&mut version.is_served, false));
            let built = self.next_version().await;
            let number = self.version.borrow().number;
            let is_new = built.manifest.info() != served.manifest.info();
            let version = version_of(&built, number + u64::from(is_new));
            if is_new {
                self.withdraw(served, true);
            }
            // The same manifest replaces the older one: times or hidden files have changed.
            self.list.send_replace(built.folder.list().clone());
            *served = self.serve(built);
            self.version.send_replace(version);
            pause = CHECK_EVERY.max(begun.elapsed() * PAUSE_FACTOR);
        }
    }

    /// Hashes what has changed, once the directory can be read.
    async fn next_version(&self) -> BuiltFolder {
        loop {
            match build(&self.request, false).await {
                Ok(built) => return built,
                Err(error) => debug!(%error, "a shared folder that has changed cannot be listed"),
            }
            sleep(CHECK_EVERY).await;
        }
    }
}
