//! What to download.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{AssetName, Bitmap, ContentInfo, Hash, NodeAddress, ShareKey};
use qshare_storage::{
    DiskError, Durability, FileAttributes, OpenError, Opened, Part, PartOptions, PrivateFile,
    Target,
};
use tokio::sync::mpsc;

use super::download::Download;
use super::folder::{FolderTerms, RunningFolder};
use super::follow::Follow;
use super::newer::Newer;
use super::rates::Rates;
use super::sources::{CollectionSources, SourceWatch};
use crate::access::Access;
use crate::shares::Membership;
use crate::vocabulary::{Contact, FoundFile, HolderNews, Progress};

/// A content to download, and its target.
///
/// ```
/// use std::time::Duration;
/// use qshare_node::{DownloadRequest, Target, content::{AssetName, ContentInfo, Hash}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let name = AssetName::new("data.bin")?;
/// let info = ContentInfo { length: 5, root: Hash([7; 32]) };
/// let request = DownloadRequest::new(name, info, Target::Path("copy.bin".into()))
///     .force(true)
///     .give_up_after(Duration::from_secs(60));
/// # let _ = request;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    pub(super) name: AssetName,
    pub(super) info: ContentInfo,
    pub(super) target: Target,
    pub(super) holders: Vec<Contact>,
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) force: bool,
    /// The earlier version whose unfinished data at the target this download reuses.
    pub(super) supersedes: Option<ContentInfo>,
    pub(super) durability: Durability,
    pub(super) give_up_after: Option<Duration>,
    pub(super) keep_serving: bool,
    pub(super) attributes: FileAttributes,
    pub(super) sha256: Option<Hash>,
    pub(super) share_key: Option<ShareKey>,
    pub(super) member: Option<Member>,
    pub(super) access: Option<Access>,
    /// Whose holders are asked, if not those of the content itself.
    pub(super) sources: Option<Arc<CollectionSources>>,
    pub(super) is_unannounced: bool,
    /// What makes it the download of a folder, whose manifest is the content.
    pub(super) folder: Option<FolderTerms>,
    /// How it is looked up again; None if this content is wanted and no other.
    pub(super) follow: Option<Follow>,
    /// The download of the earlier version, which must end before.
    pub(super) after: Option<Download>,
    /// Whether it ends when all of its sources have another version.
    pub(super) ends_when_changed: bool,
    /// The folder's download that this one belongs to.
    pub(super) within: Option<Arc<Rates>>,
}

/// A file of a collection: where it is served, and whom to ask for it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) membership: Membership,
    pub(crate) sources: Arc<CollectionSources>,
    pub(crate) access: Access,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.membership.fmt(f)
    }
}

impl DownloadRequest {
    /// Requests a content by its length and root. The name is used in messages, and by nodes that
    /// this download serves. By default, a different file at the target is not replaced, the file
    /// is durable at the end, and the download waits for sources without limit.
    pub fn new(name: AssetName, info: ContentInfo, target: Target) -> DownloadRequest {
        DownloadRequest {
            name,
            info,
            target,
            holders: Vec::new(),
            nodes: Vec::new(),
            force: false,
            supersedes: None,
            durability: Durability::Immediate,
            give_up_after: None,
            keep_serving: false,
            attributes: FileAttributes::default(),
            sha256: None,
            share_key: None,
            member: None,
            access: None,
            sources: None,
            is_unannounced: false,
            folder: None,
            follow: None,
            after: None,
            ends_when_changed: false,
            within: None,
        }
    }

