//! The downloads of folders in a running node.

mod tally;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::manifest::FolderList;
use qshare_storage::{DiskError, FolderPlace, PlaceError, SharedFolder};
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use self::tally::Tally;
use super::fetch::{FetchTerms, FolderEvent, FolderFetch, FormerFolder};
use super::receive::{Folder, FolderFetchError, FolderRequest, open_list, times_path};
use super::restore;
use super::selection::Selection;
use crate::access::Access;
use crate::downloads::{
    Boxed, Download, DownloadId, DownloadRequest, Downloads, Folders, RunningFolder,
};
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::shares::ShareStore;
use crate::vocabulary::{Report, Stage};

/// Interval of progress reports.
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// A list that has no source for this long reports why.
const TROUBLE_AFTER: Duration = Duration::from_secs(2);
/// Files of several chunks that one folder fetches at once, so that it leaves turns to others.
const CHUNKED_MAX: usize = 8;

/// Runs the downloads of folders in a running node.
#[derive(Clone)]
pub(crate) struct FolderDownloads {
    downloads: Arc<Downloads>,
    shares: Arc<ShareStore>,
    /// The directory of the lists of files.
    lists: PathBuf,
}

impl FolderDownloads {
    /// `state_dir` is the directory of the node's state.
    pub(crate) fn new(
        downloads: Arc<Downloads>,
        shares: Arc<ShareStore>,
        state_dir: &Path,
    ) -> FolderDownloads {
        FolderDownloads {
            downloads,
            shares,
            lists: state_dir.join("folders"),
        }
    }

    /// Returns where the list of a folder is kept.
    fn list_path(&self, request: &DownloadRequest) -> PathBuf {
        let id = DownloadId::new(&request.info(), request.target());
        self.lists.join(format!("{id}.list"))
    }

    async fn run(
        self,
        request: DownloadRequest,
        running: RunningFolder,
    ) -> Result<Report, DownloadError> {
        request.end_former().await;
        let base = request.target().path();
        let selection = selection_of(&request)?;
        running.set_stage(Stage::Searching);
        if let Some(file) = request.private_file() {
            self.shares.mark_private(file).await?;
        }
        let (place, lists) = (base.clone(), self.lists.clone());
        blocking(move || prepare(&place, &lists)).await?;
        let Some(folder) = self.open(&request, &running).await? else {
            return Err(DownloadError::Stopped);
        };
        let terms = FetchTerms {
            selection,
            force: request.is_forced(),
            chunked_max: CHUNKED_MAX,
            index: self.shares.hash_index(),
            former: self.former(&request).await,
            ..FetchTerms::default()
        };
        let fetch = FolderFetch::begin(folder.receive(&base), &base, terms).await;
        let mut fetch = fetch.map_err(of_place)?;
        let fetched = fetch_all(&request, &running, &mut fetch).await;
        if fetched.is_err() {
            fetch.receiver().withdraw();
        }
        fetched
    }

    /// Returns what was downloaded of the version that a request replaces.
    async fn former(&self, request: &DownloadRequest) -> Option<FormerFolder> {
        let info = request.former()?;
        let id = DownloadId::new(&info, request.target());
        let path = self.lists.join(format!("{id}.list"));
        let (base, index) = (request.target().path(), self.shares.hash_index()?);
        let open = move || {
            let file = open_list(&path, info).ok()?;
            let list = FolderList::read(file.reader(), info).ok()?;
            let folder = SharedFolder::empty(&base, Arc::new(list));
            for at in 0..folder.list().file_count() {
                folder.adopt_known(at, &index);
            }
            Some(FormerFolder::listed(folder))
        };
        blocking(open).await
    }

    /// Downloads and reads the list. Returns None if the download was stopped meanwhile.
    async fn open(
        &self,
        request: &DownloadRequest,
        running: &RunningFolder,
    ) -> Result<Option<Folder>, DownloadError> {
        let list_path = self.list_path(request);
        let wanted = FolderRequest::of_download(request, list_path.clone()).within(running);
        let content = request.info().id();
        let mut opened = std::pin::pin!(Folder::open(&self.downloads, &self.shares, wanted));
        let (mut ticks, begun) = (ticks(), Instant::now());
        let opened = loop {
            tokio::select! {
                opened = &mut opened => break opened,
                () = running.stopped() => return Ok(None),
                _ = ticks.tick() => {
                    let list = self.downloads.running(content, list_path.clone());
                    if let Some(list) = list {
                        let mut progress = running.progress();
                        let list = list.progress();
                        progress.trouble = list.trouble.filter(|_| begun.elapsed() > TROUBLE_AFTER);
                        progress.sources = list.sources;
                        running.report(progress, Default::default(), None);
                    }
                }
            }
        };
        match opened {
            Ok(folder) => Ok(Some(folder)),
            Err(FolderFetchError::Download(error)) => Err(of_list(error)),
            Err(FolderFetchError::Invalid(cause)) => Err(DownloadError::InvalidFolder {
                name: request.name().clone(),
                cause,
            }),
            Err(FolderFetchError::Disk(error)) => Err(error.into()),
        }
    }
}

