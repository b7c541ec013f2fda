//! Systems other than Linux, through the `notify` crate: a watched directory includes everything
//! beneath it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Change, MountPoint, WatchError, WatchEvent, WatchId};

/// Watches trees of directories.
pub(crate) struct Watcher(Mutex<(RecommendedWatcher, Vec<PathBuf>)>);

impl Watcher {
    /// Whether a watched directory includes everything beneath it.
    #[cfg_attr(test, expect(dead_code, reason = "Linux uses the other watcher"))]
    pub(crate) const RECURSIVE: bool = true;

    /// Starts watching nothing. `tell` is called from a thread of the watcher's.
    pub(crate) fn new(
        tell: impl Fn(Vec<WatchEvent>) -> bool + Send + 'static,
    ) -> io::Result<Watcher> {
        let handler = move |event: notify::Result<Event>| {
            if let Some(event) = decode(event) {
                tell(vec![event]);
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(handler, config).map_err(io::Error::other)?;
        Ok(Watcher(Mutex::new((watcher, Vec::new()))))
    }

    /// Watches a directory and everything beneath it.
    pub(crate) fn add(&self, path: &Path, _follow: bool) -> Result<WatchId, WatchError> {
        let mut inner = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (watcher, paths) = &mut *inner;
        let known = paths.iter().position(|known| known == path);
        if known.is_some() {
            // Gone together with the directory that was there before, as a rule.
            let _ = watcher.unwatch(path);
        }
        watcher
            .watch(path, RecursiveMode::Recursive)
            .map_err(|error| match error.kind {
                notify::ErrorKind::PathNotFound => WatchError::Directory,
                _ => WatchError::System(error.to_string()),
            })?;
        let at = known.unwrap_or_else(|| {
            paths.push(path.to_path_buf());
            paths.len() - 1
        });
        Ok(WatchId(i32::try_from(at).unwrap_or(i32::MAX)))
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, id: WatchId) {
        let mut inner = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (watcher, paths) = &mut *inner;
        if let Some(path) = usize::try_from(id.0).ok().and_then(|at| paths.get(at)) {
            let _ = watcher.unwatch(path);
        }
    }
}

fn decode(event: notify::Result<Event>) -> Option<WatchEvent> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return Some(WatchEvent::Failed(error.to_string())),
    };
    if event.need_rescan() {
        return Some(WatchEvent::Overflow);
    }
    let change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Change::Closed,
        // This process opens and reads files all the time.
        EventKind::Access(_) => return None,
        // These systems do not report when a file is closed, so a write does not count as
        // `Written`: the file would be taken to be open for ever.
        _ => Change::Other,
    };
    (!event.paths.is_empty()).then_some(WatchEvent::Paths(event.paths, change))
}

/// No mount table is read here: mounts are found by reconciliation.
#[cfg_attr(test, expect(dead_code, reason = "Linux reads its mount table"))]
pub(crate) fn mount_points(_bases: &[PathBuf]) -> Vec<MountPoint> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn changes_anywhere_beneath_are_reported_by_path() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        let (sender, events) = channel();
        let watcher = Watcher::new(move |events| sender.send(events).is_ok()).unwrap();
        let id = watcher.add(&base, true).unwrap();
        let file = base.join("a/b/c");
        std::fs::write(&file, b"c").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let reported = |event: &WatchEvent| matches!(event, WatchEvent::Paths(paths, _) if paths.contains(&file));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if events.recv_timeout(left).unwrap().iter().any(reported) {
                break;
            }
        }
        watcher.remove(id);
    }
}
