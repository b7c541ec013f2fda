//! Files that were read lately, still open.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use crate::offered_files::{Key, Offered};

/// Most files that stay open: opening one costs some microseconds, and a process may have 1,024
/// open by default.
const OPEN_MAX: usize = 64;

/// The files that were read last.
#[derive(Default)]
pub(crate) struct OpenFiles(Mutex<VecDeque<(Arc<Offered>, Arc<File>)>>);

impl OpenFiles {
    /// The file under this path, if it is open.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<File>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = files.iter().position(|(other, _)| other.key == *key)?;
        let entry = files.remove(at)?;
        let file = entry.1.clone();
        files.push_back(entry);
        Some(file)
    }

    /// Keeps a file open, in place of the one that was used least lately.
    pub(crate) fn put(&self, offered: Arc<Offered>, file: Arc<File>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(other, _)| *other != offered);
        if files.len() >= OPEN_MAX {
            files.pop_front();
        }
        files.push_back((offered, file));
    }

    /// Closes a file.
    pub(crate) fn forget(&self, key: &Key) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(other, _)| other.key != *key);
    }
}