    /// Requests the folder whose manifest is the content. The target is its directory.
    pub fn folder(mut self, terms: impl Into<Option<FolderTerms>>) -> DownloadRequest {
        self.folder = terms.into();
        self
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the key of a private share.
    pub(crate) fn key(&self) -> Option<&ShareKey> {
        self.share_key.as_ref()
    }

    /// Returns whether a different file at the target is replaced.
    pub(crate) fn is_forced(&self) -> bool {
        self.force
    }

    /// Returns the known holders, the nodes to ask, and the patience without a source.
    pub(crate) fn sources_known(&self) -> (Vec<Contact>, Vec<NodeAddress>, Option<Duration>) {
        (self.holders.clone(), self.nodes.clone(), self.give_up_after)
    }

    /// Returns the folder's terms, if this requests a folder.
    pub fn folder_terms(&self) -> Option<&FolderTerms> {
        self.folder.as_ref()
    }

    /// Goes on with the newer version when the file is replaced at its sources. A node that shares
    /// directories looks for one; another owner does that itself.
    pub fn follow(mut self, follow: impl Into<Option<Follow>>) -> DownloadRequest {
        self.follow = follow.into();
        self
    }

    /// Requests a newer version of the same file or folder.
    pub(super) fn renewed(self, newer: Newer) -> DownloadRequest {
        let (supersedes, follow) = (Some(self.info), self.follow.clone());
        let renewed = |holders: &[Contact]| follow.map(|follow| follow.renewed(holders));
        match newer {
            Newer::File(file) => DownloadRequest {
                info: file.info,
                attributes: FileAttributes {
                    modified_ns: file.metadata.modified_ns,
                    executable: file.metadata.executable
                        && self.follow.as_ref().is_some_and(|follow| follow.keeps_exec),
                },
                follow: renewed(&file.holders),
                holders: file.holders,
                supersedes,
                ..self
            },
            Newer::Folder {
                manifest,
                times,
                holders,
            } => DownloadRequest {
                info: manifest,
                folder: self
                    .folder
                    .clone()
                    .map(|terms| FolderTerms { times, ..terms }),
                follow: renewed(&holders),
                holders,
                supersedes,
                ..self
            },
        }
    }

    /// Stops the download of the earlier version, and waits for its end.
    pub(crate) async fn end_former(&self) {
        if let Some(former) = &self.after {
            former.stop();
            let _ = former.finished().await;
        }
    }

    /// Whether this version is wanted and no other, so that it ends when its sources have another.
    pub(crate) fn pinned(mut self, pinned: bool) -> DownloadRequest {
        self.ends_when_changed = pinned;
        self
    }

    /// Returns whether it is a version that is wanted, or the name.
    pub(crate) fn is_pinned(&self) -> bool {
        self.ends_when_changed
    }

    /// Returns the earlier version that this one replaces.
    pub(crate) fn former(&self) -> Option<ContentInfo> {
        self.supersedes
    }

    /// Shares the rate limit and priority of a folder's download.
    pub(crate) fn within(mut self, folder: Option<&RunningFolder>) -> DownloadRequest {
        self.within = folder.map(RunningFolder::rates);
        self
    }

    /// Whether this is a part of a folder's download, which no list shows by itself.
    pub(super) fn is_part(&self) -> bool {
        self.member.is_some() || self.sources.is_some() || self.is_unannounced
    }

    /// Returns the progress before the start.
    pub(super) fn first_progress(&self) -> Progress {
        let counts = self.folder.as_ref().map(|terms| terms.known);
        Progress {
            // The length of a folder's manifest is not that of the folder.
            total_bytes: counts.map_or(self.info.length, |known| known.total_bytes),
            verified_bytes: counts.map_or(0, |known| known.verified_bytes),
            files: counts
                .map(|known| known.files)
                .filter(|files| files.total > 0),
            ..Progress::default()
        }
    }

    /// Returns what is recorded of a private download.
    pub(crate) fn private_file(&self) -> Option<PrivateFile> {
        Some(PrivateFile {
            content: self.info.id(),
            key: self.share_key.clone()?,
            name: self.name.clone(),
            is_folder: self.folder.is_some(),
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &AssetName {
        &self.name
    }

    /// Returns the required plain SHA-256.
    pub fn required_sha256(&self) -> Option<Hash> {
        self.sha256
    }

    /// Returns length and root of the content.
    pub fn info(&self) -> ContentInfo {
        self.info
    }

    /// Requests a file that a lookup found, from the holders of the lookup and from further ones.
    /// The file gets the modification time that they agree on. It does not become executable: a
    /// caller that trusts its origin sets that with [`attributes`](Self::attributes).
    pub fn of_file(file: FoundFile, target: Target) -> DownloadRequest {
        let attributes = FileAttributes {
            modified_ns: file.metadata.modified_ns,
            executable: false,
        };
        DownloadRequest::new(file.name, file.info, target)
            .holders(file.holders)
            .attributes(attributes)
    }

    /// Adds known holders. Trackers are asked for more.
    pub fn holders(mut self, holders: Vec<Contact>) -> DownloadRequest {
        self.holders.extend(holders);
        self
    }

    /// Adds nodes that are asked directly, whether or not trackers list them.
    pub fn nodes(mut self, nodes: Vec<NodeAddress>) -> DownloadRequest {
        self.nodes.extend(nodes);
        self
    }

    /// Sets the attributes of the finished file. The execute bit is subject to the umask.
    pub fn attributes(mut self, attributes: FileAttributes) -> DownloadRequest {
        self.attributes = attributes;
        self
    }

    /// Requires this plain SHA-256. It is computed while downloading; a file with another one gets
    /// no final name, and its data is deleted.
    pub fn sha256(mut self, digest: impl Into<Option<Hash>>) -> DownloadRequest {
        self.sha256 = digest.into();
        self
    }

    /// Whether to replace a different file at the target.
    pub fn force(mut self, force: bool) -> DownloadRequest {
        self.force = force;
        self
    }

    /// Takes over the unfinished download of an earlier version at the same target. Chunks that are
    /// the same in both versions are not fetched again.
    pub fn supersedes(mut self, earlier: impl Into<Option<ContentInfo>>) -> DownloadRequest {
        self.supersedes = earlier.into();
        self
    }

    /// Whether the file must be durable before the download counts as done.
    pub fn durability(mut self, durability: Durability) -> DownloadRequest {
        self.durability = durability;
        self
    }

    /// Gives up when there has been no source for this long; None waits without limit.
    pub fn give_up_after(mut self, patience: impl Into<Option<Duration>>) -> DownloadRequest {
        self.give_up_after = patience.into();
        self
    }

    /// Requests the content of a private share. It is fetched from and served to those who hold the
    /// key, and nobody else learns which content it is.
    pub fn share_key(mut self, key: impl Into<Option<ShareKey>>) -> DownloadRequest {
        self.share_key = key.into();
        self
    }

    /// Returns how requests name the content.
    pub(super) fn access(&self) -> Access {
        match (&self.member, &self.access) {
            (Some(member), _) => member.access.clone(),
            (None, Some(access)) => access.clone(),
            (None, None) => Access::new(&self.info, self.share_key.as_ref()),
        }
    }

    /// Whether the content belongs to a private share, by itself or in a folder.
    pub(super) fn is_private(&self) -> bool {
        matches!(self.access(), Access::Private { .. })
    }

    /// Requests a file of a collection, which is fetched from, served with and announced by the
    /// collection.
    pub(crate) fn member(mut self, member: Member) -> DownloadRequest {
        self.member = Some(member);
        self
    }

    /// Names the content in requests in another way than by its id or topic.
    pub(crate) fn access_as(mut self, access: Option<Access>) -> DownloadRequest {
        self.access = access;
        self
    }

    /// Asks the holders of a collection.
    pub(crate) fn sources(mut self, sources: Arc<CollectionSources>) -> DownloadRequest {
        self.sources = Some(sources);
        self
    }

    /// Watches the nodes to ask.
    pub(super) fn watch(&self, watch: &SourceWatch) -> mpsc::Receiver<HolderNews> {
        match (&self.member, &self.sources) {
            (Some(member), _) => member.sources.watch(Some(member.membership.at)),
            (None, Some(sources)) => sources.watch(None),
            (None, None) => watch.start(&self.access(), &self.nodes),
        }
    }

    /// Does not announce the content while it is being fetched.
    pub(crate) fn unannounced(mut self) -> DownloadRequest {
        self.is_unannounced = true;
        self
    }

    /// Returns the member's place in its collection.
    pub(super) fn membership(&self) -> Option<Membership> {
        self.member.as_ref().map(|member| member.membership.clone())
    }

    /// Whether this node tells its sources that it has all of a private content.
    pub(super) fn reports_received(&self) -> bool {
        self.share_key.is_some() && !self.is_unannounced
    }

    /// Whether to serve the finished file until the node stops, even if it is in no shared
    /// directory.
    pub fn keep_serving(mut self, keep_serving: bool) -> DownloadRequest {
        self.keep_serving = keep_serving;
        self
    }
}

/// Returns the chunks of an unfinished download that is not running, if there is one. Blocks.
/// Hashes the part file if the last stop was unclean.
pub fn unfinished_chunks(target: &Target, info: ContentInfo) -> Option<Bitmap> {
    if !target.part_path().exists() {
        return None;
    }
    match Part::open(target, info, &PartOptions::default()) {
        Ok(Opened::Part(part)) => {
            let chunks = part.recovered();
            // If this fails, the next start hashes the part again.
            let _ = part.close();
            Some(chunks)
        }
        _ => None,
    }
}

/// Deletes the data of an unfinished download that no process has open. Returns whether there was
/// any data. Blocks.
///
/// # Errors
///
/// Returns [`DiskError`] if the data is in use or cannot be removed.
pub fn discard_unfinished(target: &Target, info: ContentInfo) -> Result<bool, DiskError> {
    let failed = |cause: String| DiskError::new("discard", target.path(), io::Error::other(cause));
    match Part::open(target, info, &PartOptions::default()) {
        Ok(Opened::Part(part)) => match part.discard() {
            Ok(()) => Ok(true),
            Err(error) => Err(failed(error.to_string())),
        },
        Ok(Opened::Complete { .. }) => Ok(false),
        Err(OpenError::Disk(error)) => Err(error),
        Err(error) => Err(failed(error.to_string())),
    }
}
