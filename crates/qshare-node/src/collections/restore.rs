//! Serving the private folders of earlier runs again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use qshare_content::manifest::FolderList;
use qshare_storage::{HashIndex, HashOptions, PrivateFile, SharedFile, SharedFolder};
use tracing::{debug, info};

use super::receive::times_path;
use crate::downloads::DownloadId;
use crate::runtime::blocking;
use crate::shares::{ShareStore, SharedCollection};

/// Serves the private folders whose lists are in `lists`, except the `unfinished` ones, whose
/// downloads do that. Deletes lists that no folder needs.
pub(super) async fn restore(shares: Arc<ShareStore>, lists: PathBuf, unfinished: Vec<String>) {
    let mut needed: HashSet<String> = unfinished.into_iter().collect();
    for file in shares.private_folders() {
        let id = DownloadId::of_name(&file.content, &file.name).to_string();
        let list = lists.join(format!("{id}.list"));
        if needed.insert(id) {
            publish(&shares, file, list).await;
        }
    }
    blocking(move || remove_others(&lists, &needed)).await;
}

/// Serves and announces a folder, with the files of it that are there.
async fn publish(shares: &Arc<ShareStore>, file: PrivateFile, list: PathBuf) {
    let (Some(index), Some(base)) = (shares.hash_index(), shares.place_of(&file.name)) else {
        return;
    };
    let open = move || open(&file, &list, &base, &index);
    let Some(collection) = blocking(open).await else {
        return;
    };
    let present = collection.folder.present();
    if present.count() > 0 || present.is_full() {
        shares.add_collection(&Arc::new(collection), present.is_full());
        info!(files = present.count(), "a private folder is served again");
    }
}

/// Opens a folder of an earlier run. Files that the index does not know are hashed, so this blocks.
fn open(
    file: &PrivateFile,
    path: &Path,
    base: &Path,
    index: &HashIndex,
) -> Option<SharedCollection> {
    let manifest = SharedFile::hashed(path, &HashOptions::default()).ok()?;
    let info = manifest.info();
    if info.id() != file.content {
        return None;
    }
    let list = Arc::new(FolderList::read(manifest.reader(), info).ok()?);
    let times = SharedFile::hashed(&times_path(path), &HashOptions::default()).ok();
    let collection = SharedCollection::new(
        file.name.clone(),
        Arc::new(manifest),
        times.map(Arc::new),
        Some(file.key.clone()),
        SharedFolder::empty(base, list),
    );
    for at in 0..collection.folder.list().file_count() {
        if let Err(error) = collection.folder.adopt_hashed(at, index) {
            debug!(%error, "a file of a folder is not served again");
        }
    }
    Some(collection)
}

/// Deletes the lists of folders whose download IDs are not `needed`.
fn remove_others(lists: &Path, needed: &HashSet<String>) {
    for entry in fs::read_dir(lists).into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        // A working file's name goes on after the ID.
        let id = stem.and_then(|stem| stem.split('.').next());
        if id.is_some_and(|id| !needed.contains(id)) {
            let _ = fs::remove_file(&path);
        }
    }
}
