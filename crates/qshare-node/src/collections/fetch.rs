//! Downloads the files of a folder: a bounded number at once, each from any holder of the folder.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use qshare_content::manifest::FolderList;
use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId};
use qshare_storage::{Durability, FolderPlace, HashIndex, PlaceError, SharedFolder};
use tokio::task::JoinSet;
use tracing::debug;

use super::receive::FolderReceiver;
use super::selection::Selection;
use crate::downloads::{Download, DownloadRequest};
use crate::error::DownloadError;
use crate::runtime::blocking;
use crate::shares::SharedCollection;
use crate::vocabulary::Report;

/// Downloads handed to the node at once; each takes some kilobytes. The more wait to become
/// durable, the fewer syncs are needed.
const HANDED_OVER_MAX: usize = 8 * 1024;

/// How the files of a folder are downloaded.
#[derive(Clone)]
pub struct FetchTerms {
    /// The wanted entries.
    pub selection: Selection,
    /// Whether different files are replaced.
    pub force: bool,
    /// Whether a file must be durable before it counts as downloaded.
    pub durability: Durability,
    /// Files of several chunks that are fetched at once.
    pub chunked_max: usize,
    /// An earlier version of the folder at the same place. Its files are replaced where they have
    /// not changed since they were downloaded, and its unfinished files are taken over.
    pub former: Option<FormerFolder>,
    /// Remembered hashes of local files, so that unchanged files are not read again.
    pub index: Option<HashIndex>,
}

impl Default for FetchTerms {
    fn default() -> FetchTerms {
        FetchTerms {
            selection: Selection::default(),
            force: false,
            durability: Durability::Immediate,
            chunked_max: 64,
            former: None,
            index: None,
        }
    }
}

/// What was downloaded of an earlier version of a folder.
#[derive(Clone, Debug)]
pub struct FormerFolder(Former);

#[derive(Clone, Debug)]
enum Former {
    Received(Arc<SharedCollection>),
    Listed(Arc<SharedFolder>),
}

/// What happened to the files of a folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct FolderTotals {
    /// Files that are there.
    pub files: u64,
    /// Of those, files that were there before.
    pub already_there: u64,
    /// Files that could not be downloaded.
    pub failed: u64,
    /// The sum of the lengths of the files that are there.
    pub bytes: u64,
    /// Bytes that were taken from local files.
    pub reused_bytes: u64,
    /// Payload bytes received over the network.
    pub received_bytes: u64,
    /// Of those, bytes that were received twice or failed verification.
    pub wasted_bytes: u64,
}

/// A step of the download of a folder.
pub enum FolderEvent {
    /// The download of a file began.
    Begun {
        /// Identifies it among the folder's downloads.
        key: usize,
        /// The download.
        download: Download,
    },
    /// The download of a file ended.
    Ended {
        /// Identifies it among the folder's downloads.
        key: usize,
        /// The file's length.
        size_bytes: u64,
        /// Its result.
        outcome: Outcome,
    },
    /// A download's task was lost.
    Lost(String),
}

type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

/// The download of a folder's files. The caller repeats [`next`](Self::next) until it returns None,
/// and then calls [`finish`](Self::finish).
pub struct FolderFetch {
    receiver: FolderReceiver,
    place: FolderPlace,
    terms: FetchTerms,
    /// Files of one chunk, and files of several.
    small: VecDeque<u32>,
    chunked: VecDeque<u32>,
    /// Of the names of one content the first is fetched, and the others are copied from it.
    busy: HashSet<ContentId>,
    deferred: HashMap<ContentId, VecDeque<u32>>,
    /// Contents of which one file is there.
    copied: HashSet<ContentId>,
    running: HashMap<usize, Running>,
    running_chunked: usize,
    ends: JoinSet<(usize, Outcome)>,
    next_key: usize,
    is_stopped: bool,
    present: Bitmap,
    expected: (u64, u64),
    totals: FolderTotals,
    /// The files of the former version, by name.
    former: HashMap<String, u32>,
}

struct Running {
    at: u32,
    is_chunked: bool,
    download: Download,
}

