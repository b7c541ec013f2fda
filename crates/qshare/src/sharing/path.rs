//! A path that is to be shared, and its name for receivers.

use std::io;
use std::path::{Path, PathBuf};

use qshare_node::content::{AssetName, NameError};

/// A file or folder that is to be shared, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedPath {
    pub(crate) path: PathBuf,
    pub(crate) name: AssetName,
    /// Of a file; meaningless for a folder.
    pub(crate) length: u64,
    pub(crate) is_folder: bool,
}

/// Why a path cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    /// It does not exist, or is not readable.
    #[error("cannot share {}: {cause}", .path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    /// It is a device, a FIFO or a socket.
    #[error("cannot share {}: not a file or directory", .0.display())]
    NotAFile(PathBuf),
    /// Receivers could not use its name.
    #[error("cannot share {} under its name: {cause}", .path.display())]
    Name { path: PathBuf, cause: NameError },
}

impl SharedPath {
    /// Looks at a path. Without a `name`, the share has the name of the path's last component.
    pub(crate) fn new(path: &Path, name: Option<AssetName>) -> Result<SharedPath, PathError> {
        let metadata = std::fs::metadata(path).map_err(|cause| PathError::Unreadable {
            path: path.into(),
            cause,
        })?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(PathError::NotAFile(path.into()));
        }
        let name = match name {
            Some(name) => name,
            None => name_of(path, metadata.is_dir())?,
        };
        Ok(SharedPath {
            path: path.into(),
            name,
            length: metadata.len(),
            is_folder: metadata.is_dir(),
        })
    }
}

fn name_of(path: &Path, is_folder: bool) -> Result<AssetName, PathError> {
    // `..` and `.` have no name of their own.
    let real = match is_folder {
        true => path.canonicalize(),
        false => std::path::absolute(path),
    };
    let real = real.unwrap_or_else(|_| path.into());
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    AssetName::from_local(&name).map_err(|cause| PathError::Name {
        path: path.into(),
        cause,
    })
}
