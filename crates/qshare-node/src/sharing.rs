//! Sharing files and folders from where they lie, while the node runs: the handle of a share, and
//! the task that follows the changes of its path.

mod file;
mod folder;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::manifest::FolderList;
use qshare_content::{AssetName, ContentInfo, FolderLink, ShareKey};
use qshare_storage::FileAttributes;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::access::Access;
use crate::runtime::{Tasks, blocking};
use crate::shares::{Audience, ShareStore};

pub use file::ShareRequest;
pub use folder::FolderShareRequest;

/// Factor between the time that looking at a path takes and the pause after it: looking at many
/// files takes a twentieth of the time.
const PAUSE_FACTOR: u32 = 20;

/// A shared file or folder. Clones are the same share, which ends with [`Share::stop`] or with the
/// node.
#[derive(Clone)]
pub struct Share {
    subject: Arc<Subject>,
    shares: Arc<ShareStore>,
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

/// What is shared, and with whom.
pub(crate) struct Subject {
    path: PathBuf,
    name: AssetName,
    key: Option<ShareKey>,
}

/// The state of a shared file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareVersion {
    /// Length and root of the content that is, or was last, served: a file, or the manifest of a
    /// folder.
    pub info: ContentInfo,
    /// Counts the contents that the path has had, from 1.
    pub number: u64,
    /// Whether all of it is served. Otherwise the path has changed, and its new content is not
    /// hashed yet.
    pub is_served: bool,
    /// Whether the node also serves the content of a private file to everybody.
    pub is_also_public: bool,
    /// The attributes of a file; the default for a folder.
    pub attributes: FileAttributes,
    /// What a link to a folder says; None for a file.
    pub folder: Option<FolderLink>,
    /// Number of files: 1 for a file.
    pub files: u64,
    /// Sum of the files' lengths in bytes.
    pub bytes: u64,
}

impl Share {
    /// Returns the name for receivers.
    pub fn name(&self) -> &AssetName {
        &self.subject.name
    }

    /// Returns the key of a private share.
    pub fn key(&self) -> Option<&ShareKey> {
        self.subject.key.as_ref()
    }

    /// Returns the path of the file or directory.
    pub fn path(&self) -> &Path {
        &self.subject.path
    }

    /// Returns the current version.
    pub fn version(&self) -> ShareVersion {
        self.state.borrow().version.clone()
    }

    /// Returns the list of files of a folder's current version; None for a file.
    pub fn list(&self) -> Option<Arc<FolderList>> {
        self.state.borrow().list.clone()
    }

    /// Waits until the version has changed since the last call. Stays pending after the share has
    /// ended.
    pub async fn changed(&mut self) -> ShareVersion {
        match self.state.changed().await {
            Ok(()) => self.state.borrow_and_update().version.clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns who is served the current version.
    pub fn audience(&self) -> Audience {
        let info = self.state.borrow().version.info;
        let access = Access::new(&info, self.subject.key.as_ref());
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

/// What a [`Share`] shows of the current version.
struct State {
    version: ShareVersion,
    /// The files of a folder.
    list: Option<Arc<FolderList>>,
}

/// A kind of path that can be shared.
pub(crate) trait Shareable: Send + Sync + 'static {
    /// A version that was hashed, and is not served yet.
    type Hashed: Send;
    /// A version that is served.
    type Served: Clone + Send + 'static;
    /// Why a path cannot be hashed.
    type Error: Display + Send;

    /// Interval at which the path is compared with its state when it was hashed. Reading a changed
    /// file fails at once, whatever this is.
    const CHECK_EVERY: Duration;
    /// Pause between noticing a change and hashing: programs write a file in several steps.
    const SETTLE: Duration;

    fn subject(&self) -> Subject;

    /// Hashes the path: for the first time, or after a change.
    fn hash(
        self: &Arc<Self>,
        shares: &ShareStore,
        is_first: bool,
    ) -> impl Future<Output = Result<Self::Hashed, Self::Error>> + Send;

    /// Returns the version with number 1, and the files of a folder. Called before it is served.
    fn describe(
        &self,
        shares: &ShareStore,
        hashed: &Self::Hashed,
    ) -> (ShareVersion, Option<Arc<FolderList>>);

    /// Serves and announces a version, in the place of the previous one if there is any.
    fn serve(
        &self,
        shares: &ShareStore,
        hashed: Self::Hashed,
        previous: Option<&Self::Served>,
    ) -> Self::Served;

    /// Whether the path has changed. Blocks.
    fn is_changed(served: &Self::Served) -> bool;

    /// Withdraws what a change has made wrong, before the new version is hashed.
    fn set_aside(&self, shares: &ShareStore, served: &Self::Served);

    /// Stops serving and announcing a version, for the end of the share.
    fn withdraw(&self, shares: &ShareStore, served: &Self::Served);
}

/// Hashes a path, serves and announces it, and follows its changes. A new version of a private
/// share keeps the share's key, so that a code keeps its meaning; its topic and its link are new,
/// and the old link does not lead to it.
pub(crate) async fn share<S: Shareable>(
    request: S,
    shares: Arc<ShareStore>,
    tasks: &Tasks,
) -> Result<Share, S::Error> {
    let request = Arc::new(request);
    let hashed = request.hash(&shares, true).await?;
    let (version, list) = request.describe(&shares, &hashed);
    let state = watch::Sender::new(State { version, list });
    let stop = tasks.stopping().child_token();
    let share = Share {
        subject: Arc::new(request.subject()),
        shares: shares.clone(),
        state: state.subscribe(),
        stop: stop.clone(),
    };
    let mut served = request.serve(&shares, hashed, None);
    let following = Following {
        request,
        shares,
        state,
    };
    tasks.spawn(async move {
        let stopped = stop
            .run_until_cancelled(following.follow(&mut served))
            .await;
        debug_assert!(stopped.is_none());
        following.request.withdraw(&following.shares, &served);
    });
    Ok(share)
}

/// Follows the changes of a shared path.
struct Following<S> {
    request: Arc<S>,
    shares: Arc<ShareStore>,
    state: watch::Sender<State>,
}

impl<S: Shareable> Following<S> {
    /// Serves every version of the path. Never returns.
    async fn follow(&self, served: &mut S::Served) {
        let mut pause = S::CHECK_EVERY;
        loop {
            sleep(pause).await;
            let (looked_at, begun) = (served.clone(), Instant::now());
            let is_changed = blocking(move || S::is_changed(&looked_at)).await;
            pause = S::CHECK_EVERY.max(begun.elapsed() * PAUSE_FACTOR);
            if !is_changed {
                continue;
            }
            self.request.set_aside(&self.shares, served);
            self.state
                .send_modify(|state| state.version.is_served = false);
            let hashed = self.next_version().await;
            let (mut version, list) = self.request.describe(&self.shares, &hashed);
            *served = self.request.serve(&self.shares, hashed, Some(served));
            self.state.send_modify(|state| {
                let is_new = state.version.info != version.info;
                version.number = state.version.number + u64::from(is_new);
                *state = State { version, list };
            });
        }
    }

    /// Hashes the path again, as soon as it can be read and does not change meanwhile.
    async fn next_version(&self) -> S::Hashed {
        sleep(S::SETTLE).await;
        loop {
            match self.request.hash(&self.shares, false).await {
                Ok(hashed) => return hashed,
                Err(error) => debug!(%error, "a shared path that has changed cannot be hashed"),
            }
            sleep(S::CHECK_EVERY).await;
        }
    }
}
