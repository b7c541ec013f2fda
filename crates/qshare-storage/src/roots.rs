//! The paths of the shared directories, and of the directories beneath them that are not shared.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::offered_files::Key;
use crate::system::{Access, Dir};

/// The shared directories, called roots, numbered by their position in the configuration.
pub(crate) struct Roots {
    /// Absolute paths of the roots.
    paths: Vec<PathBuf>,
    /// Absolute paths of the directories that are not shared.
    exclude: Vec<PathBuf>,
}

impl Roots {
    pub(crate) fn new(roots: &[PathBuf], exclude: &[PathBuf]) -> io::Result<Roots> {
        let absolute = |paths: &[PathBuf]| {
            let paths = paths.iter().map(std::path::absolute);
            paths.collect::<io::Result<Vec<_>>>()
        };
        let mut paths = absolute(roots)?;
        let mut seen = std::collections::HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        Ok(Roots {
            paths,
            exclude: absolute(exclude)?,
        })
    }

    /// Returns the number and the path of each root.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Path)> {
        (0..).zip(self.paths.iter().map(PathBuf::as_path))
    }

    /// Returns the path of a root.
    pub(crate) fn path(&self, root: u32) -> &Path {
        self.paths
            .get(root as usize)
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// Returns the absolute path of a key.
    pub(crate) fn full_path(&self, key: &Key) -> PathBuf {
        self.path(key.root).join(&key.relative)
    }

    /// Returns the keys of an absolute path, one for each root that it lies beneath.
    pub(crate) fn keys_of(&self, path: &Path) -> impl Iterator<Item = Key> {
        self.iter()
            .filter_map(move |(root, base)| Some(Key::new(root, path.strip_prefix(base).ok()?)))
    }

    /// Returns the paths relative to a root that are not shared. The result depends on the links
    /// that exist now, since the root and the excluded directory may be reached through links.
    pub(crate) fn excluded(&self, root: u32) -> Vec<PathBuf> {
        let base = self.path(root);
        let real_base = base.canonicalize().unwrap_or_else(|_| base.to_path_buf());
        let mut excluded = Vec::new();
        for path in &self.exclude {
            let real_path = path.canonicalize().unwrap_or_else(|_| path.clone());
            for (base, path) in [(base, path), (&real_base, &real_path)] {
                if let Ok(relative) = path.strip_prefix(base) {
                    excluded.push(relative.to_path_buf());
                } else if base.starts_with(path) {
                    excluded.push(PathBuf::new());
                }
            }
        }
        excluded
    }

    /// Opens a file for reading, without following links beneath its root.
    pub(crate) fn open(&self, key: &Key) -> io::Result<(File, Metadata)> {
        let (Some(parent), Some(name)) = (key.relative.parent(), key.relative.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let base = Dir::open(self.path(key.root))?;
        let directory = beneath::open_dir(base, parent, false)?.dir;
        let file = directory.open_file(name, Access::Read)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }
}
