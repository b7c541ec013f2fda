//! Answers questions for folders: collections that this node shares, and snapshots of directories
//! of its assets.
//!
//! Anybody may ask, and a snapshot of a large directory costs as much as a hundred thousand
//! lookups. So one snapshot is made at a time, each is kept, and after one that took long the next
//! waits until nine tenths of the time were free again. Networks take turns, and the network that
//! fills the memory for snapshots loses its own.

mod turns;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::fair::Network;
use qshare_content::manifest::{
    ManifestEntry, ManifestError, ManifestItem, ManifestWriter, TimesWriter, cmp_names,
};
use qshare_content::{AssetName, ContentId, ContentInfo};
use qshare_net::framed;
use qshare_storage::Asset;
use qshare_wire::collection::{FolderInfo, FolderRequest};
use qshare_wire::{Refusal, Refused};
use quinn::SendStream;
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::turns::Turns;
use super::pacing::PIECE_DEADLINE;
use super::refuse::busy;
use crate::neighbours::Neighbours;
use crate::peers::Peer;
use crate::runtime::blocking;
use crate::shares::{MemoryContent, ShareStore};

/// Snapshots that are kept, and the sum of their bytes. The oldest of the network that asked for
/// most goes first; who still fetches its manifest asks again.
const KEPT_MAX: usize = 64;
const KEPT_MAX_BYTES: usize = 64 << 20;
/// A folder that changed is not looked at again before this time.
const FRESH: Duration = Duration::from_secs(5);
/// Part of the time that goes into snapshots: a tenth.
const PAUSE_FACTOR: u32 = 9;
/// Time that an asker waits for its turn; it gives up after 20 s by itself.
const TURN_PATIENCE: Duration = Duration::from_secs(12);
/// Retry time that is sent to one that has not had its turn.
const RETRY_MS: u32 = 500;

/// Answers questions for folders.
pub(super) struct FolderAnswers {
    shares: Arc<ShareStore>,
    neighbours: Arc<Neighbours>,
    /// Whether trackers tell everybody the names of this node's files.
    has_trackers: bool,
    state: Mutex<State>,
    turns: Turns,
}

#[derive(Default)]
struct State {
    by_folder: HashMap<AssetName, Snapshot>,
    /// Oldest first.
    order: VecDeque<AssetName>,
    bytes: usize,
    next_at: Option<Instant>,
}

#[derive(Clone)]
struct Snapshot {
    made_at: Instant,
    /// The state of the catalogue that it shows.
    generation: u64,
    manifest: Arc<MemoryContent>,
    times: Arc<MemoryContent>,
    /// Who asked for it.
    network: Network,
}

impl State {
    /// Returns the oldest snapshot of the network that asked for the most bytes.
    fn yields(&self) -> Option<AssetName> {
        let mut bytes: BTreeMap<Network, usize> = BTreeMap::new();
        for snapshot in self.by_folder.values() {
            *bytes.entry(snapshot.network).or_default() += snapshot.bytes();
        }
        let (heaviest, _) = bytes.into_iter().max_by_key(|&(_, bytes)| bytes)?;
        let is_its = |folder: &&AssetName| {
            let kept = self.by_folder.get(*folder);
            kept.is_some_and(|kept| kept.network == heaviest)
        };
        self.order.iter().find(is_its).cloned()
    }
}

impl Snapshot {
    fn bytes(&self) -> usize {
        self.manifest.len() + self.times.len()
    }
}

impl FolderAnswers {
    pub(super) fn new(
        shares: Arc<ShareStore>,
        neighbours: Arc<Neighbours>,
        has_trackers: bool,
    ) -> FolderAnswers {
        FolderAnswers {
            shares,
            neighbours,
            has_trackers,
            state: Mutex::default(),
            turns: Turns::new(),
        }
    }

