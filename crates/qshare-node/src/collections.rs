//! Folders that this node asks for, receives and reads.

mod ask;
mod download;
mod fetch;
mod read;
mod receive;
mod restore;
mod selection;

pub use ask::FolderFound;
pub(crate) use ask::ask_for_folder;
pub(crate) use download::FolderDownloads;
pub use fetch::{FetchTerms, FolderEvent, FolderFetch, FolderTotals, FormerFolder};
pub use read::FolderReader;
pub use receive::{Folder, FolderFetchError, FolderReceiver, FolderRequest};
pub use selection::{InvalidGlob, Selection};
