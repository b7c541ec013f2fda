//! A cache of open directories for many files in few directories.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

impl Directories {
    /// Opens the directory of the target, creating missing directories.
    pub(crate) fn resolve(&mut self, target: &Target) -> Result<Spot, DiskError> {
        let path = target.path();
        let base = match target {
            Target::Beneath { base, .. } => Some(base),
            Target::Path(_) => None,
        };
        let is_of = |open: &&Open, parent: &Path| open.path == parent && open.base.as_ref() == base;
        if let (Some(parent), Some(file_name)) = (path.parent(), path.file_name())
            && let Some(open) = self.open.iter().find(|open| is_of(open, parent))
        {
            return Ok(Spot {
                dir: open.dir.clone(),
                file_name: file_name.to_os_string(),
                path,
            });
        }
        let place = target.resolve()?;
        self.made_any |= place.made_directories();
        let dir = Arc::new(place.dir);
        if let Some(parent) = place.path.parent() {
            if self.open.len() == OPEN_MAX {
                self.open.pop_back();
            }
            self.open.push_front(Open {
                base: base.cloned(),
                path: parent.to_path_buf(),
                dir: dir.clone(),
            });
        }
        Ok(Spot {
            dir,
            file_name: place.file_name,
            path: place.path,
        })
    }

    /// Closes all directories, since other programs may have moved them.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }
}
