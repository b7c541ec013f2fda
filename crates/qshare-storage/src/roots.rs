//! The shared directories' paths, and what beneath them is left out.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::beneath;
use crate::offered_files::Key;
use crate::system::{Access, Dir};

/// The shared directories. They are numbered by their place.
pub(crate) struct Roots {
    /// Absolute.
    paths: Vec<PathBuf>,
    /// Absolute.
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

    /// The number and the path of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Path)> {
        (0..).zip(self.paths.iter().map(PathBuf::as_path))
    }

    /// The path of one.
    pub(crate) fn path(&self, root: u32) -> &Path {
        self.paths
            .get(root as usize)
            .map_or(Path::new(""), PathBuf::as_path)
    }

    /// The whole path of a key.
    pub(crate) fn full_path(&self, key: &Key) -> PathBuf {
        self.path(key.root).join(&key.relative)
    }

    /// The keys of an absolute path: one for each root that it is beneath.
    pub(crate) fn keys_of(&self, path: &Path) -> impl Iterator<Item = Key> {
        self.iter()
            .filter_map(move |(root, base)| Some(Key::new(root, path.strip_prefix(base).ok()?)))
    }

    /// What beneath a root is left out, relative to it. Depends on what exists, since either side
    /// may be reached through a link.
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

    /// Opens a file without following links beneath its root.
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
