//! Plain SHA-256 digests of shared files, for `node --sha256`.
//!
//! A thread of low priority computes them, one file after the other, and verifies each chunk
//! against the hash tree as it reads it: a digest that is kept belongs to its content, whatever
//! happens to the file meanwhile. A content has one digest for ever, so digests are kept in a file
//! by content and computed once.
//!
//! ```text
//! content ID 32 │ SHA-256 32      for each content, the newest last
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use qshare_content::{Chunks, ContentId, Hash, PlainDigest, tree};
use qshare_storage::{Asset, ReadError};
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, warn};

use super::Delta;
use super::store::ShareStore;
use crate::error::StartError;

/// The name of the thread.
const THREAD: &str = "qshare-digest";
/// The name of the file in the state directory.
const FILE_NAME: &str = "digests";
/// Bytes of a record.
const RECORD_BYTES: usize = 64;
/// Niceness of the thread, added to that of its parent: every other thread goes first.
#[cfg(target_os = "linux")]
const NICE: i32 = 14;

/// Starts the thread that computes and states the digests of all complete public files. It ends
/// with the store. With a state directory, digests survive a restart.
///
/// # Errors
///
/// When the system refuses to start a thread. A file of digests that cannot be read or written
/// costs computing them again, and is logged.
pub(crate) fn start(
    shares: &Arc<ShareStore>,
    state_dir: Option<PathBuf>,
) -> Result<(), StartError> {
    let kept = state_dir.map(|dir| Kept::open(dir.join(FILE_NAME)));
    let kept = kept.map(|(kept, known)| {
        shares.know_digests(known.into_iter());
        kept
    });
    let weak = Arc::downgrade(shares);
    let run = move || run(&weak, kept);
    let started = std::thread::Builder::new().name(THREAD.into()).spawn(run);
    started.map(drop).map_err(|cause| StartError::Thread {
        name: THREAD,
        cause,
    })
}

fn run(shares: &Weak<ShareStore>, mut kept: Option<Kept>) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICE);
    // Contents that could not be read are tried again when they are announced again.
    while let Some(store) = shares.upgrade() {
        let (entries, mut deltas) = store.subscribe();
        drop(store);
        for entry in entries {
            if entry.complete && entry.sha256.is_none() {
                state(shares, &mut kept, &entry.asset);
            }
        }
        loop {
            match deltas.blocking_recv() {
                Ok(Delta::Upsert(entry)) if entry.complete && entry.sha256.is_none() => {
                    state(shares, &mut kept, &entry.asset);
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// States the digest of an asset, and computes it if it is not known.
fn state(shares: &Weak<ShareStore>, kept: &mut Option<Kept>, asset: &Arc<Asset>) {
    if asset.is_collection {
        return;
    }
    let known = shares
        .upgrade()
        .and_then(|store| store.digest_of(&asset.id));
    let digest = match known {
        Some(digest) => Ok(digest),
        None => compute(shares, &asset.id),
    };
    match digest {
        Ok(digest) => {
            if let (None, Some(kept)) = (known, kept)
                && let Err(error) = kept.add(asset.id, digest)
            {
                warn!(path = %kept.path.display(), %error, "cannot keep a digest");
            }
            if let Some(store) = shares.upgrade() {
                store.state_digest(asset, digest);
            }
        }
        // The file is gone or was changed; the new one is announced, too.
        Err(error) => debug!(name = %asset.name, %error, "no digest"),
    }
}

/// Computes the digest of a public content.
fn compute(shares: &Weak<ShareStore>, id: &ContentId) -> Result<Hash, ReadError> {
    let mut digest = PlainDigest::default();
    let mut bytes = Vec::new();
    let mut hashes = Vec::new();
    // Upgraded for each chunk, so that the node can stop meanwhile.
    let store = || shares.upgrade().ok_or(ReadError::NotHere);
    let holding = store()?.find(id).ok_or(ReadError::NotHere)?;
    let info = holding.info();
    let chunks = Chunks::of_length(info.length);
    for chunk in chunks.indices() {
        let store = store()?;
        let in_page = chunk.0 % tree::PAGE_CHUNKS;
        if in_page == 0 {
            hashes = match chunks.count() {
                1 => vec![info.root],
                _ => {
                    store
                        .hash_page(&holding, chunk.0 / tree::PAGE_CHUNKS)?
                        .hashes
                }
            };
        }
        bytes.resize(chunks.size(chunk) as usize, 0);
        store.read_into(&holding, chunk, chunks.range(chunk).start, &mut bytes)?;
        if hashes.get(in_page as usize) != Some(&tree::chunk_hash(&chunks, &bytes)) {
            return Err(ReadError::Changed);
        }
        digest.update(&bytes);
    }
    Ok(digest.finish())
}

/// The file of digests.
struct Kept {
    path: PathBuf,
    file: Option<File>,
}

impl Kept {
    /// Reads the digests of earlier runs. An incomplete record at the end is ignored.
    fn open(path: PathBuf) -> (Kept, Vec<(ContentId, Hash)>) {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read the digests of earlier runs");
                Vec::new()
            }
        };
        let records = bytes.chunks_exact(RECORD_BYTES).filter_map(|record| {
            let (content, digest) = record.split_first_chunk::<32>()?;
            Some((ContentId(*content), Hash(digest.try_into().ok()?)))
        });
        let known = records.collect();
        (Kept { path, file: None }, known)
    }

    fn add(&mut self, content: ContentId, digest: Hash) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let mut options = OpenOptions::new();
                let file = options.create(true).append(true).open(&self.path)?;
                // A record that a crash cut short would shift all later ones.
                let length = file.metadata()?.len();
                file.set_len(length - length % RECORD_BYTES as u64)?;
                none.insert(file)
            }
        };
        file.write_all(&[content.0, digest.0].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_survive_a_restart_and_a_record_that_was_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let record = |byte| (ContentId([byte; 32]), Hash([byte + 100; 32]));
        let (mut kept, known) = Kept::open(path.clone());
        assert!(known.is_empty());
        kept.add(record(1).0, record(1).1).unwrap();
        let mut torn = fs::read(&path).unwrap();
        torn.extend([7; 40]);
        fs::write(&path, torn).unwrap();
        let (mut kept, known) = Kept::open(path.clone());
        assert_eq!(known, [record(1)]);
        kept.add(record(2).0, record(2).1).unwrap();
        assert_eq!(Kept::open(path).1, [record(1), record(2)]);
    }
}
