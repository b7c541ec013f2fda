//! Folders of this node, as its owner sees them: sharing one, and receiving one.

mod ask;
mod download;
mod fetch;
mod read;
mod receive;
mod restore;
mod selection;
mod share;

pub use ask::FolderFound;
pub(crate) use ask::ask_for_folder;
pub(crate) use download::FolderDownloads;
pub use fetch::{FetchTerms, FolderEvent, FolderFetch, FolderTotals, FormerFolder};
pub use read::FolderReader;
pub use receive::{Folder, FolderFetchError, FolderReceiver, FolderRequest};
pub use selection::{InvalidGlob, Selection};
pub(crate) use share::share_folder;
pub use share::{FolderShare, FolderShareRequest, FolderVersion};