    /// Answers with the manifest of a folder.
    pub(super) async fn answer(
        &self,
        peer: &Peer,
        request: FolderRequest,
        send: &mut SendStream,
    ) -> Result<(), Refused> {
        // Trackers tell names to everybody. Without them, only the local network may know names.
        if !self.has_trackers && !self.neighbours.is_near(peer.address().ip()) {
            return Err(Refused::because(
                Refusal::NotAllowed,
                "names are told on the local network only",
            ));
        }
        let info = match self.shares.collections().public(&request.folder) {
            Some(collection) => FolderInfo {
                manifest: collection.manifest.info(),
                times: collection.times.as_ref().map(|times| times.info()),
                extensions: Vec::new(),
            },
            None => {
                let network = Network::of(peer.address().ip());
                let snapshot = self.snapshot(request.folder, network).await?;
                FolderInfo {
                    manifest: snapshot.manifest.info(),
                    times: Some(snapshot.times.info()),
                    extensions: Vec::new(),
                }
            }
        };
        let _ = timeout(PIECE_DEADLINE, framed::write(send, &info)).await;
        Ok(())
    }

    async fn snapshot(&self, folder: AssetName, network: Network) -> Result<Snapshot, Refused> {
        if let Some(kept) = self.kept(&folder) {
            return Ok(kept);
        }
        let turn = self.turns.take(network, TURN_PATIENCE).await;
        let _turn = turn.ok_or_else(|| busy("other folders are being listed", RETRY_MS))?;
        // Another node may have asked for it meanwhile.
        if let Some(kept) = self.kept(&folder) {
            return Ok(kept);
        }
        let now = Instant::now();
        let wait = self.lock().next_at.map(|at| at.duration_since(now));
        match wait {
            Some(wait) if wait > TURN_PATIENCE => {
                let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                return Err(busy("other folders are being listed", wait_ms));
            }
            // With the turn: those who ask meanwhile queue up.
            Some(wait) => sleep(wait).await,
            None => {}
        }
        let now = Instant::now();
        let shares = self.shares.clone();
        let wanted = folder.clone();
        let made = blocking(move || {
            let generation = shares.revision();
            (make(&shares.beneath(&wanted), &wanted), generation)
        });
        let (made, generation) = made.await;
        let took = now.elapsed();
        let mut state = self.lock();
        state.next_at = Some(Instant::now() + took * PAUSE_FACTOR);
        let (manifest, times) = match made {
            Ok(Some(made)) => made,
            Ok(None) => return Err(Refused::new(Refusal::NotHere)),
            Err(error) => {
                debug!(%folder, %error, "cannot list a folder");
                return Err(Refused::because(Refusal::Failed, "the folder is too large"));
            }
        };
        let snapshot = Snapshot {
            made_at: now,
            generation,
            manifest: Arc::new(MemoryContent::new(manifest)),
            times: Arc::new(MemoryContent::new(times)),
            network,
        };
        if snapshot.bytes() > KEPT_MAX_BYTES {
            return Err(Refused::because(Refusal::Failed, "the folder is too large"));
        }
        debug!(%folder, ?took, bytes = snapshot.bytes(), "listed a folder");
        self.keep(&mut state, folder, snapshot.clone());
        Ok(snapshot)
    }

    /// Returns a snapshot that is fresh, or shows what is shared now.
    fn kept(&self, folder: &AssetName) -> Option<Snapshot> {
        let state = self.lock();
        let snapshot = state.by_folder.get(folder)?;
        let is_current =
            snapshot.generation == self.shares.revision() || snapshot.made_at.elapsed() < FRESH;
        is_current.then(|| snapshot.clone())
    }

    fn keep(&self, state: &mut State, folder: AssetName, snapshot: Snapshot) {
        let bytes = snapshot.bytes();
        self.drop_folder(state, &folder);
        while state.order.len() >= KEPT_MAX || state.bytes + bytes > KEPT_MAX_BYTES {
            let Some(yields) = state.yields() else { break };
            self.drop_folder(state, &yields);
        }
        for content in [&snapshot.manifest, &snapshot.times] {
            self.shares.add_memory(content.clone());
        }
        state.bytes += bytes;
        state.order.push_back(folder.clone());
        state.by_folder.insert(folder, snapshot);
    }

