//! Lists of node IDs in files: who may announce, and who may not connect.
//!
//! Identities are free, so a list of refused nodes is a convenience, and no defence. A list of
//! allowed nodes does restrict who announces.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use qshare_content::NodeId;
use tracing::{info, warn};

/// Interval at which the files are checked for changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest list in bytes: a quarter of a million IDs.
const LIST_MAX_BYTES: u64 = 16 << 20;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessListError {
    /// The file cannot be read.
    #[error("cannot read the list of nodes {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The file is larger than a list may be.
    #[error("the list of nodes {} is larger than {LIST_MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// A line is neither empty, nor a comment, nor a node ID.
    #[error("line {line} of the list of nodes {} is no node ID", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// Who may announce at the tracker, and who may not connect. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// None allows every node to announce.
    allowed: Option<Arc<List>>,
    /// None denies no node.
    denied: Option<Arc<List>>,
}

/// A file of node IDs, one a line; `#` begins a comment.
#[derive(Debug)]
struct List {
    path: PathBuf,
    nodes: RwLock<HashSet<NodeId>>,
}

impl Access {
    /// Reads the lists. Blocks.
    pub(crate) fn open(
        allowed: Option<&Path>,
        denied: Option<&Path>,
    ) -> Result<Access, AccessListError> {
        let open = |path: Option<&Path>| path.map(List::open).transpose();
        Ok(Access {
            allowed: open(allowed)?,
            denied: open(denied)?,
        })
    }

    /// Whether a node may announce.
    pub(crate) fn may_announce(&self, node: &NodeId) -> bool {
        self.allowed.as_ref().is_none_or(|list| list.contains(node))
    }

    /// Whether a node may have a session.
    pub(crate) fn may_connect(&self, node: &NodeId) -> bool {
        !self.denied.as_ref().is_some_and(|list| list.contains(node))
    }

    /// Reads lists again when their files change, and calls `changed` then. A file that cannot be
    /// read leaves its list as it was. Never returns.
    pub(crate) async fn follow(self, changed: impl Fn(&Access)) {
        let lists: Vec<Arc<List>> = self.allowed.iter().chain(&self.denied).cloned().collect();
        let mut seen: Vec<Option<Stamp>> = lists.iter().map(|list| stamp(&list.path)).collect();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for (list, seen) in lists.iter().zip(&mut seen) {
                let (list, before) = (Arc::clone(list), *seen);
                let looked = tokio::task::spawn_blocking(move || list.reread(before)).await;
                if let Ok(Some(now)) = looked {
                    *seen = now;
                    changed(&self);
                }
            }
        }
    }
}

/// What tells one version of a file from another.
type Stamp = (SystemTime, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

impl List {
    fn open(path: &Path) -> Result<Arc<List>, AccessListError> {
        let nodes = RwLock::new(read(path)?);
        let path = path.to_owned();
        Ok(Arc::new(List { path, nodes }))
    }

    fn contains(&self, node: &NodeId) -> bool {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.contains(node)
    }

    /// Reads the file again if it is not the one seen before. Returns what it is now.
    fn reread(&self, before: Option<Stamp>) -> Option<Option<Stamp>> {
        let now = stamp(&self.path);
        if now == before {
            return None;
        }
        match read(&self.path) {
            Ok(nodes) => {
                info!(path = %self.path.display(), nodes = nodes.len(), "list of nodes read");
                *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
            }
            Err(error) => warn!(%error, "the list stays as it was"),
        }
        Some(now)
    }
}

fn read(path: &Path) -> Result<HashSet<NodeId>, AccessListError> {
    let failed = |cause| AccessListError::Io {
        path: path.to_owned(),
        cause,
    };
    if fs::metadata(path).map_err(failed)?.len() > LIST_MAX_BYTES {
        return Err(AccessListError::TooLarge(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let mut nodes = HashSet::new();
    for (at, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let node = entry.parse().map_err(|_| AccessListError::Line {
            path: path.to_owned(),
            line: at + 1,
        })?;
        nodes.insert(node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_id_a_line_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes");
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        fs::write(&path, format!("# lab\n{a}\n\n  {b} # printer\n")).unwrap();
        let access = Access::open(Some(&path), Some(&path)).unwrap();
        assert!(access.may_announce(&a) && access.may_announce(&b));
        assert!(!access.may_announce(&NodeId([3; 32])));
        assert!(!access.may_connect(&b) && access.may_connect(&NodeId([3; 32])));
        fs::write(&path, format!("{a}\nnode two\n")).unwrap();
        let error = Access::open(Some(&path), None).unwrap_err();
        assert!(matches!(error, AccessListError::Line { line: 2, .. }));
        let open = Access::open(None, None).unwrap();
        assert!(open.may_announce(&a) && open.may_connect(&a));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes");
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        fs::write(&path, a.to_string()).unwrap();
        let list = List::open(&path).unwrap();
        let before = stamp(&path);
        assert!(list.reread(before).is_none());
        fs::write(&path, format!("{a}\n{b}\n")).unwrap();
        let now = list.reread(before).unwrap();
        assert!(list.contains(&b));
        fs::write(&path, "nonsense").unwrap();
        let now = list.reread(now).unwrap();
        assert!(list.contains(&a) && list.contains(&b));
        fs::remove_file(&path).unwrap();
        assert_eq!(list.reread(now), Some(None));
        assert!(list.contains(&a));
    }
}
