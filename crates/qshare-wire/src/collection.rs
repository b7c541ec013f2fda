//! Messages between nodes about folders, which are shared as collections.
//!
//! [`FolderRequest`] asks for the folder that a node shares under a name: a collection, or a
//! directory of its assets. [`MemberInterest`] is answered as [`crate::peer::Interest`] is, by
//! [`crate::peer::Have`] and [`crate::peer::HaveMore`], whose chunks are the files of the
//! collection here, numbered in the order of its manifest. In a private share, requests name the
//! topic of the manifest, once it is unlocked, and those for a member name the member's topic under
//! the same key.

use qshare_content::{AssetName, ContentId, ContentInfo, LENGTH_MAX_BYTES};
use serde::{Deserialize, Serialize};

use crate::hello::{Extensions, check_extensions};
use crate::limits::SMALL_BODY_MAX_BYTES;
use crate::{Message, WireError};

/// Bit of [`crate::hello::Hello::features`]: the sender knows collections.
pub const FEATURE_COLLECTIONS: u64 = 8;

/// `FolderRequest`: asks for the manifest of a folder.
///
/// ```text
/// folder text │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderRequest {
    /// The name of a collection, or the directory part of names.
    pub folder: AssetName,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for FolderRequest {
    const TYPE: u16 = 42;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "FolderRequest";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}

/// `FolderInfo`: the manifest of a folder, and its modification times, as contents to request.
///
/// ```text
/// manifest (length u64, root 32 bytes) │ times option of the same │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderInfo {
    /// Length and root of the manifest.
    pub manifest: ContentInfo,
    /// Length and root of the times.
    pub times: Option<ContentInfo>,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for FolderInfo {
    const TYPE: u16 = 43;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "FolderInfo";

    fn check(&self) -> Result<(), WireError> {
        let infos = [Some(self.manifest), self.times];
        if infos
            .iter()
            .flatten()
            .any(|info| info.length > LENGTH_MAX_BYTES)
        {
            return Err(WireError::Malformed(Self::NAME));
        }
        check_extensions::<Self>(&self.extensions)
    }
}

/// `MemberInterest`: asks which files of a collection the receiver can serve, now and as they come,
/// until the stream is closed. A file of several chunks counts from its first chunk on.
///
/// ```text
/// collection │ extensions
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInterest {
    /// The content id of the manifest, or its topic.
    pub collection: ContentId,
    /// For later versions.
    pub extensions: Extensions,
}

impl Message for MemberInterest {
    const TYPE: u16 = 44;
    const BODY_MAX_BYTES: usize = SMALL_BODY_MAX_BYTES;
    const NAME: &'static str = "MemberInterest";

    fn check(&self) -> Result<(), WireError> {
        check_extensions::<Self>(&self.extensions)
    }
}
