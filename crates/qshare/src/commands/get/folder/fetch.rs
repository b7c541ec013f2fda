//! Downloads the files of a folder: a bounded number at once, each from any holder of the folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qshare_node::content::ContentInfo;
use qshare_node::{
    Contact, DownloadError, FolderEvent, FolderFetch, FolderFound, FolderTotals, Follow,
    FormerFolder, Node, Report,
};
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::args::GetArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{self, DownloadedJson};
use crate::progress::{self, Board};

/// Interval of lookups for a newer version.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Failures that are printed in full.
const FAILURES_TOLD: u64 = 20;

/// The result of a folder, as `--json` prints it after its files.
#[derive(Debug, Serialize)]
struct FolderJson {
    folder: String,
    path: String,
    content: String,
    files: u64,
    already_there: u64,
    failed: u64,
    size: u64,
    reused_bytes: u64,
    received_bytes: u64,
}

/// How a newer version of the folder is found.
pub(super) struct Following<'a> {
    pub(super) node: &'a Node,
    pub(super) follow: Follow,
    /// Length and root of the list of this version.
    pub(super) present: ContentInfo,
    /// Nodes that had it.
    pub(super) holders: Vec<Contact>,
}

impl Following<'_> {
    async fn newer(&self) -> Option<FolderFound> {
        let holders = self.holders.clone();
        let newer = self.node.newer_folder(&self.follow, self.present, holders);
        newer.await
    }

    /// Looks at once, and again until there is a newer version.
    async fn until_newer(&self) -> FolderFound {
        loop {
            if let Some(found) = self.newer().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The download of one folder.
pub(super) struct Fetching<'a> {
    fetch: FolderFetch,
    args: &'a GetArgs,
    console: &'a Console,
    worst: Option<Exit>,
    /// Whether the downloads were stopped for a newer version.
    is_replaced: bool,
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

impl<'a> Fetching<'a> {
    pub(super) fn new(fetch: FolderFetch, args: &'a GetArgs, console: &'a Console) -> Fetching<'a> {
        Fetching {
            fetch,
            args,
            console,
            worst: None,
            is_replaced: false,
        }
    }

    /// Downloads the files. Prints failures, and returns the worst one; or a newer version, for
    /// which the downloads were stopped.
    pub(super) async fn run(
        &mut self,
        mut board: Board,
        following: Option<Following<'_>>,
        stop: &CancellationToken,
    ) -> Result<Option<FolderFound>, Failure> {
        let (mut is_lost, mut newer) = (false, None);
        let mut look = std::pin::pin!(async {
            match &following {
                Some(following) => following.until_newer().await,
                None => std::future::pending().await,
            }
        });
        let (files, bytes) = self.fetch.expected();
        board.expect(usize::try_from(files).unwrap_or(usize::MAX), bytes);
        let mut ticks = tokio::time::interval(progress::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = self.fetch.next() => match event {
                    None => break,
                    Some(FolderEvent::Begun { key, download }) => board.add(key, download),
                    Some(FolderEvent::Ended { key, size_bytes, outcome }) => {
                        board.remove(key, size_bytes);
                        self.take(outcome)?;
                    }
                    Some(FolderEvent::Lost(cause)) => {
                        let failure = Failure::internal(cause);
                        self.console.error(&failure.message);
                        self.worst = self.worst.max(Some(failure.exit));
                    }
                },
                _ = ticks.tick() => {
                    board.tick();
                    let mut running = self.fetch.running();
                    is_lost = running.any(|download| download.progress().trouble.is_some());
                }
                found = &mut look, if is_lost && newer.is_none() => {
                    newer = Some(found);
                    self.is_replaced = true;
                    self.fetch.stop();
                }
                () = stop.cancelled(), if self.worst != Some(Exit::Interrupted) => {
                    self.worst = Some(Exit::Interrupted);
                    self.fetch.stop();
                }
            }
        }
        drop(board);
        if self.worst != Some(Exit::Interrupted) {
            if newer.is_none() && self.worst == Some(Exit::NotFound) {
                // All files that were left ended at once, because they have changed.
                newer = match &following {
                    Some(following) => following.newer().await,
                    None => None,
                };
            }
            if newer.is_some() {
                return Ok(newer);
            }
        }
        let untold = self.fetch.totals().failed.saturating_sub(FAILURES_TOLD);
        if untold > 0 && !stop.is_cancelled() {
            let files = output::count(untold, "more file");
            self.console
                .error(&format!("{files} could not be downloaded"));
        }
        match self.worst {
            None => Ok(None),
            Some(exit) => Err(Failure::printed(exit)),
        }
    }

    fn take(&mut self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Ok(report) if self.args.json.on => {
                self.console.json(&DownloadedJson::from(&*report))?;
            }
            Ok(_) => {}
            Err(error) => {
                let failure = Failure::from(&*error);
                if !self.is_replaced || !matches!(*error, DownloadError::Stopped) {
                    self.worst = self.worst.max(Some(failure.exit));
                }
                let is_told = self.fetch.totals().failed <= FAILURES_TOLD;
                if !matches!(*error, DownloadError::Stopped) && is_told {
                    self.console.error(&failure.message);
                }
            }
        }
        Ok(())
    }

    /// Stops serving this version, which a newer one replaces.
    pub(super) fn into_former(self) -> FormerFolder {
        self.fetch.into_former()
    }

    /// Makes the symbolic links, and announces the folder. Reports each link that cannot be made.
    pub(super) async fn finish(&self) -> Result<(), Failure> {
        let errors = self.fetch.finish().await;
        for error in &errors {
            self.console
                .error(&format!("cannot make a symbolic link: {error}"));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Failure::printed(Exit::Disk)),
        }
    }

    /// Prints the folder's path, or its totals.
    pub(super) fn summarise(&self, base: &Path) -> Result<(), Failure> {
        let FolderTotals {
            files,
            already_there,
            failed,
            bytes,
            reused_bytes,
            received_bytes,
            ..
        } = self.fetch.totals();
        let folder = self.fetch.receiver().folder();
        self.console.note(&format!(
            "{}/: {}, {} ({already_there} already there{}{})",
            folder.name(),
            output::count(files, "file"),
            output::bytes(bytes),
            match reused_bytes {
                0 => String::new(),
                reused => format!(", {} reused", output::bytes(reused)),
            },
            match failed {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            }
        ));
        match self.args.json.on {
            true => self.console.json(&FolderJson {
                folder: folder.name().to_string(),
                path: output::path(base),
                content: folder.manifest().id().to_string(),
                files,
                already_there,
                failed,
                size: bytes,
                reused_bytes,
                received_bytes,
            }),
            false => self.console.path(output::without_dot(base)),
        }
    }
}
