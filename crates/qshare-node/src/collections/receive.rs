//! Receiving a folder: its list first, then its members.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use qshare_content::manifest::{FolderList, ManifestError, TimesReader};
use qshare_content::{AssetName, ContentInfo, NodeAddress, NodeId, ShareKey};
use qshare_storage::{
    DiskError, Durability, FileAttributes, HashError, HashOptions, SharedFile, SharedFolder, Target,
};
use tokio::time::timeout;
use tracing::debug;

use crate::access::Access;
use crate::downloads::{
    CollectionSources, Download, DownloadRequest, Downloads, Member, RunningFolder,
};
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::shares::{Membership, ShareStore, SharedCollection};
use crate::vocabulary::Contact;

/// Time for the modification times, without which a folder is received all the same.
const TIMES_PATIENCE: Duration = Duration::from_secs(10);

/// A folder to receive.
#[derive(Clone)]
pub struct FolderRequest {
    pub(super) name: AssetName,
    pub(super) manifest: ContentInfo,
    list_path: PathBuf,
    times: Option<ContentInfo>,
    pub(super) share_key: Option<ShareKey>,
    pub(super) holders: Vec<Contact>,
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) give_up_after: Option<Duration>,
    keep_times: bool,
    keep_execute_bits: bool,
    /// Whether this version is wanted, or the name.
    pinned: bool,
    /// The download of a running node that this belongs to.
    within: Option<RunningFolder>,
}

impl FolderRequest {
    /// Requests a folder by its manifest. The list is kept at `list_path` while the folder is
    /// received, so that an interrupted run need not fetch it again.
    pub fn new(name: AssetName, manifest: ContentInfo, list_path: PathBuf) -> FolderRequest {
        FolderRequest {
            name,
            manifest,
            list_path,
            times: None,
            share_key: None,
            holders: Vec::new(),
            nodes: Vec::new(),
            give_up_after: None,
            keep_times: true,
            keep_execute_bits: true,
            pinned: false,
            within: None,
        }
    }

    /// Requests the folder of a running node's download.
    pub(super) fn of_download(request: &DownloadRequest, list_path: PathBuf) -> FolderRequest {
        let (holders, nodes, patience) = request.sources_known();
        let terms = request.folder_terms();
        let mut folder = FolderRequest::new(request.name().clone(), request.info(), list_path);
        folder.pinned = request.is_pinned();
        folder
            .times(terms.and_then(|terms| terms.times))
            .share_key(request.key().cloned())
            .holders(holders)
            .nodes(nodes)
            .give_up_after(patience)
            .keep_execute_bits(terms.is_none_or(|terms| terms.keeps_exec))
    }

    /// Makes it a part of a running node's download, with its rate limit and priority.
    pub(crate) fn within(mut self, download: &RunningFolder) -> FolderRequest {
        self.within = Some(download.clone());
        self
    }

    /// Names the content with the modification times.
    pub fn times(mut self, times: Option<ContentInfo>) -> FolderRequest {
        self.times = times;
        self
    }

    /// Requests a folder of a private share.
    pub fn share_key(mut self, key: Option<ShareKey>) -> FolderRequest {
        self.share_key = key;
        self
    }

    /// Adds known holders. Trackers are asked for more.
    pub fn holders(mut self, holders: Vec<Contact>) -> FolderRequest {
        self.holders.extend(holders);
        self
    }

    /// Adds nodes that are asked directly, whether or not trackers list them.
    pub fn nodes(mut self, nodes: Vec<NodeAddress>) -> FolderRequest {
        self.nodes.extend(nodes);
        self
    }

    /// Gives up when there has been no source for this long; None waits without limit.
    pub fn give_up_after(mut self, patience: Option<Duration>) -> FolderRequest {
        self.give_up_after = patience;
        self
    }

    /// Whether files get the folder's modification times.
    pub fn keep_times(mut self, keep: bool) -> FolderRequest {
        self.keep_times = keep;
        self
    }

    /// Whether files get the folder's execute bits.
    pub fn keep_execute_bits(mut self, keep: bool) -> FolderRequest {
        self.keep_execute_bits = keep;
        self
    }

    fn times_path(&self) -> PathBuf {
        times_path(&self.list_path)
    }
}

/// Why the list of a folder is not there.
#[derive(Debug, thiserror::Error)]
pub enum FolderFetchError {
    /// It could not be downloaded.
    #[error(transparent)]
    Download(Arc<DownloadError>),
    /// It is not valid. Nothing of the folder has been written.
    #[error(transparent)]
    Invalid(ManifestError),
    /// It cannot be read from disk.
    #[error(transparent)]
    Disk(DiskError),
}

