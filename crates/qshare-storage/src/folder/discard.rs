//! Deleting what was received of a folder.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use qshare_content::AssetName;
use qshare_content::manifest::{FolderList, LinkTarget};

use super::{FolderPlace, SharedFolder};
use crate::system::Entry;
use crate::{DiskError, OpenError, Opened, Part, PartOptions, Target};

impl FolderPlace {
    /// Deletes what was received of a folder: unfinished files, the symbolic links, the files that
    /// `folder` has and that have not changed since, and the directories that are empty then. Other
    /// files stay. Blocks.
    ///
    /// # Errors
    ///
    /// The first failure; everything else was deleted all the same.
    pub fn discard(&self, folder: &SharedFolder) -> Result<(), DiskError> {
        let list = folder.list();
        let mut failed = None;
        let mut keep = |result: Result<(), DiskError>| {
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        };
        for at in 0..list.file_count() {
            let Some(file) = list.file(at) else { continue };
            let target = Target::beneath(&self.base, file.name.clone());
            if target.part_path().exists() {
                keep(discard_part(&target, file.info));
            }
            if folder.is_unchanged(at) {
                keep(self.remove_file(&file.name));
            }
        }
        for (name, target) in list.links() {
            keep(self.remove_link(name, target));
        }
        self.remove_directories(list);
        failed.map_or(Ok(()), Err)
    }

    fn remove_file(&self, name: &AssetName) -> Result<(), DiskError> {
        let path = self.base.join(name.as_str());
        let (dir, file_name) = self.directory_of(name, false)?;
        match dir.remove(&file_name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::new("delete", path, error))
            }
            _ => Ok(()),
        }
    }

    fn remove_link(&self, name: &AssetName, target: &LinkTarget) -> Result<(), DiskError> {
        // Its directory may never have been made.
        let Ok((dir, file_name)) = self.directory_of(name, false) else {
            return Ok(());
        };
        let is_link = matches!(dir.entry(&file_name), Ok(Some(Entry::Link)));
        if !is_link || dir.read_link(&file_name).ok().as_deref() != Some(target.as_str().as_ref()) {
            return Ok(());
        }
        self.remove_file(name)
    }

    /// Removes the directories of the folder that are empty, and its own.
    fn remove_directories(&self, list: &FolderList) {
        let files = (0..list.file_count()).filter_map(|at| list.name(at));
        let links = list.links().iter().map(|(name, _)| name.as_str());
        let mut directories: BTreeSet<&Path> = BTreeSet::new();
        for name in files.chain(links) {
            directories.extend(Path::new(name).ancestors().skip(1));
        }
        for name in list.empty_directories() {
            directories.extend(Path::new(name.as_str()).ancestors());
        }
        // A directory comes before what is in it, so the deepest ones are removed first. The base
        // is the empty path.
        for directory in directories.into_iter().rev() {
            let _ = std::fs::remove_dir(self.base.join(directory));
        }
        let _ = std::fs::remove_dir(&self.base);
    }
}

fn discard_part(target: &Target, info: qshare_content::ContentInfo) -> Result<(), DiskError> {
    let failed = |error: String| DiskError::new("discard", target.path(), io::Error::other(error));
    match Part::open(target, info, &PartOptions::default()) {
        Ok(Opened::Part(part)) => part.discard().map_err(|error| failed(error.to_string())),
        Ok(Opened::Complete { .. }) => Ok(()),
        Err(OpenError::Disk(error)) => Err(error),
        Err(error) => Err(failed(error.to_string())),
    }
}
