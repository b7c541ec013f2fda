//! Downloads: served while they run, adopted when they are finished.

use std::path::PathBuf;
use std::sync::Arc;

use qshare_content::{AssetName, ContentInfo, Hash, ShareKey};
use qshare_storage::{HashOptions, SharedFile};
use tracing::{debug, warn};

use super::{ShareStore, asset};
use crate::runtime::blocking;
use crate::shares::collections::Membership;
use crate::shares::contents::PartialContent;

/// A finished download.
pub(crate) struct Finished {
    pub(crate) name: AssetName,
    pub(crate) info: ContentInfo,
    pub(crate) path: PathBuf,
    /// The chunk hashes; empty if unknown, and for a content of one chunk.
    pub(crate) hashes: Vec<Hash>,
    /// Whether the target lies beneath a directory that may be shared.
    pub(crate) is_beneath: bool,
    /// Whether to serve the file until the node stops if it is in no shared directory.
    pub(crate) keep_serving: bool,
    /// The key of a private share.
    pub(crate) share_key: Option<ShareKey>,
    /// The collection that it is a member of.
    pub(crate) member: Option<Membership>,
}

impl ShareStore {
    /// Serves an unfinished download. It is not announced yet: that needs its chunk hashes.
    pub(crate) fn offer(&self, partial: &Arc<PartialContent>) {
        if let Some(member) = &partial.member {
            return member.offer(partial);
        }
        match &partial.share_key {
            Some(key) => self.private.offer(key, partial),
            None => self.contents.insert(partial.clone()),
        }
    }

    /// Announces an unfinished download that is served already.
    pub(crate) fn announce(&self, name: &AssetName, partial: &PartialContent) {
        if partial.member.is_some() || partial.is_unannounced {
            return;
        }
        match &partial.share_key {
            Some(key) => self.private.announce(key, partial),
            None => self.catalogue.upsert(asset(name, partial.info), false),
        }
    }

    /// Stops serving and announcing an unfinished download.
    pub(crate) fn withdraw(&self, name: &AssetName, partial: &Arc<PartialContent>) {
        if self.stop_serving(partial) {
            self.catalogue.remove(asset(name, partial.info));
        }
    }

    /// Stops serving a download that was [adopted](Self::adopt). Its announcement stays if the
    /// content is still served from elsewhere.
    pub(crate) fn withdraw_adopted(&self, name: &AssetName, partial: &Arc<PartialContent>) {
        if self.stop_serving(partial) && self.find(&partial.info.id()).is_none() {
            self.catalogue.remove(asset(name, partial.info));
        }
    }

    /// Stops serving an unfinished download. Returns whether it was for everybody, so that the
    /// catalogue may list it.
    fn stop_serving(&self, partial: &Arc<PartialContent>) -> bool {
        if let Some(member) = &partial.member {
            member.withdraw(partial);
            return false;
        }
        if let Some(key) = &partial.share_key {
            self.private.withdraw(key, partial);
            return false;
        }
        self.contents.remove(partial);
        true
    }

