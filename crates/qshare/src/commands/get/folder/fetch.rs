//! Downloads the files of a folder: a bounded number at once, each from any holder of the folder.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use qshare_node::content::ContentId;
use qshare_node::{Download, DownloadError, Durability, FolderPlace, FolderReceiver, Node, Report};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::args::GetArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{self, DownloadedJson};
use crate::progress::{self, Board};

/// Downloads handed to the node at once; each takes some kilobytes. The more wait to become
/// durable, the fewer syncs are needed.
const HANDED_OVER_MAX: usize = 8 * 1024;
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

/// The download of one folder.
pub(super) struct Fetching<'a> {
    node: &'a Node,
    receiver: &'a FolderReceiver,
    place: &'a FolderPlace,
    args: &'a GetArgs,
    console: &'a Console,
    running: HashMap<usize, (u32, Download)>,
    totals: Totals,
    worst: Option<Exit>,
}

#[derive(Default)]
struct Totals {
    files: u64,
    already_there: u64,
    failed: u64,
    bytes: u64,
    reused_bytes: u64,
    received_bytes: u64,
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

impl<'a> Fetching<'a> {
    pub(super) fn new(
        node: &'a Node,
        receiver: &'a FolderReceiver,
        place: &'a FolderPlace,
        args: &'a GetArgs,
        console: &'a Console,
    ) -> Fetching<'a> {
        Fetching {
            node,
            receiver,
            place,
            args,
            console,
            running: HashMap::new(),
            totals: Totals::default(),
            worst: None,
        }
    }

    /// Downloads files. Prints failures, and returns the worst one.
    pub(super) async fn run(
        &mut self,
        mut files: Vec<u32>,
        mut board: Board,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let list = self.receiver.folder().list().clone();
        let length = |at: &u32| list.info(*at).map_or(0, |info| info.length);
        board.expect(files.len(), files.iter().map(length).sum());
        // Each receiver begins elsewhere, so that those who come at once soon have different files
        // for each other.
        if !files.is_empty() {
            let head = self.node.id().0.first_chunk().copied().unwrap_or_default();
            let start = u64::from_le_bytes(head) % files.len() as u64;
            files.rotate_left(start as usize);
        }
        let mut waiting = VecDeque::from(files);
        // Of the names of one content the first is fetched, and the others are copied from it.
        let mut busy: HashSet<ContentId> = HashSet::new();
        let mut deferred: HashMap<ContentId, VecDeque<u32>> = HashMap::new();
        // Contents of which one file is there.
        let mut copied: HashSet<ContentId> = HashSet::new();
        let mut ends: JoinSet<(usize, Outcome)> = JoinSet::new();
        let mut keys = 0..;
        let mut ticks = tokio::time::interval(progress::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            while ends.len() < HANDED_OVER_MAX && !stop.is_cancelled() {
                let (Some(at), Some(key)) = (waiting.pop_front(), keys.next()) else {
                    break;
                };
                let Some(info) = list.info(at) else { continue };
                let id = info.id();
                if info.length > 0 && !copied.contains(&id) && !busy.insert(id) {
                    deferred.entry(id).or_default().push_back(at);
                    continue;
                }
                let Some(download) = self.start(at) else {
                    continue;
                };
                board.add(key, download.clone());
                self.running.insert(key, (at, download.clone()));
                ends.spawn(async move { (key, download.finished().await) });
            }
            tokio::select! {
                ended = ends.join_next() => match ended {
                    None => break,
                    Some(Ok((key, outcome))) => {
                        let Some((at, _)) = self.running.remove(&key) else { continue };
                        board.remove(key, length(&at));
                        if let Some(info) = list.info(at) {
                            let content = info.id();
                            busy.remove(&content);
                            if let Some(mut others) = deferred.remove(&content) {
                                // Once one is there, the others are copied at the same time.
                                if outcome.is_err() {
                                    let first = others.pop_front();
                                    deferred.insert(content, others);
                                    others = first.into_iter().collect();
                                } else {
                                    copied.insert(content);
                                }
                                others.into_iter().for_each(|at| waiting.push_front(at));
                            }
                        }
                        self.take(at, outcome)?;
                    }
                    Some(Err(panicked)) => {
                        let failure = Failure::internal(panicked.to_string());
                        self.console.error(&failure.message);
                        self.worst = self.worst.max(Some(failure.exit));
                    }
                },
                _ = ticks.tick() => board.tick(),
                () = stop.cancelled(), if self.worst != Some(Exit::Interrupted) => {
                    self.worst = Some(Exit::Interrupted);
                    self.running.values().for_each(|(_, download)| download.stop());
                }
            }
        }
        drop(board);
        let untold = self.totals.failed.saturating_sub(FAILURES_TOLD);
        if untold > 0 && !stop.is_cancelled() {
            let files = output::count(untold, "more file");
            self.console
                .error(&format!("{files} could not be downloaded"));
        }
        match self.worst {
            None => Ok(()),
            Some(exit) => Err(Failure::printed(exit)),
        }
    }

    fn start(&self, at: u32) -> Option<Download> {
        let durability = match self.args.no_sync {
            true => Durability::Deferred,
            false => Durability::Immediate,
        };
        let request = self.receiver.request(at)?;
        let request = request.force(self.args.force).durability(durability);
        Some(self.node.download(request))
    }

    fn take(&mut self, at: u32, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Ok(report) => {
                self.totals.files += 1;
                self.totals.bytes += report.size_bytes;
                self.totals.received_bytes += report.received_bytes;
                self.totals.reused_bytes += report.reused_bytes;
                if report.already_there {
                    self.totals.already_there += 1;
                    self.keep_attributes(at);
                }
                if self.args.json.on {
                    self.console.json(&DownloadedJson::from(&*report))?;
                }
            }
            Err(error) => {
                let failure = Failure::from(&*error);
                self.worst = self.worst.max(Some(failure.exit));
                if !matches!(*error, DownloadError::Stopped) {
                    self.totals.failed += 1;
                    if self.totals.failed <= FAILURES_TOLD {
                        self.console.error(&failure.message);
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives an identical file that was there the folder's time and executable bit, and serves it.
    fn keep_attributes(&self, at: u32) {
        let folder = self.receiver.folder();
        let Some(file) = folder.list().file(at) else {
            return;
        };
        let kept = self
            .place
            .set_attributes(&file.name, &folder.kept_attributes(at));
        match kept {
            // The file has another change time now.
            Ok(true) => self.receiver.readopt(at),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "attributes were not set"),
        }
    }

    /// Prints the folder's path, or its totals.
    pub(super) fn summarise(&self, base: &Path) -> Result<(), Failure> {
        let Totals {
            files,
            already_there,
            failed,
            bytes,
            reused_bytes,
            received_bytes,
        } = self.totals;
        let folder = self.receiver.folder();
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
