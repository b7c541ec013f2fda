//! The roster: all downloads of a node that runs for long, as its user sees them. Unlike
//! [`Downloads`], which runs them, it also lists those that are paused, have failed or are
//! complete, and remembers them between runs.

mod file;
mod row;
mod table;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use qshare_content::{AssetName, Bitmap, Chunks, ContentInfo};
use qshare_net::RateLimit;
use qshare_storage::{DiskError, Target, durable_chunks, unfinished};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::download::Download;
use super::folder::Folders;
use super::newer::Newer;
use super::rates::Priority;
use super::request::{DownloadRequest, discard_unfinished};
use super::service::Downloads;
use crate::error::DownloadError;
use crate::runtime::{Tasks, blocking};
use crate::shares::ShareStore;
use crate::vocabulary::{Report, Stage};
use file::{Record, RecordState};
pub(crate) use row::Lost;
pub use row::{
    DownloadId, NoSuchDownload, RemoveError, RosterChanges, RosterCounts, RosterPage, RosterRow,
    RosterState,
};
use table::{Row, Table};

/// Delay in which changes that nobody waits for are collected before the file is written.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// Saving takes at most this part of the time.
const SAVE_REST: u32 = 20;
/// Deadline for a download to stop before its data is deleted.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What a [`Roster`] works with.
pub(crate) struct RosterConfig {
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) folders: Arc<dyn Folders>,
    pub(crate) shares: Arc<ShareStore>,
    /// The directory of downloads.
    pub(crate) dir: PathBuf,
    /// The directory of the node's state.
    pub(crate) state_dir: PathBuf,
    pub(crate) tasks: Tasks,
}

/// All downloads as the user sees them.
pub(crate) struct Roster {
    downloads: Arc<Downloads>,
    folders: Arc<dyn Folders>,
    shares: Arc<ShareStore>,
    dir: PathBuf,
    file: PathBuf,
    tasks: Tasks,
    table: Mutex<Table>,
    /// Removed downloads whose data was kept.
    kept: Mutex<HashMap<DownloadId, Record>>,
    /// The revision of the table.
    revision: watch::Sender<u64>,
    /// Number of changes that the file should hold, and of those that it holds.
    unsaved: watch::Sender<u64>,
    saved: tokio::sync::Mutex<u64>,
    save: Notify,
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

impl Roster {
    pub(crate) fn new(config: RosterConfig) -> Arc<Roster> {
        Arc::new(Roster {
            downloads: config.downloads,
            folders: config.folders,
            shares: config.shares,
            dir: config.dir,
            file: config.state_dir.join("downloads"),
            tasks: config.tasks,
            table: Mutex::default(),
            kept: Mutex::default(),
            revision: watch::Sender::new(0),
            unsaved: watch::Sender::new(0),
            saved: tokio::sync::Mutex::new(0),
            save: Notify::new(),
        })
    }

    /// Lists the downloads of earlier runs, and begins those that were not paused.
    pub(crate) async fn restore(self: &Arc<Self>) {
        let (file, dir) = (self.file.clone(), self.dir.clone());
        let (records, found) = blocking(move || (file::read(&file), unfinished(&dir))).await;
        let mut found: HashMap<DownloadId, _> = found
            .into_iter()
            .map(|left| (DownloadId::new(&left.info, &left.target), left))
            .collect();
        let mut folders = Vec::new();
        for record in records {
            let (Some(name), Some(info)) = (record.name(), record.info()) else {
                continue;
            };
            let target = Target::beneath(&self.dir, name.clone());
            let id = DownloadId::new(&info, &target);
            let mut left = found.remove(&id);
            if let Some(former) = record.supersedes() {
                // This download goes on from its data.
                left = left.or(found.remove(&DownloadId::new(&former, &target)));
            }
            if record.folder.is_some() {
                folders.push(id.to_string());
                // The folder's download fetches the rest of its files.
                let files = found.extract_if(|_, left| is_beneath(&left.name, &name));
                left = files.map(|(_, left)| left).last();
            }
            let left_key = left.as_ref().and_then(|left| left.share_key.clone());
            let left_key = left_key.filter(|_| record.folder.is_none());
            let key = record.key.clone().or(left_key);
            if record.is_private && key.is_none() {
                // Without its key it would be asked for, and announced, publicly.
                continue;
            }
            let request = DownloadRequest::new(name, info, target)
                .nodes(record.nodes())
                .share_key(key)
                .attributes(record.attributes())
                .sha256(record.sha256())
                .folder(record.folder_terms())
                .follow(record.follow())
                .supersedes(record.supersedes())
                .force(record.force);
            let (priority, limit) = (record.priority, record.limit());
            match record.state {
                RecordState::Removed if left.is_some() => {
                    self.kept().insert(id, record);
                }
                // Its data is gone, too.
                RecordState::Removed => {}
                RecordState::Paused => self.restore_paused(id, request, record.added_at()).await,
                RecordState::Running => self.begin_at(request, record.added_at()),
            }
            self.set_rates(&id, Some(priority), Some(limit));
        }
        let mut rest: Vec<_> = found.into_values().collect();
        // A file of a private folder is asked for through its folder only.
        rest.retain(|left| !self.shares.is_in_private_folder(&left.name));
        rest.sort_by(|one, other| one.name.cmp(&other.name));
        for left in rest {
            let request = DownloadRequest::new(left.name, left.info, left.target);
            self.begin_at(request.share_key(left.share_key), SystemTime::now());
        }
        self.tasks.spawn(self.folders.restore(folders));
        let roster = self.clone();
        self.tasks.supervise(
            "list of downloads",
            async move { roster.save_changes().await },
        );
    }

