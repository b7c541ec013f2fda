//! Being told what changes beneath the roots.
//!
//! Events are only hints where to look: whatever is hinted at is looked at anew. So a lost event
//! costs a look at everything, and a wrong one costs nothing.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use qshare_content::{META_SUFFIX, PART_SUFFIX};

/// Where to look.
pub(crate) enum Hint {
    /// At these paths, and beneath them.
    At(Vec<PathBuf>),
    /// At everything: events were lost.
    Everywhere,
    /// At everything, again and again: some directories cannot be watched.
    Blind(String),
}

/// Watches directories and all beneath them, as far as the system can.
pub(crate) struct Watch(Option<RecommendedWatcher>, Option<String>);

impl Watch {
    /// Watches nothing yet. `hint` is called from a thread of the watcher's.
    pub(crate) fn new(hint: impl Fn(Hint) + Send + 'static) -> Watch {
        let handler = move |event: notify::Result<Event>| {
            if let Some(found) = hint_of(event) {
                hint(found);
            }
        };
        let config = Config::default().with_follow_symlinks(false);
        match RecommendedWatcher::new(handler, config) {
            Ok(watcher) => Watch(Some(watcher), None),
            Err(error) => Watch(None, Some(error.to_string())),
        }
    }

    /// Watches a directory; what the system says if it cannot.
    pub(crate) fn add(&mut self, directory: &Path) -> Result<(), String> {
        let Watch(Some(watcher), _) = self else {
            return Err(self.1.clone().unwrap_or_default());
        };
        watcher
            .watch(directory, RecursiveMode::Recursive)
            .map_err(|error| error.to_string())
    }

    /// Watches a directory no more, if it was.
    pub(crate) fn remove(&mut self, directory: &Path) {
        if let Some(watcher) = &mut self.0 {
            // Gone together with the directory, as a rule.
            let _ = watcher.unwatch(directory);
        }
    }
}

fn hint_of(event: notify::Result<Event>) -> Option<Hint> {
    let event = match event {
        Ok(event) => event,
        Err(error) => return Some(Hint::Blind(error.to_string())),
    };
    if event.need_rescan() {
        return Some(Hint::Everywhere);
    }
    // We open and read files all the time ourselves.
    let reading = matches!(event.kind, EventKind::Access(kind)
        if kind != AccessKind::Close(AccessMode::Write));
    if reading {
        return None;
    }
    // Downloads in a shared directory would otherwise keep us busy.
    let shared = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        !(name.starts_with(b".")
            || name.ends_with(PART_SUFFIX.as_bytes())
            || name.ends_with(META_SUFFIX.as_bytes()))
    };
    let paths: Vec<_> = event.paths.into_iter().filter(shared).collect();
    (!paths.is_empty()).then_some(Hint::At(paths))
}
