//! What to download.

use std::io;
use std::time::Duration;

use qshare_content::{AssetName, Bitmap, ContentInfo, NodeAddress, ShareKey};
use qshare_storage::{
    DiskError, Durability, FileAttributes, OpenError, Opened, Part, PartOptions, Target,
};

use crate::access::Access;
use crate::vocabulary::{Contact, FoundFile};

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
    pub(super) durability: Durability,
    pub(super) give_up_after: Option<Duration>,
    pub(super) keep_serving: bool,
    pub(super) attributes: FileAttributes,
    pub(super) share_key: Option<ShareKey>,
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
            durability: Durability::Immediate,
            give_up_after: None,
            keep_serving: false,
            attributes: FileAttributes::default(),
            share_key: None,
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &AssetName {
        &self.name
    }

    /// Returns length and root of the content.
    pub fn info(&self) -> ContentInfo {
        self.info
    }

    /// Requests a file that a lookup found. The holders from the lookup are tried, and others. The
    /// file gets the modification time that they agree on. It does not become executable: whoever
    /// trusts its origin asks for that with [`attributes`](Self::attributes).
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

    /// Whether to replace a different file at the target.
    pub fn force(mut self, force: bool) -> DownloadRequest {
        self.force = force;
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
        Access::new(&self.info, self.share_key.as_ref())
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