    async fn restore_paused(&self, id: DownloadId, request: DownloadRequest, at: SystemTime) {
        let (target, info) = (request.target.clone(), request.info);
        let verified_bytes = match request.folder {
            Some(_) => request.first_progress().verified_bytes,
            None => {
                let chunks = blocking(move || durable_chunks(&target, info)).await;
                chunks.map_or(0, |chunks| size_of(&info, &chunks))
            }
        };
        let new = || Row::new(request, RosterState::Paused, at);
        self.table().change(id, new, |row| {
            row.last.verified_bytes = verified_bytes;
            row.last.stage = Stage::Stopped;
        });
        self.tell();
    }

    /// Begins a download, or resumes it, or returns the running one of the same content to the same
    /// target.
    ///
    /// An unfinished download of an earlier version of the same name ends; this one goes on from
    /// it.
    pub(crate) fn begin(self: &Arc<Self>, request: DownloadRequest) -> Download {
        let id = DownloadId::new(&request.info, &request.target);
        let (request, former) = self.replace_former(request);
        let added_at = former.as_ref().map(|former| former.added_at);
        let begun = self.start(id, request, added_at.unwrap_or_else(SystemTime::now));
        if let Some(former) = former {
            self.set_rates(&id, Some(former.priority), Some(former.limit));
        }
        self.changed();
        begun
    }

    /// Removes the unfinished downloads that a request goes on from. Returns the last of them.
    fn replace_former(&self, mut request: DownloadRequest) -> (DownloadRequest, Option<Row>) {
        let mut table = self.table();
        let mut former = None;
        for id in table.earlier_versions(&request) {
            let Some(row) = table.remove(&id) else {
                continue;
            };
            request.supersedes = Some(row.request.info);
            if let Some(download) = &row.download {
                download.stop();
                request.after = Some(download.clone());
            }
            former = Some(row);
        }
        (request, former)
    }

    /// Returns the running downloads by name that have no source.
    pub(crate) fn lost(&self) -> Vec<Lost> {
        let table = self.table();
        let running = table
            .rows()
            .filter(|(_, row)| row.state == RosterState::Running);
        let lost = running.filter_map(|(id, row)| {
            let follow = row.request.follow.clone()?;
            row.download.as_ref()?.progress().trouble?;
            Some(Lost {
                id,
                follow,
                info: row.request.info,
                is_folder: row.request.folder.is_some(),
                holders: row.request.holders.clone(),
            })
        });
        lost.collect()
    }

    /// Goes on with a newer version of a download by name.
    pub(crate) fn renew(self: &Arc<Self>, id: &DownloadId, newer: Newer) {
        let request = {
            let table = self.table();
            let row = table
                .get(id)
                .filter(|row| row.state == RosterState::Running);
            row.map(|row| row.request.clone())
        };
        if let Some(request) = request {
            info!(name = %request.name, "has changed at its source; the new version is fetched");
            self.begin(request.renewed(newer));
        }
    }