    /// Adopts a finished download. The library takes it if it is in a shared directory. Otherwise
    /// it is served until the node stops, if the request asked for that.
    pub(crate) async fn adopt(&self, finished: Finished) {
        let Finished {
            name,
            info,
            path,
            hashes,
            is_beneath,
            keep_serving,
            share_key,
            member,
        } = finished;
        if let Some(Membership { collection, at }) = member {
            if let Some(library) = self.contents.library().filter(|_| is_beneath).cloned() {
                let (path, hashes) = (path.clone(), hashes.clone());
                // Without it, the library hashes the file once more.
                if let Err(error) = blocking(move || library.adopt(&path, info, &hashes)).await {
                    debug!(%name, %error, "the index does not get a file of a folder");
                }
            }
            if let Err(error) = blocking(move || collection.adopt(at, hashes)).await {
                warn!(%name, %error, "cannot serve a file of a folder");
            }
            return;
        }
        let library = self.contents.library().filter(|_| is_beneath).cloned();
        if let Some(library) = library {
            if let Err(error) = blocking(move || library.adopt(&path, info, &hashes)).await {
                warn!(%name, %error, "cannot share a finished download");
            }
        } else if keep_serving {
            let opened = blocking(move || match hashes.is_empty() && info.length > 0 {
                true => SharedFile::hashed(&path, &HashOptions::default()),
                false => SharedFile::new(&path, info, hashes),
            });
            match opened.await {
                Ok(file) if file.info() == info => {
                    self.add_file(&name, Arc::new(file), share_key.as_ref());
                }
                Ok(_) => warn!(%name, "the finished file changed and is not served"),
                Err(error) => warn!(%name, %error, "cannot serve a finished download"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use qshare_content::{ChunkIndex, tree};
    use qshare_storage::{Opened, Part, PartOptions, Target};
    use tokio::sync::broadcast;

    use super::*;
    use crate::shares::catalogue::Announced;
    use crate::shares::contents::Holding;

    async fn empty() -> ShareStore {
        ShareStore::open(None, broadcast::Sender::new(8))
            .await
            .unwrap()
    }

    fn partial(dir: &Path, length: u64) -> Arc<PartialContent> {
        let info = ContentInfo {
            length,
            root: Hash([7; 32]),
        };
        let target = Target::Path(dir.join("file"));
        match Part::open(&target, info, &PartOptions::default()).unwrap() {
            Opened::Part(part) => Arc::new(PartialContent::new(info, Arc::new(part), None)),
            Opened::Complete { .. } => panic!("there was no file"),
        }
    }

    fn announced(store: &ShareStore) -> Vec<(String, bool)> {
        let (entries, _) = store.subscribe();
        let entry = |entry: &Announced| (entry.asset.name.to_string(), entry.complete);
        entries.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn a_partial_download_is_served_before_it_is_announced_and_withdrawn_from_both() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = (empty().await, AssetName::new("file").unwrap());
        let partial = partial(dir.path(), 8 << 20);
        let id = partial.info.id();
        store.offer(&partial);
        assert!(matches!(store.find(&id), Some(Holding::Partial(_))));
        assert_eq!(announced(&store), []);
        store.announce(&name, &partial);
        assert_eq!(announced(&store), [("file".to_owned(), false)]);
        store.withdraw(&name, &partial);
        assert!(store.find(&id).is_none());
        assert_eq!(announced(&store), []);
    }

    #[tokio::test]
    async fn verified_chunks_are_recorded_in_the_part_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let partial = partial(dir.path(), 8 << 20);
        let (before, mut batches) = partial.subscribe();
        assert_eq!(before.count(), 0);
        let holding = Holding::Partial(partial.clone());
        assert!(!holding.has(ChunkIndex(1)));
        partial.mark_verified(ChunkIndex(1));
        assert!(holding.has(ChunkIndex(1)) && !partial.is_complete());
        assert_eq!(&*batches.try_recv().unwrap(), [ChunkIndex(1)]);
        assert!(partial.subscribe().0.contains(ChunkIndex(1)));
    }

    #[tokio::test]
    async fn a_finished_file_replaces_its_partial_download_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = (empty().await, AssetName::new("file").unwrap());
        let bytes = b"hello";
        let info = ContentInfo {
            length: bytes.len() as u64,
            root: tree::leaf_hash(bytes),
        };
        let path = dir.path().join("other");
        std::fs::write(&path, bytes).unwrap();
        let finished = Finished {
            name: name.clone(),
            info,
            path,
            hashes: Vec::new(),
            is_beneath: false,
            keep_serving: true,
            share_key: None,
            member: None,
        };
        store.adopt(finished).await;
        assert!(matches!(store.find(&info.id()), Some(Holding::File(_))));
        assert_eq!(announced(&store), [("file".to_owned(), true)]);
        let partial = partial(dir.path(), 8 << 20);
        store.offer(&partial);
        store.announce(&AssetName::new("part").unwrap(), &partial);
        // Nothing else serves this content.
        store.withdraw_adopted(&AssetName::new("part").unwrap(), &partial);
        assert_eq!(announced(&store), [("file".to_owned(), true)]);
    }
}
