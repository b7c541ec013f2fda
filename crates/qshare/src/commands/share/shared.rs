//! What is shared: a file or a folder, in one form.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_node::content::{AssetName, ContentInfo, FolderLink, ShareKey};
use qshare_node::{
    Audience, Cancel, FileAttributes, FolderError, FolderProgress, FolderShare, FolderShareRequest,
    FolderSkip, FolderSkipReason, HashIndex, Node, Share,
};
use tokio::sync::mpsc;

use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;
use crate::output;

/// Paths that are left out and named one by one.
const SKIPPED_TOLD: usize = 20;
/// Interval of the lines about hashing.
const TELL_EVERY: Duration = Duration::from_secs(4);

/// A shared file or folder.
#[derive(Clone)]
pub(super) enum Shared {
    File(Share),
    Folder(FolderShare),
}

/// The state of a shared file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedVersion {
    /// Length and root of the file, or of the folder's list.
    pub(super) info: ContentInfo,
    /// Counts the contents that it has had, from 1.
    pub(super) number: u64,
    /// Whether it is served. Otherwise it has changed, and is not hashed yet.
    pub(super) is_served: bool,
    /// Whether the node also serves the content of a private share to everybody.
    pub(super) is_also_public: bool,
    /// The attributes of a file.
    pub(super) attributes: FileAttributes,
    /// What the link to a folder says.
    pub(super) folder: Option<FolderLink>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Shared {
    pub(super) fn name(&self) -> &AssetName {
        match self {
            Shared::File(share) => share.name(),
            Shared::Folder(share) => share.name(),
        }
    }

    pub(super) fn key(&self) -> Option<&ShareKey> {
        match self {
            Shared::File(share) => share.key(),
            Shared::Folder(share) => share.key(),
        }
    }

    pub(super) fn audience(&self) -> Audience {
        match self {
            Shared::File(share) => share.audience(),
            Shared::Folder(share) => share.audience(),
        }
    }

    pub(super) fn version(&self) -> SharedVersion {
        match self {
            Shared::File(share) => {
                let version = share.version();
                SharedVersion {
                    info: version.info,
                    number: version.number,
                    is_served: version.is_served,
                    is_also_public: version.is_also_public,
                    attributes: version.attributes,
                    folder: None,
                    files: 1,
                    bytes: version.info.length,
                }
            }
            Shared::Folder(share) => {
                let version = share.version();
                SharedVersion {
                    info: version.info,
                    number: version.number,
                    is_served: version.is_served,
                    is_also_public: false,
                    attributes: FileAttributes::default(),
                    folder: Some(FolderLink {
                        times: Some(version.times),
                    }),
                    files: version.totals.files,
                    bytes: version.totals.bytes,
                }
            }
        }
    }
}

/// Hashes a folder and shares it. Names what is left out.
pub(super) async fn share_folder(
    node: &Node,
    path: PathBuf,
    name: AssetName,
    key: Option<ShareKey>,
    index: Option<HashIndex>,
    console: &Console,
) -> Result<Shared, Failure> {
    let (skips, mut skipped) = mpsc::unbounded_channel::<FolderSkip>();
    let (steps, mut progress) = tokio::sync::watch::channel(FolderProgress::default());
    let cancel = Cancel::new();
    // Stops hashing when this future is dropped.
    let guard = CancelOnDrop(Some(cancel.clone()));
    let request = FolderShareRequest {
        path: path.clone(),
        name,
        key,
        index,
        exclude: Vec::new(),
        cancel,
        progress: Some(Arc::new(move |now| _ = steps.send_replace(now))),
        skipped: Arc::new(move |skip| _ = skips.send(skip)),
    };
    let shared = node.share_folder(request);
    let mut shared = std::pin::pin!(shared);
    let (begun, mut told) = (Instant::now(), 0);
    let mut ticks = tokio::time::interval_at((begun + TELL_EVERY).into(), TELL_EVERY);
    let shared = loop {
        tokio::select! {
            shared = &mut shared => break shared,
            Some(skip) = skipped.recv() => tell_skipped(&skip, &mut told, console),
            _ = ticks.tick() => {
                let now = *progress.borrow_and_update();
                console.note(&hashing_line(&path, &now, begun.elapsed()));
            }
        }
    };
    while let Ok(skip) = skipped.try_recv() {
        tell_skipped(&skip, &mut told, console);
    }
    if told > SKIPPED_TOLD {
        let more = output::count((told - SKIPPED_TOLD) as u64, "more path");
        console.note(&format!("left out {more}"));
    }
    guard.disarm();
    match shared {
        Ok(share) => Ok(Shared::Folder(share)),
        Err(error) => Err(Failure::new(
            match &error {
                FolderError::Cancelled => Exit::Interrupted,
                FolderError::Manifest(_) => Exit::Failed,
                FolderError::Disk(_) => Exit::Disk,
            },
            format!("cannot share {}: {error}", shown(&path)),
        )),
    }
}

fn tell_skipped(skip: &FolderSkip, told: &mut usize, console: &Console) {
    *told += 1;
    if *told <= SKIPPED_TOLD {
        let what = match skip.reason {
            FolderSkipReason::LinkOutside => "left out the symbolic link",
            _ => "left out",
        };
        console.note(&format!("{what} {}: {}", shown(&skip.path), skip.reason));
    }
}

fn hashing_line(path: &std::path::Path, now: &FolderProgress, elapsed: Duration) -> String {
    let per_second = now.bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let left_bytes = now.total_bytes.saturating_sub(now.bytes) as f64;
    let left = match per_second > 0.0 {
        true => format!(", {:.0} s left", left_bytes / per_second),
        false => String::new(),
    };
    format!(
        "hashing {}: {} of {}, {}/s{left}",
        shown(path),
        now.files,
        output::count(now.total_files, "file"),
        output::bytes(per_second as u64)
    )
}

struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    /// A later version of the folder is hashed with the same flag.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}