impl FolderFetch {
    /// Makes the folder's directory and its empty ones, and looks which files are there.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] if a directory cannot be made.
    pub async fn begin(
        receiver: FolderReceiver,
        base: &Path,
        terms: FetchTerms,
    ) -> Result<FolderFetch, PlaceError> {
        let list = receiver.folder().list().clone();
        let place = FolderPlace::new(base);
        make_directories(&place, &list, &terms.selection).await?;
        let names = (0..list.file_count()).filter_map(|at| Some((at, list.name(at)?)));
        let wanted = names.filter(|(_, name)| terms.selection.allows(name));
        let mut wanted: Vec<u32> = wanted.map(|(at, _)| at).collect();
        let length = |at: u32| list.info(at).map_or(0, |info| info.length);
        let bytes = wanted.iter().map(|&at| length(at)).sum();
        let expected = (wanted.len() as u64, bytes);
        let mut present = Bitmap::new(list.file_count());
        let mut totals = FolderTotals::default();
        if let Some(index) = terms.index.clone() {
            let (collection, files) = (receiver.collection().clone(), wanted.clone());
            let known = blocking(move || collection.adopt_known(&files, &index)).await;
            for at in known {
                present.insert(ChunkIndex(at));
                totals.files += 1;
                totals.already_there += 1;
                totals.bytes += length(at);
            }
            wanted.retain(|&at| !present.contains(ChunkIndex(at)));
        }
        // Each receiver begins elsewhere, so that those who come at once soon have different files
        // for each other.
        if !wanted.is_empty() {
            let head = receiver.us().0.first_chunk().copied().unwrap_or_default();
            let start = u64::from_le_bytes(head) % wanted.len() as u64;
            wanted.rotate_left(start as usize);
        }
        let is_chunked = |at: &u32| Chunks::of_length(length(*at)).count() > 1;
        let (chunked, small): (Vec<u32>, Vec<u32>) = wanted.into_iter().partition(is_chunked);
        let former = terms.former.as_ref().map(FormerFolder::names);
        Ok(FolderFetch {
            receiver,
            place,
            terms,
            small: small.into(),
            chunked: chunked.into(),
            busy: HashSet::new(),
            deferred: HashMap::new(),
            copied: HashSet::new(),
            running: HashMap::new(),
            running_chunked: 0,
            ends: JoinSet::new(),
            next_key: 0,
            is_stopped: false,
            present,
            expected,
            totals,
            former: former.unwrap_or_default(),
        })
    }

    /// Returns the receiver.
    pub fn receiver(&self) -> &FolderReceiver {
        &self.receiver
    }

    /// Returns the number of wanted files, and the sum of their lengths in bytes.
    pub fn expected(&self) -> (u64, u64) {
        self.expected
    }

    /// Returns what has happened so far.
    pub fn totals(&self) -> FolderTotals {
        self.totals
    }

    /// Returns the files that are there.
    pub fn present(&self) -> &Bitmap {
        &self.present
    }

    /// Returns the running downloads.
    pub fn running(&self) -> impl Iterator<Item = &Download> {
        self.running.values().map(|running| &running.download)
    }

    /// Begins downloads while there is room, and returns the next step; None at the end. A call
    /// that is dropped loses nothing.
    pub async fn next(&mut self) -> Option<FolderEvent> {
        if let Some(begun) = self.begin_one() {
            return Some(begun);
        }
        Some(match self.ends.join_next().await? {
            Ok((key, outcome)) => self.end(key, outcome),
            Err(panicked) => FolderEvent::Lost(panicked.to_string()),
        })
    }

    /// Stops all downloads. They can be resumed.
    pub fn stop(&mut self) {
        self.is_stopped = true;
        let running = self.running.values();
        running.for_each(|running| running.download.stop());
    }

    /// Makes the symbolic links, once all files are there, and announces the folder if all of it
    /// is. Returns the links that could not be made.
    pub async fn finish(&self) -> Vec<PlaceError> {
        let (place, force) = (self.place.clone(), self.terms.force);
        let (list, selection) = (
            self.receiver.folder().list().clone(),
            self.terms.selection.clone(),
        );
        let make = move || {
            let links = list.links().iter();
            let links = links.filter(|(name, _)| selection.allows(name.as_str()));
            let made = links.map(|(name, target)| place.make_link(name, target, force));
            made.filter_map(Result::err).collect()
        };
        let failed = blocking(make).await;
        self.receiver.finish().await;
        failed
    }

    /// Stops serving the folder. What was downloaded is replaced by a newer version.
    pub fn into_former(self) -> FormerFolder {
        self.receiver.withdraw();
        FormerFolder(Former::Received(self.receiver.collection().clone()))
    }

    /// Begins the next download, if there is one and there is room.
    fn begin_one(&mut self) -> Option<FolderEvent> {
        let list = self.receiver.folder().list().clone();
        while self.ends.len() < HANDED_OVER_MAX && !self.is_stopped {
            let has_room = self.running_chunked < self.terms.chunked_max;
            let chunked = self.chunked.pop_front_if(|_| has_room);
            let is_chunked = chunked.is_some();
            let at = chunked.or_else(|| self.small.pop_front())?;
            let Some(info) = list.info(at) else { continue };
            let id = info.id();
            if info.length > 0 && !self.copied.contains(&id) && !self.busy.insert(id) {
                self.deferred.entry(id).or_default().push_back(at);
                continue;
            }
            let Some(request) = self.request(at) else {
                continue;
            };
            let download = self.receiver.begin(request);
            let key = self.next_key;
            self.next_key += 1;
            self.running_chunked += usize::from(is_chunked);
            let running = Running {
                at,
                is_chunked,
                download: download.clone(),
            };
            self.running.insert(key, running);
            let ended = download.clone();
            self.ends
                .spawn(async move { (key, ended.finished().await) });
            return Some(FolderEvent::Begun { key, download });
        }
        None
    }