/// A folder whose list is there and valid. Nothing of the folder itself has been written.
pub struct Folder {
    request: FolderRequest,
    list: Arc<FolderList>,
    times: Option<Vec<i64>>,
    manifest: Arc<SharedFile>,
    times_file: Option<Arc<SharedFile>>,
    sources: Arc<CollectionSources>,
    downloads: Arc<Downloads>,
    shares: Arc<ShareStore>,
}

impl Folder {
    /// Downloads the list of a folder, and validates it.
    pub(crate) async fn open(
        downloads: &Arc<Downloads>,
        shares: &Arc<ShareStore>,
        request: FolderRequest,
    ) -> Result<Folder, FolderFetchError> {
        let path = request.list_path.clone();
        let fetched = fetch_list(downloads, &request, request.manifest, &path);
        fetched.await.map_err(FolderFetchError::Download)?;
        let info = request.manifest;
        let read = move || {
            let manifest = open_list(&path, info)?;
            let list = FolderList::read(manifest.reader(), info);
            if list.is_err() {
                // Nobody wants it again.
                let _ = std::fs::remove_file(&path);
            }
            Ok((list.map_err(FolderFetchError::Invalid)?, manifest))
        };
        let (list, manifest) = blocking(read).await?;
        let files = list.file_count();
        let access = Access::new(&request.manifest, request.share_key.as_ref());
        let (known, nodes) = (request.holders.clone(), &request.nodes);
        let sources = downloads.collection_sources(access, files, known, nodes);
        let (times, times_file) = match request.times {
            Some(info) => open_times(downloads, &request, &sources, info, files).await,
            None => None,
        }
        .unzip();
        Ok(Folder {
            request,
            list: Arc::new(list),
            times,
            manifest: Arc::new(manifest),
            times_file: times_file.map(Arc::new),
            sources,
            downloads: downloads.clone(),
            shares: shares.clone(),
        })
    }

    /// Returns the list.
    pub fn list(&self) -> &Arc<FolderList> {
        &self.list
    }

    /// Returns the name.
    pub fn name(&self) -> &AssetName {
        &self.request.name
    }

    /// Returns length and root of the list.
    pub fn manifest(&self) -> ContentInfo {
        self.request.manifest
    }

    /// Returns the attributes of a file in the folder.
    pub fn attributes(&self, at: u32) -> FileAttributes {
        let times = self.times.as_ref();
        FileAttributes {
            modified_ns: times.and_then(|times| times.get(at as usize).copied()),
            executable: self.list.file(at).is_some_and(|file| file.executable),
        }
    }

    /// Returns the attributes that a file gets here.
    pub fn kept_attributes(&self, at: u32) -> FileAttributes {
        let attributes = self.attributes(at);
        FileAttributes {
            modified_ns: attributes.modified_ns.filter(|_| self.request.keep_times),
            executable: attributes.executable && self.request.keep_execute_bits,
        }
    }

    /// Begins to receive members into a directory, and to serve and announce those that are there.
    pub fn receive(self, base: &Path) -> FolderReceiver {
        let request = &self.request;
        let access = Access::new(&request.manifest, request.share_key.as_ref());
        let collection = Arc::new(SharedCollection::new(
            request.name.clone(),
            self.manifest.clone(),
            self.times_file.clone(),
            request.share_key.clone(),
            SharedFolder::empty(base, self.list.clone()),
        ));
        self.shares.add_collection(&collection, false);
        let sources = self.sources.clone();
        FolderReceiver {
            base: base.to_path_buf(),
            folder: self,
            collection,
            sources,
            access,
        }
    }

    /// Removes the list from disk. It is served as long as this node runs only if it stays.
    pub fn remove_list(request: &FolderRequest) {
        let _ = std::fs::remove_file(&request.list_path);
        let _ = std::fs::remove_file(request.times_path());
    }
}

/// A folder that is being received.
pub struct FolderReceiver {
    base: PathBuf,
    folder: Folder,
    collection: Arc<SharedCollection>,
    sources: Arc<CollectionSources>,
    access: Access,
}

impl FolderReceiver {
    /// Returns the folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the number of known holders.
    pub fn holders(&self) -> usize {
        self.sources.count()
    }

    /// Returns the request that downloads a file to its place. Its holders are those of the folder.
    pub fn request(&self, at: u32) -> Option<DownloadRequest> {
        let file = self.folder.list.file(at)?;
        let request = &self.folder.request;
        let access = match &request.share_key {
            None => Access::Public(file.info.id()),
            Some(key) => Access::member(&file.info, key, &self.access),
        };
        let member = Member {
            membership: Membership {
                collection: self.collection.clone(),
                at,
            },
            sources: self.sources.clone(),
            access,
        };
        let target = Target::beneath(&self.base, file.name.clone());
        Some(
            DownloadRequest::new(file.name, file.info, target)
                .holders(self.sources.holders_of(at))
                .nodes(request.nodes.clone())
                .attributes(self.folder.kept_attributes(at))
                .give_up_after(request.give_up_after)
                .pinned(request.pinned)
                .within(request.within.as_ref())
                .member(member),
        )
    }

