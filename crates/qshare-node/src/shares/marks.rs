//! Which files in the shared directories came through private links.

use std::path::{Path, PathBuf};

use qshare_content::{AssetName, ShareKey};
use qshare_storage::{Asset, DiskError, PrivateFile, ShareKeys};

use super::store::ShareStore;
use crate::runtime::blocking;

/// The private files and folders of the shared directories.
pub(crate) struct Marks {
    keys: ShareKeys,
    assets: PathBuf,
    downloads: PathBuf,
}

impl Marks {
    pub(super) fn new(keys: ShareKeys, assets: PathBuf, downloads: PathBuf) -> Marks {
        Marks {
            keys,
            assets,
            downloads,
        }
    }

    /// Returns the keys under which a file is listed; none if it is public, or a file of a private
    /// folder.
    pub(super) fn keys_of(&self, asset: &Asset) -> Vec<ShareKey> {
        let keys = self.keys.keys_of(&asset.id);
        if !keys.is_empty() {
            return keys;
        }
        let keys = self.keys.keys_of_name(&asset.name);
        match keys.is_empty() || !self.is_download(asset) {
            true => Vec::new(),
            false => keys,
        }
    }

    /// Returns whether a file belongs to a private folder, which serves it.
    pub(super) fn is_in_folder(&self, asset: &Asset) -> bool {
        self.keys.is_in_folder(&asset.name) && self.is_download(asset)
    }

    /// Returns whether everybody may have a file.
    pub(super) fn is_public(&self, asset: &Asset) -> bool {
        self.keys_of(asset).is_empty() && !self.is_in_folder(asset)
    }

    /// Whether a file is among the downloads, maybe with other bytes than were downloaded. A file
    /// of that name among the assets is another one.
    fn is_download(&self, asset: &Asset) -> bool {
        let has = |dir: &Path| {
            let found = std::fs::metadata(dir.join(asset.name.as_str()));
            found.is_ok_and(|file| file.is_file() && file.len() == asset.info.length)
        };
        has(&self.downloads) && !has(&self.assets)
    }
}

impl ShareStore {
    /// Records durably that a content comes through a private link, before any of it is in a shared
    /// directory.
    pub(crate) async fn mark_private(&self, file: PrivateFile) -> Result<(), DiskError> {
        match self.marks().cloned() {
            Some(marks) => blocking(move || marks.keys.add(file)).await,
            None => Ok(()),
        }
    }

    /// Forgets a private download whose data was deleted. Its key stays while another file with
    /// this content would become public.
    pub(crate) async fn forget_private(&self, file: PrivateFile) -> Result<(), DiskError> {
        if !file.is_folder && self.has_elsewhere(&file.content, &file.name) {
            return Ok(());
        }
        match self.marks().cloned() {
            Some(marks) => blocking(move || marks.keys.remove(&file)).await,
            None => Ok(()),
        }
    }

    /// Returns the folders that came through private links.
    pub(crate) fn private_folders(&self) -> Vec<PrivateFile> {
        let marks = self.marks();
        marks.map_or_else(Vec::new, |marks| marks.keys.folders())
    }

    /// Returns where a download of this name is.
    pub(crate) fn place_of(&self, name: &AssetName) -> Option<PathBuf> {
        Some(self.marks()?.downloads.join(name.as_str()))
    }

    /// Returns whether a download of this name is a file of a private folder.
    pub(crate) fn is_in_private_folder(&self, name: &AssetName) -> bool {
        let marks = self.marks();
        marks.is_some_and(|marks| marks.keys.is_in_folder(name))
    }
}
