//! A cache of open directories for many files in few directories.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::system::Dir;
use crate::{DiskError, Target};

/// Directories that are open at once. Files arrive roughly in the order of their names, so few are
/// in use at a time.
const OPEN_MAX: usize = 32;

/// A target with its directory open; several targets share a directory.
#[derive(Clone)]
pub(crate) struct Spot {
    pub(crate) dir: Arc<Dir>,
    pub(crate) file_name: OsString,
    /// The final path, for messages and results.
    pub(crate) path: PathBuf,
}

/// The directories that were opened most recently.
#[derive(Default)]
pub(crate) struct Directories {
    open: VecDeque<Open>,
    /// Whether directories were created.
    pub(crate) made_any: bool,
}

struct Open {
    /// The directory beneath which no links were followed; None for a path that the user chose.
    base: Option<PathBuf>,
    path: PathBuf,
    dir: Arc<Dir>,
    opened_at: Instant,
}

impl Directories {
    /// Opens the directory of the target, creating missing directories.
    pub(crate) fn resolve(&mut self, target: &Target) -> Result<Spot, DiskError> {
        let path = target.path();
        if let Some(spot) = self.known(target, &path, None) {
            return Ok(spot);
        }
        let place = target.resolve()?;
        self.made_any |= place.made_directories();
        Ok(self.keep(target, path, place.dir, place.file_name))
    }

    /// Opens the directory of the target, unless it was opened after `asked_at`: other programs may
    /// have moved the ones that were opened earlier. Returns None if the directory does not exist.
    pub(crate) fn find(
        &mut self,
        target: &Target,
        asked_at: Instant,
    ) -> Result<Option<Spot>, DiskError> {
        let path = target.path();
        if let Some(spot) = self.known(target, &path, Some(asked_at)) {
            return Ok(Some(spot));
        }
        let found = target.find()?;
        Ok(found.map(|(dir, file_name)| self.keep(target, path, dir, file_name)))
    }

    fn known(&self, target: &Target, path: &Path, after: Option<Instant>) -> Option<Spot> {
        let (parent, file_name) = (path.parent()?, path.file_name()?);
        let base = base_of(target);
        let open = self.open.iter().find(|open| {
            open.path == parent
                && open.base.as_deref() == base
                && after.is_none_or(|after| open.opened_at > after)
        })?;
        Some(Spot {
            dir: open.dir.clone(),
            file_name: file_name.to_os_string(),
            path: path.to_path_buf(),
        })
    }

    fn keep(&mut self, target: &Target, path: PathBuf, dir: Dir, file_name: OsString) -> Spot {
        let dir = Arc::new(dir);
        if let Some(parent) = path.parent() {
            let base = base_of(target);
            self.open
                .retain(|open| open.path != parent || open.base.as_deref() != base);
            self.open.truncate(OPEN_MAX - 1);
            self.open.push_front(Open {
                base: base.map(Path::to_path_buf),
                path: parent.to_path_buf(),
                dir: dir.clone(),
                opened_at: Instant::now(),
            });
        }
        Spot {
            dir,
            file_name,
            path,
        }
    }

    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Closes all directories, since other programs may have moved them.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }
}

fn base_of(target: &Target) -> Option<&Path> {
    match target {
        Target::Beneath { base, .. } => Some(base),
        Target::Path(_) => None,
    }
}
