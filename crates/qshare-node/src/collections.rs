//! Folders of this node, as its owner sees them: sharing one, and receiving one.

mod ask;
mod read;
mod receive;
mod share;

pub use ask::FolderFound;
pub(crate) use ask::ask_for_folder;
pub use read::FolderReader;
pub use receive::{Folder, FolderFetchError, FolderReceiver, FolderRequest};
pub(crate) use share::share_folder;
pub use share::{FolderShare, FolderShareRequest, FolderVersion};
