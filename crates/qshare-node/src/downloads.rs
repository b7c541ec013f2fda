//! Downloads: the handles that an owner holds, and the tasks behind them.

mod chunk_request;
mod committer;
mod digest;
mod download;
mod meter;
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
pub use rates::Priority;
pub(crate) use request::Member;
pub use request::{DownloadRequest, discard_unfinished, unfinished_chunks};
pub use roster::{
    DownloadId, NoSuchDownload, RemoveError, RosterChanges, RosterCounts, RosterPage, RosterRow,
    RosterState,
};
pub(crate) use roster::{Roster, RosterConfig};
pub(crate) use service::{Downloads, DownloadsConfig};
pub(crate) use sources::CollectionSources;
pub use streams::{ContentReader, StreamError};
