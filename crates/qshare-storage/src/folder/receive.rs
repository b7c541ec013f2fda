//! The entries of a received folder that are not files, and what is checked before it is written.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use qshare_content::AssetName;
use qshare_content::manifest::LinkTarget;

use super::failed;
use crate::beneath;
use crate::system::{Access, Dir, Entry, apply_attributes};
use crate::{DiskError, FileAttributes};

/// A directory that receives a folder. Links in it are never followed.
#[derive(Clone, Debug)]
pub struct FolderPlace {
    pub(super) base: PathBuf,
}

/// Why an entry of a folder cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something else is there.
    #[error("something else is already at {}", .0.display())]
    Different(PathBuf),
    /// This system has no symbolic links for everybody.
    #[error("cannot make the symbolic link {}: not supported on this system", .0.display())]
    NoLinks(PathBuf),
    /// An operation on this machine's files failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl FolderPlace {
    /// Names the directory; it is created with the first entry.
    pub fn new(base: &Path) -> FolderPlace {
        let base = match base.as_os_str().is_empty() {
            true => ".".into(),
            false => base.to_path_buf(),
        };
        FolderPlace { base }
    }

    /// Creates the directory itself.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if that fails.
    pub fn create(&self) -> Result<(), DiskError> {
        std::fs::create_dir_all(&self.base).map_err(failed("make directory", &self.base))
    }

    /// Makes an empty directory, unless it is there.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] if something else is there, or on the way.
    pub fn make_directory(&self, name: &AssetName) -> Result<(), PlaceError> {
        let path = self.base.join(name.as_str());
        let made = Dir::open(&self.base)
            .and_then(|base| beneath::open_dir(base, Path::new(name.as_str()), true));
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(PlaceError::Different(path))
            }
            Err(error) => Err(DiskError::new("make directory", path, error).into()),
        }
    }

    /// Makes a symbolic link, unless it is there. With `force`, replaces a file or another link.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] if something else is there, or on the way.
    pub fn make_link(
        &self,
        name: &AssetName,
        target: &LinkTarget,
        force: bool,
    ) -> Result<(), PlaceError> {
        let path = self.base.join(name.as_str());
        let (dir, file_name) = self.directory_of(name, true)?;
        let failed = failed("make the symbolic link", &path);
        match dir.entry(&file_name).map_err(&failed)? {
            None => {}
            Some(Entry::Link)
                if dir.read_link(&file_name).ok().as_deref() == Some(target.as_str().as_ref()) =>
            {
                return Ok(());
            }
            Some(Entry::Link | Entry::File(_)) if force => {
                dir.remove(&file_name).map_err(&failed)?;
            }
            Some(_) => return Err(PlaceError::Different(path)),
        }
        match dir.make_link(&file_name, target.as_str().as_ref()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(PlaceError::NoLinks(path))
            }
            Err(error) => Err(failed(error).into()),
        }
    }

    /// Gives a file that was there already the attributes of the folder's. Returns whether it had
    /// others.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if it cannot be opened. Attributes that cannot be set are left.
    pub fn set_attributes(
        &self,
        name: &AssetName,
        attributes: &FileAttributes,
    ) -> Result<bool, DiskError> {
        let path = self.base.join(name.as_str());
        let (dir, file_name) = self.directory_of(name, false)?;
        let file = dir.open_file(&file_name, Access::Read);
        let file = file.map_err(failed("open", &path))?;
        let metadata = file.metadata().map_err(failed("open", &path))?;
        let now = crate::system::stamp_of(&metadata, &path).attributes();
        let is_executable = now.executable || !attributes.executable;
        let has_time =
            attributes.modified_ns.is_none() || now.modified_ns == attributes.modified_ns;
        if !is_executable || !has_time {
            apply_attributes(&file, attributes, &path);
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn directory_of(
        &self,
        name: &AssetName,
        make: bool,
    ) -> Result<(Dir, std::ffi::OsString), DiskError> {
        let relative = Path::new(name.as_str());
        let parent = relative.parent().unwrap_or(Path::new(""));
        let file_name = relative.file_name().unwrap_or(OsStr::new(""));
        let opened = Dir::open(&self.base).and_then(|base| beneath::open_dir(base, parent, make));
        let reached = opened.map_err(failed("open directory", &self.base.join(parent)))?;
        Ok((reached.dir, file_name.to_os_string()))
    }
}

/// Returns whether the file system of a directory ignores case in names. Creates and removes a
/// hidden file there.
pub fn is_case_insensitive(dir: &Path) -> bool {
    let id = std::process::id();
    let (lower, upper) = (
        dir.join(format!(".qshare-case-{id}")),
        dir.join(format!(".QSHARE-CASE-{id}")),
    );
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&lower);
    if created.is_err() {
        return false;
    }
    let is_same = upper.symlink_metadata().is_ok();
    let _ = std::fs::remove_file(&lower);
    is_same
}
