//! Shares that were handed to a running node. The node remembers them between runs, until they are
//! unshared.

mod file;
mod row;
mod serve;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use qshare_node::content::{AssetName, Link};
use qshare_node::{DiskError, Node, new_share_key};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::link::link_to;
use super::path::{PathError, SharedPath};
use file::Record;
use row::Row;
pub(crate) use row::{Handed, HandedState, Happened, Happening, ShareId};

/// Shares that were handed over, at most. Each has a task and a code.
const HANDED_MAX: usize = 10_000;
/// Shares that are hashed at once. One uses all cores.
const HASHED_AT_ONCE: usize = 2;
/// Happenings that a slow listener may lag behind before it misses some.
const HAPPENINGS_KEPT: usize = 256;

/// What [`HandedShares`] works with.
pub(crate) struct HandedConfig {
    pub(crate) node: Node,
    /// The directory of the node's state.
    pub(crate) state_dir: PathBuf,
    /// Directories that are never shared, whatever folder they are in.
    pub(crate) exclude: Vec<PathBuf>,
    /// Cancelled when the node stops.
    pub(crate) quit: CancellationToken,
}

/// What to share.
pub(crate) struct NewHanded {
    /// An absolute path.
    pub(crate) path: PathBuf,
    /// The name for receivers; that of the path if absent.
    pub(crate) name: Option<AssetName>,
    pub(crate) is_public: bool,
    /// Whether there is a code.
    pub(crate) has_code: bool,
    /// Receivers by code after which the share ends.
    pub(crate) once: Option<NonZeroU32>,
}

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error(transparent)]
    Path(#[from] PathError),
    /// There are [`HANDED_MAX`] shares.
    #[error("the node has {HANDED_MAX} shares already")]
    TooMany,
    /// The list of shares cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The shares that were handed to a node. Clones are the same.
#[derive(Clone)]
pub(crate) struct HandedShares(Arc<Inner>);

struct Inner {
    node: Node,
    file: PathBuf,
    exclude: Vec<PathBuf>,
    quit: CancellationToken,
    table: Mutex<Table>,
    revision: watch::Sender<u64>,
    happenings: broadcast::Sender<Happening>,
    saving: tokio::sync::Mutex<()>,
    hashing: Semaphore,
}

/// The shares, oldest first.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    next_order: u64,
    revision: u64,
}

impl Table {
    fn find(&self, id: &ShareId) -> Option<&Row> {
        self.rows.iter().find(|row| row.record.id == *id)
    }

    fn add(&mut self, record: Record, stop: CancellationToken) {
        self.next_order += 1;
        self.revision += 1;
        let row = Row::new(record, self.next_order, self.revision, stop);
        self.rows.push(row);
    }
}

impl HandedShares {
    /// Begins to serve the shares of earlier runs.
    pub(crate) async fn open(config: HandedConfig) -> HandedShares {
        let file = config.state_dir.join(file::FILE_NAME);
        let path = file.clone();
        let read = spawn_blocking(move || file::read(&path)).await;
        let shares = HandedShares(Arc::new(Inner {
            node: config.node,
            file,
            exclude: config.exclude,
            quit: config.quit,
            table: Mutex::default(),
            revision: watch::Sender::new(0),
            happenings: broadcast::Sender::new(HAPPENINGS_KEPT),
            saving: tokio::sync::Mutex::new(()),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        }));
        for record in read.unwrap_or_default() {
            shares.begin(record);
        }
        tokio::spawn(serve::watch_all(Arc::downgrade(&shares.0)));
        shares
    }

    /// Begins to share a path. Returns the share, and whether it is new: the same path with the
    /// same name and options is one share.
    pub(crate) async fn add(&self, new: NewHanded) -> Result<(Handed, bool), AddError> {
        let NewHanded {
            path,
            name,
            is_public,
            has_code,
            once,
        } = new;
        // Without a slash at the end, so that a folder is one share however it is written.
        let path: PathBuf = path.components().collect();
        let looked_at = spawn_blocking(move || SharedPath::new(&path, name)).await;
        let looked_at = looked_at.unwrap_or_else(|lost| {
            let (path, cause) = (PathBuf::new(), std::io::Error::other(lost.to_string()));
            Err(PathError::Unreadable { path, cause })
        })?;
        let record = Record {
            id: ShareId::random(),
            name: looked_at.name,
            path: looked_at.path,
            is_folder: looked_at.is_folder,
            key: (!is_public).then(new_share_key),
            has_code,
            uses_left: once.map(NonZeroU32::get),
            added_at: SystemTime::now(),
        };
        {
            let table = self.0.table();
            let same = table.rows.iter().find(|row| row.record.is_same(&record));
            if let Some(known) = same {
                return Ok((known.view(), false));
            }
            if table.rows.len() >= HANDED_MAX {
                return Err(AddError::TooMany);
            }
        }
        let id = record.id;
        self.begin(record);
        if let Err(error) = self.0.save().await {
            self.0.take_out(&id);
            return Err(error.into());
        }
        let added = self.0.table().find(&id).map(Row::view);
        // Another client may have ended it at once.
        let gone = || PathError::Unreadable {
            path: PathBuf::new(),
            cause: std::io::Error::other("it was unshared meanwhile"),
        };
        Ok((added.ok_or_else(gone)?, true))
    }