    fn request(&self, at: u32) -> Option<DownloadRequest> {
        let request = self.receiver.request(at)?;
        let former = self.terms.former.as_ref();
        let former =
            former.and_then(|former| former.file(*self.former.get(request.name().as_str())?));
        let (replaces, supersedes) = former.unwrap_or((false, None));
        let supersedes = supersedes.filter(|earlier| *earlier != request.info());
        Some(
            request
                .force(self.terms.force || replaces)
                .supersedes(supersedes)
                .durability(self.terms.durability),
        )
    }

    fn end(&mut self, key: usize, outcome: Outcome) -> FolderEvent {
        let Some(running) = self.running.remove(&key) else {
            return FolderEvent::Lost("an unknown download ended".into());
        };
        self.running_chunked -= usize::from(running.is_chunked);
        let info = self.receiver.folder().list().info(running.at);
        if let Some(content) = info.map(|info| info.id()) {
            self.release(content, running.is_chunked, outcome.is_ok());
        }
        match &outcome {
            Ok(report) => {
                self.totals.files += 1;
                self.totals.bytes += report.size_bytes;
                self.totals.received_bytes += report.received_bytes;
                self.totals.wasted_bytes += report.wasted_bytes;
                self.totals.reused_bytes += report.reused_bytes;
                self.present.insert(ChunkIndex(running.at));
                if report.already_there {
                    self.totals.already_there += 1;
                    self.keep_attributes(running.at);
                }
            }
            Err(error) if matches!(**error, DownloadError::Stopped) => {}
            Err(_) => self.totals.failed += 1,
        }
        FolderEvent::Ended {
            key,
            size_bytes: info.map_or(0, |info| info.length),
            outcome,
        }
    }

    /// Lets the other files of a content go on.
    fn release(&mut self, content: ContentId, is_chunked: bool, is_there: bool) {
        self.busy.remove(&content);
        let Some(mut others) = self.deferred.remove(&content) else {
            return;
        };
        // Once one is there, the others are copied at the same time.
        if is_there {
            self.copied.insert(content);
        } else {
            let first = others.pop_front();
            self.deferred.insert(content, others);
            others = first.into_iter().collect();
        }
        let waiting = match is_chunked {
            true => &mut self.chunked,
            false => &mut self.small,
        };
        others.into_iter().for_each(|at| waiting.push_front(at));
    }

    /// Gives an identical file that was there the folder's time and executable bit, and serves it.
    fn keep_attributes(&self, at: u32) {
        let folder = self.receiver.folder();
        let Some(file) = folder.list().file(at) else {
            return;
        };
        let kept = folder.kept_attributes(at);
        match self.place.set_attributes(&file.name, &kept) {
            // The file has another change time now.
            Ok(true) => self.receiver.readopt(at),
            Ok(false) => {}
            Err(error) => debug!(%error, "attributes were not set"),
        }
    }
}

impl FormerFolder {
    /// The version that `folder` has, which is served no more.
    pub(super) fn listed(folder: SharedFolder) -> FormerFolder {
        FormerFolder(Former::Listed(Arc::new(folder)))
    }

    fn folder(&self) -> &SharedFolder {
        match &self.0 {
            Former::Received(collection) => &collection.folder,
            Former::Listed(folder) => folder,
        }
    }

    fn names(&self) -> HashMap<String, u32> {
        let list = self.folder().list();
        let names = (0..list.file_count()).filter_map(|at| Some((list.name(at)?.to_owned(), at)));
        names.collect()
    }

    /// Returns whether a file is there as it was downloaded, and its length and root.
    fn file(&self, at: u32) -> Option<(bool, Option<qshare_content::ContentInfo>)> {
        let info = self.folder().list().info(at);
        Some((self.folder().is_unchanged(at), info))
    }
}

async fn make_directories(
    place: &FolderPlace,
    list: &Arc<FolderList>,
    selection: &Selection,
) -> Result<(), PlaceError> {
    let (place, list, selection) = (place.clone(), list.clone(), selection.clone());
    let make = move || {
        place.create()?;
        let empty = list.empty_directories().iter();
        for name in empty.filter(|name| selection.allows(name.as_str())) {
            place.make_directory(name)?;
        }
        Ok(())
    };
    blocking(make).await
}