impl Folders for FolderDownloads {
    fn begin(&self, request: DownloadRequest) -> Download {
        let folders = self.clone();
        let downloads = self.downloads.clone();
        downloads.begin_folder(request, |request, running| folders.run(request, running))
    }

    fn delete(&self, request: DownloadRequest) -> Boxed<Result<(), DiskError>> {
        let list_path = self.list_path(&request);
        let shares = self.shares.clone();
        Box::pin(async move {
            let access = Access::new(&request.info(), request.key());
            if let Some(served) = shares.collections().named(&access.wire_id()) {
                shares.remove_collection(&served, false);
            }
            let index = shares.hash_index();
            let delete = move || {
                let Ok(file) = open_list(&list_path, request.info()) else {
                    // Without its list nothing of it was fetched.
                    return Ok(());
                };
                if let Ok(list) = FolderList::read(file.reader(), request.info()) {
                    let base = request.target().path();
                    let folder = SharedFolder::empty(&base, Arc::new(list));
                    // A file that was changed since is not the one that was fetched.
                    if let Some(index) = index {
                        for at in 0..folder.list().file_count() {
                            folder.adopt_known(at, &index);
                        }
                    }
                    FolderPlace::new(&base).discard(&folder)?;
                }
                for path in [&times_path(&list_path), &list_path] {
                    let _ = std::fs::remove_file(path);
                }
                Ok(())
            };
            blocking(delete).await
        })
    }

    fn restore(&self, unfinished: Vec<String>) -> Boxed<()> {
        let (shares, lists) = (self.shares.clone(), self.lists.clone());
        Box::pin(async move {
            restore::restore(shares, lists, unfinished).await;
        })
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

fn selection_of(request: &DownloadRequest) -> Result<Selection, DownloadError> {
    let Some(terms) = request.folder_terms() else {
        return Ok(Selection::default());
    };
    let selection = Selection::new(&terms.include, &terms.exclude);
    selection.map_err(|error| DownloadError::InvalidGlob { glob: error.glob })
}

/// Checks the folder's place before anything is fetched, and makes the directory of lists.
fn prepare(base: &Path, lists: &Path) -> Result<(), DownloadError> {
    let is_other = base.symlink_metadata().is_ok_and(|found| !found.is_dir());
    if is_other {
        let path = base.to_path_buf();
        return Err(DownloadError::NotADirectory { path });
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let made = builder.create(lists);
    Ok(made.map_err(|error| DiskError::new("make directory", lists, error))?)
}

async fn fetch_all(
    request: &DownloadRequest,
    running: &RunningFolder,
    fetch: &mut FolderFetch,
) -> Result<Report, DownloadError> {
    let mut tally = Tally::default();
    let mut ticks = ticks();
    let (mut first, mut failed, mut is_stopped) = (None, 0, false);
    loop {
        tokio::select! {
            event = fetch.next() => match event {
                None => break,
                Some(FolderEvent::Begun { .. }) => {}
                Some(FolderEvent::Ended { outcome: Ok(report), .. }) => tally.add(&report),
                Some(FolderEvent::Ended { outcome: Err(error), .. }) => {
                    if !matches!(*error, DownloadError::Stopped) {
                        debug!(%error, "a file of a folder was not downloaded");
                        failed += 1;
                        first.get_or_insert(error);
                    }
                }
                Some(FolderEvent::Lost(cause)) => {
                    failed += 1;
                    first.get_or_insert_with(|| Arc::new(DownloadError::Internal(cause)));
                }
            },
            _ = ticks.tick() => tally.report(running, fetch),
            () = running.stopped(), if !is_stopped => {
                is_stopped = true;
                fetch.stop();
            }
        }
    }
    tally.report(running, fetch);
    if is_stopped {
        return Err(DownloadError::Stopped);
    }
    if let Some(first) = first {
        let name = request.name().clone();
        return Err(match &*first {
            DownloadError::Changed { .. } => DownloadError::Changed { name },
            _ => DownloadError::Files {
                name,
                failed,
                first,
            },
        });
    }
    running.set_stage(Stage::Finishing);
    if let Some(error) = fetch.finish().await.into_iter().next() {
        return Err(of_place(error));
    }
    let totals = fetch.totals();
    let report = running.complete(request.target().path(), totals.files, totals.bytes);
    Ok(Report {
        reused_bytes: totals.reused_bytes,
        received_bytes: totals.received_bytes,
        wasted_bytes: totals.wasted_bytes,
        sources: tally.sources(),
        already_there: totals.already_there == totals.files,
        ..report
    })
}

fn of_list(error: Arc<DownloadError>) -> DownloadError {
    match &*error {
        DownloadError::Stopped => DownloadError::Stopped,
        DownloadError::Changed { name } => DownloadError::Changed { name: name.clone() },
        _ => DownloadError::List(error),
    }
}

fn of_place(error: PlaceError) -> DownloadError {
    match error {
        PlaceError::Different(path) => DownloadError::Different { path },
        PlaceError::Disk(error) => error.into(),
        PlaceError::NoLinks(_) => DownloadError::Internal(error.to_string()),
    }
}