    fn drop_folder(&self, state: &mut State, folder: &AssetName) {
        let Some(old) = state.by_folder.remove(folder) else {
            return;
        };
        state.order.retain(|other| other != folder);
        state.bytes -= old.bytes();
        let ids: [ContentId; 2] = [old.manifest.info().id(), old.times.info().id()];
        let is_used = |id: &ContentId| {
            let mut kept = state.by_folder.values();
            kept.any(|kept| [kept.manifest.info().id(), kept.times.info().id()].contains(id))
        };
        for id in ids.iter().filter(|id| !is_used(id)) {
            self.shares.remove_memory(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a manifest, and of the times.
type Made = (Vec<u8>, Vec<u8>);

/// Writes the manifest and the times of assets beneath a folder; None if there are none. Of two
/// contents of one name, from two shared directories, the first is listed.
fn make(assets: &[Arc<Asset>], folder: &AssetName) -> Result<Option<Made>, ManifestError> {
    let mut named: Vec<(&str, &Arc<Asset>)> = assets
        .iter()
        .filter_map(|asset| {
            let rest = asset.name.as_str().strip_prefix(folder.as_str())?;
            Some((rest.strip_prefix('/')?, asset))
        })
        .collect();
    named.sort_by(|a, b| cmp_names(a.0, b.0));
    let mut manifest = ManifestWriter::new(Vec::new())?;
    let mut times = TimesWriter::new(Vec::new())?;
    let mut last: Option<&str> = None;
    for (name, asset) in named {
        // A file of one shared directory may have the name of a directory in another.
        let clashes = last.is_some_and(|last| {
            let rest = name.strip_prefix(last);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if clashes {
            continue;
        }
        last = Some(name);
        manifest.add(&ManifestEntry {
            name: AssetName::new(name)?,
            item: ManifestItem::File {
                info: ContentInfo { ..asset.info },
                executable: asset.attributes.executable,
            },
        })?;
        times.add(asset.attributes.modified_ns.unwrap_or(0))?;
    }
    if last.is_none() {
        return Ok(None);
    }
    Ok(Some((manifest.finish()?, times.finish()?)))
}

#[cfg(test)]
mod tests {
    use qshare_content::Hash;
    use qshare_content::manifest::FolderList;

    use super::*;

    fn asset(name: &str, byte: u8) -> Arc<Asset> {
        let info = ContentInfo {
            length: 1,
            root: Hash([byte; 32]),
        };
        Arc::new(Asset::new(AssetName::new(name).unwrap(), info))
    }

    #[test]
    fn a_snapshot_lists_what_is_beneath_the_folder_once() {
        let assets = [
            asset("a/x.y", 1),
            asset("a/x/z", 2),
            asset("a/x.y", 3),
            asset("a", 4),
            asset("ab/c", 5),
        ];
        let folder = AssetName::new("a").unwrap();
        let (manifest, _) = make(&assets, &folder).unwrap().unwrap();
        let list = FolderList::read(&manifest[..], None).unwrap();
        let names: Vec<String> = list.files().map(|file| file.name.into()).collect();
        assert_eq!(names, ["x/z", "x.y"]);
        assert_eq!(list.info(1).unwrap().root, Hash([1; 32]));
        let nothing = AssetName::new("b").unwrap();
        assert!(make(&assets, &nothing).unwrap().is_none());
    }

    #[test]
    fn the_network_that_asked_for_most_loses_its_oldest_snapshot() {
        let mut state = State::default();
        let kept = [("a", 1, 10), ("b", 2, 3), ("c", 1, 10), ("d", 2, 3)];
        for (name, network, bytes) in kept {
            let name = AssetName::new(name).unwrap();
            let content = |length| Arc::new(MemoryContent::new(vec![network; length]));
            let snapshot = Snapshot {
                made_at: Instant::now(),
                generation: 0,
                manifest: content(bytes),
                times: content(0),
                network: Network::V4([203, 0, network]),
            };
            state.order.push_back(name.clone());
            state.by_folder.insert(name, snapshot);
        }
        let oldest = AssetName::new("a").unwrap();
        assert_eq!(state.yields(), Some(oldest.clone()));
        state.by_folder.remove(&oldest);
        state.order.retain(|name| *name != oldest);
        assert_eq!(state.yields(), AssetName::new("c").ok());
    }

    #[test]
    fn a_file_that_is_a_directory_elsewhere_does_not_spoil_the_snapshot() {
        let assets = [asset("a/x", 1), asset("a/x/z", 2), asset("a/y", 3)];
        let folder = AssetName::new("a").unwrap();
        let (manifest, _) = make(&assets, &folder).unwrap().unwrap();
        assert_eq!(
            FolderList::read(&manifest[..], None).unwrap().file_count(),
            2
        );
    }
}
