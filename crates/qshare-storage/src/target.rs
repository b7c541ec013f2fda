//! The target of a download.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use qshare_content::{AssetName, PART_SUFFIX};

use crate::DiskError;
use crate::beneath::{self, Reached};
use crate::disk::SharedDisk;
use crate::system::Dir;
use crate::temporary::short_digest;

/// The target of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name from the network beneath a directory. Subdirectories are created as needed, and
    /// symbolic links beneath the directory are never followed.
    Beneath {
        /// The directory; created if it is missing.
        base: PathBuf,
        /// The name beneath it.
        name: AssetName,
    },
    /// A path that the user chose. Links in its directory part are followed.
    Path(PathBuf),
}

/// A target with its directory open.
pub(crate) struct Place {
    pub(crate) dir: Dir,
    pub(crate) file_name: OsString,
    /// The final path, for messages and results.
    pub(crate) path: PathBuf,
    /// Directories in which another one was created.
    changed: Vec<Dir>,
}

impl Target {
    /// Creates a target from a name beneath a directory.
    pub fn beneath(base: impl AsRef<Path>, name: AssetName) -> Target {
        Target::Beneath {
            base: base.as_ref().to_path_buf(),
            name,
        }
    }

    /// Returns the final path.
    pub fn path(&self) -> PathBuf {
        match self {
            Target::Beneath { base, name } => base.join(name.as_str()),
            Target::Path(path) => path.clone(),
        }
    }

    /// Returns the path of the part file.
    pub fn part_path(&self) -> PathBuf {
        let path = self.path();
        let file_name = path.file_name().unwrap_or_default();
        path.with_file_name(working_name(file_name, PART_SUFFIX))
    }

    /// Splits the target into the directory that the user chose, the path from there to the file's
    /// directory, and the file's name.
    pub(crate) fn split(&self) -> Result<(PathBuf, &Path, &OsStr), DiskError> {
        let (base, relative) = match self {
            Target::Beneath { base, name } => (base.as_path(), Path::new(name.as_str())),
            Target::Path(path) => match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) => (parent, Path::new(name)),
                _ => (path.as_path(), Path::new("")),
            },
        };
        if cfg!(windows)
            && let Target::Beneath { name, .. } = self
            && !name.is_writable_on_windows()
        {
            let source = std::io::ErrorKind::InvalidFilename.into();
            return Err(DiskError::new("write", self.path(), source));
        }
        let (Some(inner), Some(file_name)) = (relative.parent(), relative.file_name()) else {
            let source = std::io::ErrorKind::InvalidInput.into();
            return Err(DiskError::new("write", self.path(), source));
        };
        // A bare file name has an empty parent.
        let base = if base == Path::new("") {
            Path::new(".")
        } else {
            base
        };
        Ok((base.to_path_buf(), inner, file_name))
    }

    /// Opens the directory of the file, creating missing directories.
    pub(crate) fn resolve(&self) -> Result<Place, DiskError> {
        let (base, inner, file_name) = self.split()?;
        let base = base.as_path();
        std::fs::create_dir_all(base)
            .map_err(|error| DiskError::new("make directory", base, error))?;
        let opened = Dir::open(base).and_then(|base| beneath::open_dir(base, inner, true));
        let Reached { dir, changed } =
            opened.map_err(|error| DiskError::new("open directory", base.join(inner), error))?;
        Ok(Place {
            dir,
            file_name: file_name.to_os_string(),
            path: self.path(),
            changed,
        })
    }
}

/// Longest file name in bytes on common file systems.
const NAME_MAX_BYTES: usize = 255;

/// Returns the name of a working file: the file's name with a suffix. If that is too long for a
/// file system, it is the beginning of the file's name, `~`, 16 hex digits of its SHA-256, and the
/// suffix.
pub(crate) fn working_name(file_name: &OsStr, suffix: &str) -> OsString {
    if file_name.len() + suffix.len() <= NAME_MAX_BYTES {
        let mut name = file_name.to_os_string();
        name.push(suffix);
        return name;
    }
    let digest = short_digest(&[file_name.as_encoded_bytes()]);
    let text = file_name.to_string_lossy();
    let room = NAME_MAX_BYTES - suffix.len() - digest.len() - 1;
    let end = text.floor_char_boundary(room);
    format!("{}~{digest}{suffix}", &text[..end]).into()
}

impl Place {
    /// Returns the name of a working file of this file.
    pub(crate) fn name_with(&self, suffix: &str) -> OsString {
        working_name(&self.file_name, suffix)
    }

    /// Returns the path of another file in the same directory, for messages.
    pub(crate) fn beside(&self, name: &OsStr) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Returns whether directories were created.
    pub(crate) fn made_directories(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Flushes the directories that got new subdirectories.
    pub(crate) fn sync_made(&self, disk: &SharedDisk) -> Result<(), DiskError> {
        for dir in &self.changed {
            disk.sync_dir(dir)
                .map_err(|error| DiskError::new("flush the directory of", &self.path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_working_files_fit_and_stay_apart() {
        let suffix = PART_SUFFIX;
        assert_eq!(working_name(OsStr::new("a"), suffix), "a.qshare.part");
        let fits = "x".repeat(255 - suffix.len());
        assert_eq!(working_name(OsStr::new(&fits), suffix), *(fits + suffix));
        let mut names = std::collections::HashSet::new();
        for long in [
            "x".repeat(250),
            "x".repeat(255),
            "é".repeat(127),
            "é".repeat(126) + "e",
            "\u{1F600}".repeat(63),
        ] {
            let name = working_name(OsStr::new(&long), suffix);
            let text = name.to_str().unwrap();
            assert!(name.len() <= 255 && text.ends_with(suffix), "{text}");
            assert!(names.insert(name));
        }
    }
}