    fn begin_at(self: &Arc<Self>, request: DownloadRequest, added_at: SystemTime) {
        let id = DownloadId::new(&request.info, &request.target);
        self.start(id, request, added_at);
        self.tell();
    }

    /// Lists a download without beginning it. Returns false if it is listed already.
    pub(crate) fn add_paused(&self, request: DownloadRequest) -> bool {
        let id = DownloadId::new(&request.info, &request.target);
        if self.table().get(&id).is_some() {
            return false;
        }
        self.kept().remove(&id);
        let new = || Row::new(request, RosterState::Paused, SystemTime::now());
        self.table().change(id, new, |_| ());
        self.changed();
        true
    }

    fn start(
        self: &Arc<Self>,
        id: DownloadId,
        mut request: DownloadRequest,
        added_at: SystemTime,
    ) -> Download {
        self.kept().remove(&id);
        let mut table = self.table();
        // By a content ID or a link, no other version is wanted.
        request.ends_when_changed = request.follow.is_none();
        let ending = table.get(&id).and_then(|row| row.download.clone());
        if let Some(download) = ending {
            // It runs, or it was paused a moment ago and is about to stop.
            table.edit(&id, |row| {
                row.restart = row.state != RosterState::Running;
                row.state = RosterState::Running;
            });
            return download;
        }
        let download = match request.folder {
            Some(_) => self.folders.begin(request.clone()),
            None => self.downloads.begin(request.clone()),
        };
        let new = || Row::new(request.clone(), RosterState::Running, added_at);
        table.change(id, new, |row| {
            row.request = request.clone();
            row.state = RosterState::Running;
            (row.error, row.ended_at, row.restart) = (None, None, false);
            row.download = Some(download.clone());
            row.apply_rates();
        });
        drop(table);
        let roster = self.clone();
        self.tasks.spawn(follow(roster, id, download.clone()));
        download
    }

    /// Pauses a download. Returns whether it ran.
    pub(crate) fn pause(&self, id: &DownloadId) -> Result<bool, NoSuchDownload> {
        let mut table = self.table();
        let row = table.get(id).ok_or(NoSuchDownload)?;
        if row.state != RosterState::Running {
            return Ok(false);
        }
        let download = row.download.clone();
        table.edit(id, |row| {
            row.last = row.progress();
            row.last.stage = Stage::Stopped;
            (row.last.bytes_per_second, row.last.sources) = (0, 0);
            (row.last.time_left, row.last.trouble) = (None, None);
            (row.state, row.restart) = (RosterState::Paused, false);
        });
        drop(table);
        if let Some(download) = download {
            download.stop();
        }
        self.changed();
        Ok(true)
    }

    /// Resumes a download that is paused, has failed or was deleted after its end. Returns whether
    /// it did not run.
    pub(crate) fn resume(self: &Arc<Self>, id: &DownloadId) -> Result<bool, NoSuchDownload> {
        let (request, added_at) = {
            let table = self.table();
            let row = table.get(id).ok_or(NoSuchDownload)?;
            match row.state {
                RosterState::Running | RosterState::Complete => return Ok(false),
                RosterState::Paused | RosterState::Failed => (row.request.clone(), row.added_at),
            }
        };
        self.start(*id, request, added_at);
        self.changed();
        Ok(true)
    }

    /// Changes the priority and the rate limit of a download, where they are given. Returns whether
    /// there is such a download.
    pub(crate) fn set_rates(
        &self,
        id: &DownloadId,
        priority: Option<Priority>,
        limit: Option<RateLimit>,
    ) -> bool {
        let changed = self.table().edit(id, |row| {
            row.priority = priority.unwrap_or(row.priority);
            row.limit = limit.unwrap_or(row.limit);
            row.apply_rates();
        });
        self.changed();
        changed.is_some()
    }