    fn begin(&self, record: Record) {
        let stop = self.0.quit.child_token();
        self.0.table().add(record.clone(), stop.clone());
        self.0.tell();
        tokio::spawn(serve::run(self.0.clone(), record, stop));
    }

    /// Ends shares. Returns how many there were.
    pub(crate) async fn remove(&self, ids: &[ShareId]) -> Result<usize, DiskError> {
        let removed = ids.iter().filter(|id| self.0.take_out(id)).count();
        if removed > 0 {
            self.0.save().await?;
        }
        Ok(removed)
    }

    /// Returns a share.
    pub(crate) fn get(&self, id: &ShareId) -> Option<Handed> {
        self.0.table().find(id).map(Row::view)
    }

    /// Returns all shares that `wanted` accepts, oldest first, after one of them.
    pub(crate) fn list(
        &self,
        after: u64,
        limit: usize,
        wanted: impl Fn(&Handed) -> bool,
    ) -> Vec<Handed> {
        let table = self.0.table();
        let rows = table.rows.iter().filter(|row| row.order > after);
        rows.map(Row::view).filter(wanted).take(limit).collect()
    }

    /// Returns the link to the present version of a share, once it has been hashed.
    pub(crate) fn link(&self, id: &ShareId) -> Option<Link> {
        let shared = self.0.table().find(id)?.shared.clone()?;
        Some(link_to(&self.0.node, &shared))
    }

    /// Returns a number that grows with every change that a person would see.
    pub(crate) fn revision(&self) -> u64 {
        *self.0.revision.borrow()
    }

    /// Returns a watch of the revision.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// Subscribes to what happens with the shares.
    pub(crate) fn happenings(&self) -> broadcast::Receiver<Happening> {
        self.0.happenings.subscribe()
    }

    /// Returns what has changed since `known`, the revisions of the shares that a listener has
    /// seen: shares that are new or have changed, and those that are gone.
    pub(crate) fn changes(&self, known: &mut HashMap<ShareId, u64>) -> (Vec<Handed>, Vec<ShareId>) {
        let table = self.0.table();
        let mut changed = Vec::new();
        for row in &table.rows {
            if known.insert(row.record.id, row.revision) != Some(row.revision) {
                changed.push(row.view());
            }
        }
        let mut removed = Vec::new();
        if known.len() > table.rows.len() {
            known.retain(|id, _| {
                let is_there = table.find(id).is_some();
                if !is_there {
                    removed.push(*id);
                }
                is_there
            });
        }
        (changed, removed)
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a share, and tells listeners if it is still there.
    fn edit(&self, id: &ShareId, edit: impl FnOnce(&mut Row)) {
        {
            let mut table = self.table();
            table.revision += 1;
            let revision = table.revision;
            let Some(row) = table.rows.iter_mut().find(|row| row.record.id == *id) else {
                return;
            };
            edit(row);
            row.revision = revision;
        }
        self.tell();
    }

    /// Ends a share; returns false if there is none.
    fn take_out(&self, id: &ShareId) -> bool {
        let mut table = self.table();
        let Some(at) = table.rows.iter().position(|row| row.record.id == *id) else {
            return false;
        };
        table.revision += 1;
        let row = table.rows.remove(at);
        drop(table);
        row.stop.cancel();
        self.tell();
        true
    }

    fn tell(&self) {
        let revision = self.table().revision;
        self.revision.send_if_modified(|known| {
            let is_new = *known < revision;
            *known = revision.max(*known);
            is_new
        });
    }

    fn happened(&self, id: &ShareId, what: Happened) {
        let name = self.table().find(id).map(|row| row.record.name.clone());
        if let Some(name) = name {
            let at = SystemTime::now();
            let id = *id;
            // Nobody may listen.
            let _ = self.happenings.send(Happening { at, id, name, what });
        }
    }

    /// Writes the list. Afterwards it is durable.
    async fn save(&self) -> Result<(), DiskError> {
        // The newest list is written last.
        let _turn = self.saving.lock().await;
        let records: Vec<Record> = {
            let table = self.table();
            table.rows.iter().map(|row| row.record.clone()).collect()
        };
        let file = self.file.clone();
        let written = spawn_blocking(move || file::write(&file, &records)).await;
        written.unwrap_or_else(|lost| {
            let cause = std::io::Error::other(lost.to_string());
            Err(DiskError::new("write", &self.file, cause))
        })
    }

    /// Writes a change that nobody waits for.
    async fn save_or_warn(&self) {
        if let Err(error) = self.save().await {
            warn!(%error, "cannot save the list of shares");
        }
    }
}
