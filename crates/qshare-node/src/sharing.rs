//! Sharing files from where they lie, while the node runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{AssetName, ContentInfo, ShareKey};
use qshare_storage::{FileAttributes, HashError, HashIndex, HashOptions, SharedFile};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::access::Access;
use crate::runtime::{Tasks, blocking};
use crate::shares::{Audience, ShareStore};

/// How often a shared file is compared with its state when it was hashed. A change is noticed at
/// once by a read, which fails then.
const CHECK_EVERY: Duration = Duration::from_secs(1);

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

/// A shared file. Clones are the same share, which ends with [`Share::stop`] or with the node.
#[derive(Clone)]
pub struct Share {
    request: Arc<ShareRequest>,
    shares: Arc<ShareStore>,
    version: watch::Receiver<ShareVersion>,
    stop: CancellationToken,
}

/// The state of a shared file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareVersion {
    /// Length and root of the content that is, or was last, served.
    pub info: ContentInfo,
    /// The file's attributes.
    pub attributes: FileAttributes,
    /// Counts the contents that the file has had, from 1.
    pub number: u64,
    /// Whether it is served. Otherwise the file has changed, and its new content is not hashed yet.
    pub is_served: bool,
    /// Whether the node also serves the content of a private share to everybody.
    pub is_also_public: bool,
}

impl Share {
    /// Returns the name for receivers.
    pub fn name(&self) -> &AssetName {
        &self.request.name
    }

    /// Returns the key of a private share.
    pub fn key(&self) -> Option<&ShareKey> {
        self.request.key.as_ref()
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &std::path::Path {
        &self.request.path
    }

    /// Returns the current version.
    pub fn version(&self) -> ShareVersion {
        self.version.borrow().clone()
    }

    /// Waits until the version has changed since the last call. Stays pending after the share has
    /// ended.
    pub async fn changed(&mut self) -> ShareVersion {
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

/// Returns a new random share key.
pub fn new_share_key() -> ShareKey {
    ShareKey::from_bytes(rand::random())
}

/// Hashes a file, serves and announces it, and follows its changes. A new content of a private
/// share keeps the share's key, so that a code keeps its meaning; its topic and its link are new,
/// and the old link does not lead to it.
pub(crate) async fn share(
    request: ShareRequest,
    shares: Arc<ShareStore>,
    tasks: &Tasks,
) -> Result<Share, HashError> {
    let request = Arc::new(request);
    let file = open(&request, &shares).await?;
    let info = file.info();
    let stop = tasks.stopping().child_token();
    let version = watch::Sender::new(ShareVersion {
        info,
        attributes: file.attributes(),
        number: 1,
        is_served: true,
        is_also_public: is_also_public(&request, &shares, &info),
    });
    let share = Share {
        request: request.clone(),
        shares: shares.clone(),
        version: version.subscribe(),
        stop: stop.clone(),
    };
    let following = Following {
        request,
        shares,
        version,
    };
    following.serve(file.clone());
    tasks.spawn(async move {
        let stopped = stop.run_until_cancelled(following.follow(file)).await;
        debug_assert!(stopped.is_none());
        following.withdraw(false);
    });
    Ok(share)
}

async fn open(
    request: &Arc<ShareRequest>,
    shares: &ShareStore,
) -> Result<Arc<SharedFile>, HashError> {
    let request = request.clone();
    let index = request.index.clone().or_else(|| shares.hash_index());
    let open = move || match &index {
        Some(index) => SharedFile::indexed(&request.path, index, &request.hashing),
        None => SharedFile::hashed(&request.path, &request.hashing),
    };
    blocking(open).await.map(Arc::new)
}

fn is_also_public(request: &ShareRequest, shares: &ShareStore, info: &ContentInfo) -> bool {
    request.key.is_some() && shares.find(&info.id()).is_some()
}

/// Follows the changes of a shared file.
struct Following {
    request: Arc<ShareRequest>,
    shares: Arc<ShareStore>,
    version: watch::Sender<ShareVersion>,
}

impl Following {
    fn serve(&self, file: Arc<SharedFile>) {
        let ShareRequest { name, key, .. } = &*self.request;
        let access = Access::new(&file.info(), key.as_ref());
        self.shares.audiences().begin_counting(access.wire_id());
        self.shares.add_file(name, file, key.as_ref());
    }

    fn withdraw(&self, changed: bool) {
        let ShareRequest { name, key, .. } = &*self.request;
        let info = self.version.borrow().info;
        self.shares.remove_file(name, info, key.as_ref(), changed);
        if !changed {
            let access = Access::new(&info, key.as_ref());
            self.shares.audiences().forget(&access.wire_id());
        }
    }

    /// Serves every version of the file. Never returns.
    async fn follow(&self, mut file: Arc<SharedFile>) {
        loop {
            sleep(CHECK_EVERY).await;
            let looked_at = file.clone();
            if !blocking(move || looked_at.is_changed()).await {
                continue;
            }
            self.withdraw(true);
            self.version
                .send_modify(|version| version.is_served = false);
            file = self.next_version().await;
            let info = file.info();
            let is_also_public = is_also_public(&self.request, &self.shares, &info);
            self.serve(file.clone());
            self.version.send_modify(|version| {
                *version = ShareVersion {
                    info,
                    attributes: file.attributes(),
                    number: version.number + u64::from(version.info != info),
                    is_served: true,
                    is_also_public,
                };
            });
        }
    }

    /// Hashes the file again as soon as it can be read and does not change meanwhile.
    async fn next_version(&self) -> Arc<SharedFile> {
        loop {
            sleep(CHECK_EVERY).await;
            match open(&self.request, &self.shares).await {
                Ok(file) => return file,
                Err(error) => debug!(%error, "a shared file that has changed cannot be hashed"),
            }
        }
    }
}