    /// Serves a file that is there and has new attributes.
    pub fn readopt(&self, at: u32) {
        if let Err(error) = self.collection.readopt(at) {
            debug!(%error, "cannot serve a file of a folder");
        }
    }

    /// Announces that this node has the whole folder, if it has. In a private share, tells its
    /// sources.
    pub async fn finish(&self) {
        if !self.collection.folder.present().is_full() {
            return;
        }
        self.shares().add_collection(&self.collection, true);
        if self.folder.request.share_key.is_some() {
            let sources = &self.sources;
            self.folder
                .downloads
                .report_received(sources, &self.access)
                .await;
        }
    }

    /// Stops serving and announcing the folder.
    pub(crate) fn withdraw(&self) {
        self.shares().remove_collection(&self.collection, false);
    }

    /// Returns the collection with the members that are there.
    pub(super) fn collection(&self) -> &Arc<SharedCollection> {
        &self.collection
    }

    /// Begins the download of a file, or returns the running one.
    pub(super) fn begin(&self, request: DownloadRequest) -> Download {
        self.folder.downloads.begin(request)
    }

    /// Returns this node's ID.
    pub(super) fn us(&self) -> NodeId {
        self.folder.downloads.us()
    }

    /// Removes the list from disk, after the node was stopped.
    pub fn remove_list(&self) {
        Folder::remove_list(&self.folder.request);
    }

    fn shares(&self) -> &ShareStore {
        &self.folder.shares
    }
}

async fn fetch_list(
    downloads: &Arc<Downloads>,
    request: &FolderRequest,
    info: ContentInfo,
    path: &Path,
) -> Result<(), Arc<DownloadError>> {
    let list = DownloadRequest::new(request.name.clone(), info, Target::Path(path.into()))
        .holders(request.holders.clone())
        .nodes(request.nodes.clone())
        .share_key(request.share_key.clone())
        .durability(Durability::Deferred)
        .force(true)
        .give_up_after(request.give_up_after)
        .pinned(request.pinned)
        .within(request.within.as_ref())
        .unannounced();
    let list = StopOnDrop(downloads.begin(list));
    list.0.finished().await.map(drop)
}

/// Stops a download that nobody waits for any more.
struct StopOnDrop(Download);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Returns where the modification times are kept beside a list.
pub(super) fn times_path(list: &Path) -> PathBuf {
    list.with_extension("times")
}

pub(super) fn open_list(path: &Path, info: ContentInfo) -> Result<SharedFile, FolderFetchError> {
    let opened = SharedFile::hashed(path, &HashOptions::default());
    match opened {
        Ok(file) if file.info() == info => Ok(file),
        Err(HashError::Disk(error)) => Err(FolderFetchError::Disk(error)),
        _ => {
            let changed = std::io::Error::other("it has changed meanwhile");
            Err(FolderFetchError::Disk(DiskError::new(
                "read", path, changed,
            )))
        }
    }
}

/// Downloads the modification times. Whoever made the list may lie about them, or hold them no
/// more, so they are not essential.
async fn open_times(
    downloads: &Arc<Downloads>,
    request: &FolderRequest,
    sources: &Arc<CollectionSources>,
    info: ContentInfo,
    files: u32,
) -> Option<(Vec<i64>, SharedFile)> {
    let path = request.times_path();
    let access = request.share_key.as_ref().map(|key| {
        let collection = Access::new(&request.manifest, Some(key));
        Access::member(&info, key, &collection)
    });
    let times = DownloadRequest::new(request.name.clone(), info, Target::Path(path.clone()))
        .holders(request.holders.clone())
        .nodes(request.nodes.clone())
        .sources(sources.clone())
        .access_as(access)
        .durability(Durability::Deferred)
        .force(true)
        .give_up_after(Some(TIMES_PATIENCE))
        .within(request.within.as_ref())
        .unannounced();
    let times = StopOnDrop(downloads.begin(times));
    let fetched = timeout(TIMES_PATIENCE, times.0.finished());
    match fetched.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            debug!(%error, "no modification times");
            return None;
        }
        Err(_) => return None,
    }
    let read = move || {
        let file = open_list(&path, info).ok()?;
        let times = TimesReader::new(file.reader()).and_then(|reader| reader.read_all(files));
        match times {
            Ok(times) => Some((times, file)),
            Err(error) => {
                debug!(%error, "invalid modification times");
                None
            }
        }
    };
    blocking(read).await
}
