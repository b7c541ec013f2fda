//! Downloads: the handles that an owner holds, and the tasks behind them.

mod chunk_request;
mod committer;
mod download;
mod meter;
mod rates;
mod request;
mod service;
mod single_chunk;
mod sources;
mod swarm;

pub(crate) use committer::Committer;
pub use download::Download;
pub use rates::Priority;
pub use request::{DownloadRequest, discard_unfinished, unfinished_chunks};
pub(crate) use service::{Downloads, DownloadsConfig};