    /// Removes downloads, and deletes what was fetched if `files` is set. Returns how many were
    /// removed.
    pub(crate) async fn remove(
        &self,
        ids: &[DownloadId],
        files: bool,
    ) -> Result<usize, RemoveError> {
        let mut removed = Vec::new();
        {
            let mut table = self.table();
            if ids.iter().any(|id| table.get(id).is_none()) {
                return Err(NoSuchDownload.into());
            }
            for id in ids {
                removed.extend(table.remove(id).map(|row| (*id, row)));
            }
        }
        for (_, row) in &removed {
            if let Some(download) = &row.download {
                download.stop();
            }
        }
        let count = removed.len();
        let mut failed = None;
        for (id, row) in removed {
            if let Some(download) = &row.download {
                let _ = timeout(STOP_MAX, download.finished()).await;
            }
            if files {
                if let Err(error) = self.delete(row).await {
                    failed.get_or_insert(error);
                }
            } else if row.state != RosterState::Complete
                && let Some(record) = self.record(&row, RecordState::Removed)
            {
                self.kept().insert(id, record);
            }
        }
        self.changed();
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(count),
        }
    }

    /// Deletes what was fetched of a removed download, and forgets its key.
    async fn delete(&self, row: Row) -> Result<(), DiskError> {
        let private = row.request.private_file();
        match row.request.folder {
            Some(_) => self.folders.delete(row.request).await?,
            None => self.delete_file(row).await?,
        }
        match private {
            Some(file) => self.shares.forget_private(file).await,
            None => Ok(()),
        }
    }

    async fn delete_file(&self, row: Row) -> Result<(), DiskError> {
        let (target, info) = (row.request.target, row.request.info);
        if row.state != RosterState::Complete {
            let discard = move || match target.part_path().exists() {
                true => discard_unfinished(&target, info).map(drop),
                false => Ok(()),
            };
            return blocking(discard).await;
        }
        let path = target.path();
        // A file that was changed since is not the one that was fetched.
        if self
            .shares
            .path(&info.id())
            .is_none_or(|shared| !is_same_path(&shared, &path))
        {
            return Ok(());
        }
        blocking(move || {
            fs::remove_file(&path).map_err(|error| DiskError::new("delete", &path, error))
        })
        .await
    }

    /// Returns one download.
    pub(crate) fn get(&self, id: &DownloadId) -> Option<RosterRow> {
        self.table().view(id)
    }

    /// Returns the running download, if it runs.
    pub(crate) fn running(&self, id: &DownloadId) -> Option<Download> {
        let table = self.table();
        let row = table.get(id)?;
        row.download
            .clone()
            .filter(|_| row.state == RosterState::Running)
    }

    /// Returns the verified chunks of a download; None if they are not known. Of a download that
    /// does not run, those that are durable.
    pub(crate) async fn chunks(&self, id: &DownloadId) -> Option<Bitmap> {
        let (download, target, info, state) = {
            let table = self.table();
            let row = table.get(id)?;
            let request = &row.request;
            if request.folder.is_some() {
                let files = row.last.files.map_or(0, |files| files.total);
                return match row.state {
                    RosterState::Complete => Some(Bitmap::full(u32::try_from(files).ok()?)),
                    _ => row.download.as_ref().and_then(Download::verified_chunks),
                };
            }
            (
                row.download.clone(),
                request.target.clone(),
                request.info,
                row.state,
            )
        };
        let count = Chunks::of_length(info.length).count();
        if state == RosterState::Complete {
            return Some(Bitmap::full(count));
        }
        match download.and_then(|download| download.verified_chunks()) {
            Some(chunks) => Some(chunks),
            None => blocking(move || durable_chunks(&target, info)).await,
        }
    }

    /// Returns a page of the downloads that `wanted` accepts.
    pub(crate) fn page(
        &self,
        after: u64,
        limit: usize,
        wanted: impl Fn(&RosterRow) -> bool,
    ) -> RosterPage {
        self.table().page(after, limit, wanted)
    }

    /// Returns the IDs of all downloads in some state, oldest first.
    pub(crate) fn ids(&self, wanted: impl Fn(RosterState) -> bool) -> Vec<DownloadId> {
        let table = self.table();
        let rows = table.rows().filter(|(_, row)| wanted(row.state));
        rows.map(|(id, _)| id).collect()
    }

    /// Returns what changed since a revision; 0 stands for everything.
    pub(crate) fn changes(&self, since: u64, max: usize) -> RosterChanges {
        self.table().changes(since, max)
    }

    /// Returns a watch of the revision.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Returns the number of downloads by state.
    pub(crate) fn counts(&self) -> RosterCounts {
        self.table().counts()
    }

