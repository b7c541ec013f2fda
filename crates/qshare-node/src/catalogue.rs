//! What we announce: everything that we share, and every change to it in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use qshare_content::{AssetName, ContentId, ContentInfo};
use qshare_wire::tracker::{Entry, EntryKey, EntryKind};
use tokio::sync::broadcast;

/// Changes that a slow tracker connection may lag behind before it announces everything anew.
const DELTAS_KEPT: usize = 4096;

/// One difference to what was announced.
#[derive(Debug, Clone)]
pub(crate) enum Delta {
    Upsert(Arc<Entry>),
    Remove(Arc<EntryKey>),
}

/// Everything that we share, by name and content.
#[derive(Debug)]
pub(crate) struct Catalogue {
    entries: Mutex<BTreeMap<(AssetName, ContentId), Arc<Entry>>>,
    deltas: broadcast::Sender<Delta>,
}

impl Catalogue {
    pub(crate) fn new() -> Catalogue {
        Catalogue {
            entries: Mutex::default(),
            deltas: broadcast::Sender::new(DELTAS_KEPT),
        }
    }

    /// Announces a content under a name, or that it became complete or partial.
    pub(crate) fn upsert(&self, name: AssetName, info: ContentInfo, complete: bool) {
        let mut entries = self.lock();
        let key = (name, info.id());
        if entries
            .get(&key)
            .is_some_and(|entry| entry.complete == complete)
        {
            return;
        }
        let entry = Arc::new(Entry {
            name: key.0.clone(),
            kind: EntryKind::File,
            info,
            complete,
            flags: 0,
            metadata: Vec::new(),
        });
        entries.insert(key, entry.clone());
        // Sent under the lock, so that the order of changes is the order of words. Nobody
        // listening is fine: whoever comes later reads the entries.
        let _ = self.deltas.send(Delta::Upsert(entry));
    }

    /// Announces that a content is gone.
    pub(crate) fn remove(&self, name: &AssetName, content: ContentId) {
        let mut entries = self.lock();
        if entries.remove(&(name.clone(), content)).is_some() {
            let key = EntryKey {
                name: name.clone(),
                content,
            };
            let _ = self.deltas.send(Delta::Remove(Arc::new(key)));
        }
    }

    /// Everything there is now, and every change from now on.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Entry>>, broadcast::Receiver<Delta>) {
        let entries = self.lock();
        (entries.values().cloned().collect(), self.deltas.subscribe())
    }

    /// Number of complete entries and the sum of their lengths in bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let entries = self.lock();
        let complete = entries.values().filter(|entry| entry.complete);
        complete.fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + entry.info.length)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(AssetName, ContentId), Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
