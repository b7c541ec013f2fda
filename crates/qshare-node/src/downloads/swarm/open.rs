//! Opens the part: checks the target and the files of an earlier run.

use qshare_storage::{HashOptions, OpenError, Opened, Part, PartOptions};

use super::super::download::DownloadState;
use super::super::request::DownloadRequest;
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::vocabulary::Stage;

/// Opens the part, and hashes the files of an earlier run.
pub(super) async fn open(
    request: &DownloadRequest,
    state: &DownloadState,
) -> Result<Opened, DownloadError> {
    state.set_stage(Stage::Recovering);
    let hashing = HashOptions::default();
    let cancel = hashing.cancel.clone();
    let options = PartOptions {
        force: request.force,
        supersedes: request.supersedes.map(|earlier| earlier.id()),
        hashing,
        attributes: request.attributes,
        share_key: request.share_key.clone(),
    };
    let (target, info) = (request.target.clone(), request.info);
    let open = blocking(move || Part::open(&target, info, &options));
    let mut open = std::pin::pin!(open);
    let opened = tokio::select! {
        opened = &mut open => opened,
        () = state.stop.cancelled() => {
            cancel.cancel();
            open.await
        }
    };
    opened.map_err(|error| match error {
        OpenError::Different(path) => DownloadError::Different { path },
        OpenError::NotAFile(path) => DownloadError::NotAFile { path },
        OpenError::Disk(error) => error.into(),
        OpenError::Cancelled => DownloadError::Stopped,
        cause => DownloadError::Open {
            path: request.target.path(),
            cause,
        },
    })
}
