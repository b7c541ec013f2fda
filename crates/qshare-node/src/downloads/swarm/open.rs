//! Opening the part: what an earlier run left, and what is in the way.

use std::sync::Arc;

use qshare_storage::{FileAttributes, HashOptions, OpenError, Opened, Part, PartOptions};

use super::super::single_chunk::different;
use super::super::{DownloadRequest, Shared};
use crate::error::DownloadError;
use crate::node::Inner;
use crate::vocabulary::Stage;

/// Opens the part; hashes what an earlier run left.
pub(super) async fn open(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
) -> Result<Opened, DownloadError> {
    shared.set_stage(Stage::Recovering);
    let hashing = HashOptions::default();
    let cancel = hashing.cancel.clone();
    let options = PartOptions {
        force: request.force,
        hashing,
        attributes: FileAttributes::default(),
    };
    let (target, info) = (request.target.clone(), request.info);
    let open = inner.blocking(move || Part::open(&target, info, &options));
    let mut open = std::pin::pin!(open);
    let opened = tokio::select! {
        opened = &mut open => opened,
        () = shared.stop.cancelled() => {
            cancel.cancel();
            open.await
        }
    };
    opened.map_err(|error| match error {
        OpenError::Different(path) => different(path),
        OpenError::Disk(error) => error.into(),
        OpenError::Cancelled => DownloadError::Stopped,
        other => DownloadError::InTheWay {
            path: request.target.path(),
            why: describe(&other),
        },
    })
}

fn describe(error: &OpenError) -> String {
    match error {
        OpenError::OtherUnfinished { .. } => {
            format!("{error}; --force discards that one, -o writes elsewhere")
        }
        OpenError::Locked(_) => format!("{error} by another qshare; wait for it, or stop it"),
        other => other.to_string(),
    }
}
