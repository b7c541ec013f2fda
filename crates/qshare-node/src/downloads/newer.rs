//! Newer versions of downloads by name.

use qshare_content::ContentInfo;

use crate::vocabulary::{Contact, FoundFile};

/// The version that a name means by now.
#[derive(Debug, Clone)]
pub(crate) enum Newer {
    /// A file.
    File(FoundFile),
    /// A folder.
    Folder {
        /// Length and root of its manifest.
        manifest: ContentInfo,
        /// Length and root of its modification times.
        times: Option<ContentInfo>,
        /// Nodes that have it.
        holders: Vec<Contact>,
    },
}
