//! Hashes what is to be shared, with progress.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::content::{AssetName, ShareKey};
use qshare_node::{
    Cancel, FolderError, FolderProgress, FolderShareRequest, FolderSkip, FolderSkipReason,
    HashIndex, HashOptions, Node, Share, ShareRequest, default_identity_dir, new_share_key,
};
use tokio::sync::mpsc;

use crate::args::ShareArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;
use crate::output;
use crate::sharing::{CancelOnDrop, SharedPath};

/// Files below this length are hashed before a person could read a progress bar.
const BAR_FROM_BYTES: u64 = 256 << 20;
/// Paths that are left out and named one by one.
const SKIPPED_TOLD: usize = 20;
/// Interval of the lines about hashing.
const TELL_EVERY: Duration = Duration::from_secs(4);

/// Opens the hashes of earlier runs. Without them, everything is hashed.
pub(super) fn open_index(args: &ShareArgs) -> Option<HashIndex> {
    let found = default_identity_dir(args.network.certs.dir.as_deref()).ok()?;
    let opened = HashIndex::open(&found.path.join("share-state"));
    match opened {
        Ok(index) => Some(index),
        Err(error) => {
            tracing::debug!(%error, "hashing without an index");
            None
        }
    }
}

pub(super) async fn hash_and_share(
    node: &Node,
    args: &ShareArgs,
    file: SharedPath,
    index: Option<HashIndex>,
    console: &Console,
) -> Result<Share, Failure> {
    let SharedPath {
        path,
        name,
        length,
        is_folder,
    } = file;
    let key = (!args.public).then(new_share_key);
    if is_folder {
        return share_folder(node, path, name, key, index, console).await;
    }
    let mut hashing = HashOptions::default();
    let guard = CancelOnDrop::new(&hashing.cancel);
    let bar =
        (length >= BAR_FROM_BYTES && stderr().is_terminal() && !console.is_quiet()).then(|| {
            let bars = MultiProgress::new();
            let bar = bars.add(ProgressBar::new(length).with_message(shown(&path)));
            let template = "hashing {wide_msg} {percent:>3}%  {decimal_bytes_per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            console.show_bars(bars);
            bar
        });
    if let Some(bar) = bar.clone() {
        hashing.progress = Some(Arc::new(move |done, _| bar.set_position(done)));
    }
    let request = ShareRequest {
        path,
        name,
        key,
        hashing,
        index,
    };
    let shared = node.share_file(request).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
        console.clear();
    }
    let shared = shared?;
    // A later version of the file is hashed with the same options.
    guard.disarm();
    Ok(shared)
}

/// Hashes a folder and shares it. Names what is left out.
async fn share_folder(
    node: &Node,
    path: PathBuf,
    name: AssetName,
    key: Option<ShareKey>,
    index: Option<HashIndex>,
    console: &Console,
) -> Result<Share, Failure> {
    let (skips, mut skipped) = mpsc::unbounded_channel::<FolderSkip>();
    let (steps, mut progress) = tokio::sync::watch::channel(FolderProgress::default());
    let cancel = Cancel::new();
    // Stops hashing when this future is dropped.
    let guard = CancelOnDrop::new(&cancel);
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
    shared.map_err(|error| {
        let exit = match &error {
            FolderError::Cancelled => Exit::Interrupted,
            FolderError::Manifest(_) => Exit::Failed,
            FolderError::Disk(_) => Exit::Disk,
        };
        Failure::new(exit, format!("cannot share {}: {error}", shown(&path)))
    })
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

fn hashing_line(path: &Path, now: &FolderProgress, elapsed: Duration) -> String {
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