    /// Waits until every change so far would survive a crash.
    pub(crate) async fn saved(&self) -> Result<(), DiskError> {
        let wanted = *self.unsaved.borrow();
        let mut saved = self.saved.lock().await;
        // Others may have waited together with this call, and saved its change, too.
        if *saved >= wanted {
            return Ok(());
        }
        let now = *self.unsaved.borrow();
        let (records, file) = (self.records(), self.file.clone());
        blocking(move || file::write(&file, &records)).await?;
        *saved = now;
        Ok(())
    }

    /// Saves changes that nobody waits for.
    async fn save_changes(&self) {
        loop {
            self.save.notified().await;
            sleep(SAVE_AFTER).await;
            let start = Instant::now();
            if let Err(error) = self.saved().await {
                warn!(%error, "cannot save the list of downloads");
            }
            sleep(start.elapsed() * SAVE_REST).await;
        }
    }

    fn records(&self) -> Vec<Record> {
        let kept: Vec<Record> = self.kept().values().cloned().collect();
        let table = self.table();
        let listed = table.rows().filter_map(|(_, row)| match row.state {
            RosterState::Complete => None,
            RosterState::Paused => self.record(row, RecordState::Paused),
            RosterState::Running | RosterState::Failed => self.record(row, RecordState::Running),
        });
        listed.chain(kept).collect()
    }

    /// Returns the record of a download that a later run may resume: one in the directory of
    /// downloads that was not asked for by a script which waits for it.
    fn record(&self, row: &Row, state: RecordState) -> Option<Record> {
        let request = &row.request;
        let Target::Beneath { base, name } = &request.target else {
            return None;
        };
        let is_ours = *base == self.dir && request.give_up_after.is_none();
        is_ours.then(|| Record::new(name, row, state))
    }

    fn end(self: &Arc<Self>, id: &DownloadId, download: &Download, outcome: Outcome) {
        let mut again = None;
        let mut table = self.table();
        let is_stopping = self.downloads.is_stopping();
        table.edit(id, |row| {
            let is_current = |current: &Download| current.is_same(download);
            if !row.download.as_ref().is_some_and(is_current) {
                // Removed and added again.
                return;
            }
            if row.state == RosterState::Running {
                row.last = download.progress();
            }
            row.download = None;
            match outcome {
                Ok(_) => {
                    row.last = download.progress();
                    row.state = RosterState::Complete;
                    row.ended_at = Some(SystemTime::now());
                }
                Err(error) if matches!(*error, DownloadError::Stopped) => {
                    if std::mem::take(&mut row.restart) {
                        again = Some((row.request.clone(), row.added_at));
                    } else if !is_stopping {
                        row.state = RosterState::Paused;
                    }
                }
                Err(_) if row.state == RosterState::Paused => {}
                Err(error) => {
                    row.state = RosterState::Failed;
                    row.ended_at = Some(SystemTime::now());
                    row.error = Some(error);
                }
            }
        });
        drop(table);
        if let Some((request, added_at)) = again {
            self.start(*id, request, added_at);
        }
        if !is_stopping {
            self.changed();
        }
    }

    /// Reports a change, which is to be saved.
    fn changed(&self) {
        self.unsaved.send_modify(|count| *count += 1);
        self.save.notify_one();
        self.tell();
    }

    fn tell(&self) {
        let revision = self.table().revision();
        self.revision.send_if_modified(|known| {
            let is_new = *known < revision;
            *known = revision.max(*known);
            is_new
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<DownloadId, Record>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a running download until it ends.
async fn follow(roster: Arc<Roster>, id: DownloadId, mut download: Download) {
    let ended = download.clone();
    let mut ended = std::pin::pin!(ended.finished());
    let outcome = loop {
        tokio::select! {
            outcome = &mut ended => break outcome,
            () = download.changed() => {
                let seen = roster.table().touch(&id);
                if seen {
                    roster.tell();
                }
            }
        }
    };
    roster.end(&id, &download, outcome);
}

/// Returns whether two paths lead to one file, however they are written.
fn is_same_path(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Returns whether a name lies beneath that of a folder.
fn is_beneath(name: &AssetName, folder: &AssetName) -> bool {
    let rest = name.as_str().strip_prefix(folder.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn size_of(info: &ContentInfo, verified: &Bitmap) -> u64 {
    let chunks = Chunks::of_length(info.length);
    verified.iter().map(|chunk| chunks.size(chunk)).sum()
}
