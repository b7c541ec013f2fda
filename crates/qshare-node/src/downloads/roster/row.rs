//! What the roster tells about a download.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use qshare_content::{AssetName, ContentId, ContentInfo, tree};
use qshare_net::RateLimit;
use qshare_storage::{DiskError, Target};

use super::super::follow::Follow;
use super::super::rates::Priority;
use crate::error::DownloadError;
use crate::slow_cause::CauseShare;
use crate::vocabulary::{Contact, Progress};

/// Identifies one content at one target. The same after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DownloadId([u8; 16]);

impl DownloadId {
    /// Returns the ID of a download.
    pub fn new(info: &ContentInfo, target: &Target) -> DownloadId {
        let content = info.id();
        match target {
            // The directory may be written differently at the next start.
            Target::Beneath { name, .. } => DownloadId::of_name(&content, name),
            // No name begins with a slash.
            Target::Path(path) => {
                DownloadId::of_parts(&[&content.0, b"/", path.as_os_str().as_encoded_bytes()])
            }
        }
    }

    /// Returns the ID of the download of a content to a name beneath the directory of downloads.
    pub fn of_name(content: &ContentId, name: &AssetName) -> DownloadId {
        DownloadId::of_parts(&[&content.0, name.as_str().as_bytes()])
    }

    fn of_parts(parts: &[&[u8]]) -> DownloadId {
        let digest = tree::leaf_hash(&parts.concat()).0;
        DownloadId(std::array::from_fn(|at| digest[at]))
    }
}

impl fmt::Display for DownloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DownloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DownloadId {
    type Err = NoSuchDownload;

    fn from_str(text: &str) -> Result<DownloadId, NoSuchDownload> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16));
        match number {
            Some(Ok(number)) => Ok(DownloadId(number.to_be_bytes())),
            _ => Err(NoSuchDownload),
        }
    }
}

/// No download has this ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no download has this ID")]
pub struct NoSuchDownload;

/// Why downloads were not removed, or their data was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// No download has one of the IDs. Nothing was removed.
    #[error(transparent)]
    NoSuchDownload(#[from] NoSuchDownload),
    /// The data of a removed download cannot be deleted.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Whether a download runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RosterState {
    /// It runs, or waits for its turn.
    Running,
    /// Its user paused it. It stays paused after a restart.
    Paused,
    /// It ended with an error. It runs again at the next start.
    Failed,
    /// It is complete.
    Complete,
}

/// A download of the roster.
#[derive(Debug, Clone)]
pub struct RosterRow {
    /// Its ID.
    pub id: DownloadId,
    /// Its name.
    pub name: AssetName,
    /// Length and root of its content.
    pub info: ContentInfo,
    /// Whether it is a folder, and the content its manifest.
    pub is_folder: bool,
    /// The path of its target.
    pub path: PathBuf,
    /// Whether it runs.
    pub state: RosterState,
    /// Its progress; the last one if it does not run.
    pub progress: Progress,
    /// When it was added, or first found.
    pub added_at: SystemTime,
    /// When it completed or failed.
    pub ended_at: Option<SystemTime>,
    /// Why it failed.
    pub error: Option<Arc<DownloadError>>,
    /// Why it is not faster: the last seconds by cause, largest first; sums to 100, and is empty
    /// while nothing is known.
    pub why: Vec<CauseShare>,
    /// Its priority beside the node's other downloads.
    pub priority: Priority,
    /// Its rate limit, beside the limit of the node.
    pub limit: RateLimit,
}

/// A running download by name that has no source.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub(crate) id: DownloadId,
    pub(crate) follow: Follow,
    /// Length and root of the version at hand.
    pub(crate) info: ContentInfo,
    pub(crate) is_folder: bool,
    /// Nodes that had it, with their addresses.
    pub(crate) holders: Vec<Contact>,
}

/// A page of the roster, in the order in which the downloads were added.
#[derive(Debug, Clone, Default)]
pub struct RosterPage {
    /// The downloads.
    pub rows: Vec<RosterRow>,
    /// The cursor of the next page, if there is one.
    pub next: Option<u64>,
}

/// What changed in the roster since a revision.
#[derive(Debug, Clone, Default)]
pub struct RosterChanges {
    /// The revision of this answer, for the next question.
    pub revision: u64,
    /// Removals since then are not known any more: the caller must ask for everything, from
    /// revision 0 on.
    pub is_outdated: bool,
    /// There are more changes: ask again at once.
    pub more: bool,
    /// Downloads that were added or changed.
    pub changed: Vec<RosterRow>,
    /// Downloads that were removed.
    pub removed: Vec<DownloadId>,
}

/// The number of downloads by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RosterCounts {
    /// Under way.
    pub active: usize,
    /// Waiting for their turn.
    pub queued: usize,
    /// Paused.
    pub paused: usize,
    /// Ended with an error.
    pub failed: usize,
    /// Complete.
    pub complete: usize,
}

#[cfg(test)]
mod tests {
    use qshare_content::Hash;

    use super::*;

    #[test]
    fn an_id_depends_on_content_and_name_but_not_on_how_the_directory_is_written() {
        let info = |byte| ContentInfo {
            length: 5,
            root: Hash([byte; 32]),
        };
        let id = |info: ContentInfo, base: &str, name: &str| {
            DownloadId::new(&info, &Target::beneath(base, AssetName::new(name).unwrap()))
        };
        let first = id(info(1), "./downloads", "a");
        assert_eq!(first, id(info(1), "/home/x/downloads", "a"));
        assert_ne!(first, id(info(2), "./downloads", "a"));
        assert_ne!(first, id(info(1), "./downloads", "b"));
        let path = DownloadId::new(&info(1), &Target::Path("a".into()));
        assert_ne!(first, path);
        assert_eq!(first.to_string().parse(), Ok(first));
        for wrong in ["", "12", &"g".repeat(32), &"+1".repeat(16)] {
            assert_eq!(wrong.parse::<DownloadId>(), Err(NoSuchDownload), "{wrong}");
        }
    }
}
