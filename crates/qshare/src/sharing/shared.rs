//! What is shared: a file or a folder, in one form.

use std::sync::Arc;

use qshare_node::content::manifest::FolderList;
use qshare_node::content::{AssetName, ContentInfo, FolderLink, ShareKey};
use qshare_node::{Audience, FileAttributes, FolderShare, Share};

/// A shared file or folder.
#[derive(Clone)]
pub(crate) enum Shared {
    File(Share),
    Folder(FolderShare),
}

/// The state of a shared file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedVersion {
    /// Length and root of the file, or of the folder's list.
    pub(crate) info: ContentInfo,
    /// Counts the contents that it has had, from 1.
    pub(crate) number: u64,
    /// Whether it is served. Otherwise it has changed, and is not hashed yet.
    pub(crate) is_served: bool,
    /// Whether the node also serves the content of a private share to everybody.
    pub(crate) is_also_public: bool,
    /// The attributes of a file.
    pub(crate) attributes: FileAttributes,
    /// What the link to a folder says.
    pub(crate) folder: Option<FolderLink>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Shared {
    pub(crate) fn name(&self) -> &AssetName {
        match self {
            Shared::File(share) => share.name(),
            Shared::Folder(share) => share.name(),
        }
    }

    pub(crate) fn key(&self) -> Option<&ShareKey> {
        match self {
            Shared::File(share) => share.key(),
            Shared::Folder(share) => share.key(),
        }
    }

    pub(crate) fn audience(&self) -> Audience {
        match self {
            Shared::File(share) => share.audience(),
            Shared::Folder(share) => share.audience(),
        }
    }

    pub(crate) fn version(&self) -> SharedVersion {
        match self {
            Shared::File(share) => {
                let version = share.version();
                SharedVersion {
                    info: version.info,
                    number: version.number,
                    is_served: version.is_served,
                    is_also_public: version.is_also_public,
                    attributes: version.attributes,
                    folder: None,
                    files: 1,
                    bytes: version.info.length,
                }
            }
            Shared::Folder(share) => {
                let version = share.version();
                SharedVersion {
                    info: version.info,
                    number: version.number,
                    is_served: version.is_served,
                    is_also_public: false,
                    attributes: FileAttributes::default(),
                    folder: Some(FolderLink {
                        times: Some(version.times),
                    }),
                    files: version.totals.files,
                    bytes: version.totals.bytes,
                }
            }
        }
    }

    /// Returns the files of a folder.
    pub(crate) fn list(&self) -> Option<Arc<FolderList>> {
        match self {
            Shared::File(_) => None,
            Shared::Folder(share) => Some(share.list()),
        }
    }

    /// Ends the share. Answers that are being sent continue.
    pub(crate) fn stop(&self) {
        match self {
            Shared::File(share) => share.stop(),
            Shared::Folder(share) => share.stop(),
        }
    }
}
