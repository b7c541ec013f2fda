//! Downloads: the handles that an owner holds, and the tasks behind them.

mod chunk_request;
mod committer;
mod digest;
mod download;
mod folder;
mod follow;
mod meter;
mod newer;
mod rates;
mod received;
mod request;
mod reuse;
mod roster;
mod service;
mod single_chunk;
mod sources;
mod streams;
mod swarm;

pub(crate) use committer::Committer;
pub use download::Download;
pub use folder::FolderTerms;
pub(crate) use folder::{Boxed, Folders, RunningFolder};
pub use follow::Follow;
pub(crate) use newer::Newer;
pub use rates::Priority;
pub(crate) use request::Member;
pub use request::{DownloadRequest, discard_unfinished, unfinished_chunks};
pub use roster::{
    DownloadId, NoSuchDownload, RemoveError, RosterChanges, RosterCounts, RosterPage, RosterRow,
    RosterState,
};
pub(crate) use roster::{Lost, Roster, RosterConfig};
pub(crate) use service::{Downloads, DownloadsConfig};
pub(crate) use sources::CollectionSources;
pub use streams::{ContentReader, StreamError};
