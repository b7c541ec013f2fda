//! Files that were read lately, still open.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::offered_files::{Key, Offered};
use crate::system::open_files_limit;

/// Most files that stay open, as opening one takes some microseconds; an eighth of what the
/// process may have open, if that is less.
const OPEN_MAX: u64 = 64;
/// A file that was not read for this long is closed, so that its file system can be unmounted.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// The files that were read last.
pub(crate) struct OpenFiles {
    files: Mutex<VecDeque<Open>>,
    open_max: usize,
}

struct Open {
    offered: Arc<Offered>,
    file: Arc<File>,
    used: Instant,
}

impl OpenFiles {
    /// None open.
    pub(crate) fn new() -> OpenFiles {
        let open_max = (open_files_limit() / 8).clamp(1, OPEN_MAX);
        OpenFiles {
            files: Mutex::default(),
            open_max: open_max as usize,
        }
    }

    /// The file under this path, if it is open.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Arc<File>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let at = files.iter().position(|open| open.offered.key == *key)?;
        let mut open = files.remove(at)?;
        open.used = now;
        let file = open.file.clone();
        files.push_back(open);
        Some(file)
    }

    /// Keeps a file open, in place of the one that was used least lately.
    pub(crate) fn put(&self, offered: Arc<Offered>, file: Arc<File>, now: Instant) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|open| open.offered != offered);
        if files.len() >= self.open_max {
            files.pop_front();
        }
        files.push_back(Open {
            offered,
            file,
            used: now,
        });
    }

    /// Closes a file.
    pub(crate) fn forget(&self, key: &Key) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|open| open.offered.key != *key);
    }

    /// Closes all files.
    pub(crate) fn clear(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.clear();
    }

    /// Closes the files that were not used for [`IDLE_MAX`].
    pub(crate) fn close_idle(&self, now: Instant) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|open| now.saturating_duration_since(open.used) < IDLE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use qshare_content::{AssetName, ContentInfo, Hash};

    use super::*;
    use crate::Asset;
    use crate::stamp::Stamp;

    fn offered(path: &str) -> Arc<Offered> {
        let info = ContentInfo {
            length: 0,
            root: Hash::ZERO,
        };
        Arc::new(Offered {
            key: Key::new(0, Path::new(path)),
            asset: Arc::new(Asset::new(AssetName::new(path).unwrap(), info)),
            stamp: Stamp {
                device: 0,
                inode: 0,
                size: 0,
                mtime_ns: 0,
                ctime_ns: 0,
                executable: false,
            },
            snapshot: false,
        })
    }

    #[test]
    fn a_file_is_closed_when_it_was_idle_or_displaced() {
        let files = OpenFiles {
            open_max: 2,
            ..OpenFiles::new()
        };
        let start = Instant::now();
        let open = |path: &str, at: u64| {
            let file = Arc::new(tempfile::tempfile().unwrap());
            files.put(offered(path), file, start + Duration::from_secs(at));
        };
        let is_open = |path: &str, at: u64| {
            let key = Key::new(0, Path::new(path));
            files.get(&key, start + Duration::from_secs(at)).is_some()
        };
        open("a", 0);
        open("b", 0);
        assert!(is_open("a", 1));
        open("c", 2);
        assert!(!is_open("b", 2));
        files.close_idle(start + Duration::from_secs(6));
        assert!(!is_open("a", 6));
        assert!(is_open("c", 6));
        files.close_idle(start + Duration::from_secs(10));
        assert!(is_open("c", 10));
    }
}
