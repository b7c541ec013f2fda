//! Directories that are written to again and again, kept open for a while.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::system::Dir;
use crate::{DiskError, Target};

/// Directories that are open at once: files come roughly in the order of their names.
const OPEN_MAX: usize = 32;

/// A target whose directory is open, and may be that of others, too.
#[derive(Clone)]
pub(crate) struct Spot {
    pub(crate) dir: Arc<Dir>,
    pub(crate) file_name: OsString,
    /// The final path, for messages and results.
    pub(crate) path: PathBuf,
}

/// What was opened most recently.
#[derive(Default)]
pub(crate) struct Directories {
    open: VecDeque<Open>,
    /// Whether directories were made.
    pub(crate) made_any: bool,
}

struct Open {
    /// No links were followed beneath this; without it all were the user's own.
    base: Option<PathBuf>,
    path: PathBuf,
    dir: Arc<Dir>,
}

impl Directories {
    /// Opens the directory that the file goes into, making what is missing.
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

    /// From now on directories are looked up anew: others may have moved them.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
    }
}
