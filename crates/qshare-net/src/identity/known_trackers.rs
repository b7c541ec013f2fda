//! Remembered keys of trackers, trusted on first use as SSH trusts hosts.
//!
//! `known_trackers`, in the directory of the identities: one line a tracker,
//! `HOST:PORT TRACKERID`. Empty lines and lines that begin with `#` are kept.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::{NodeId, TrackerAddress};
use tracing::warn;

use super::{created, private_file};

/// Why a tracker is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not the one that was seen before at this address.
    #[error(
        "the tracker at {place} has another key than before: its ID was {known} and now is {found}"
    )]
    KeyChanged {
        /// `HOST:PORT`.
        place: String,
        /// The remembered id.
        known: NodeId,
        /// The id that it proved now.
        found: NodeId,
    },
    /// It is not the one whose id was given.
    #[error("the tracker at {place} has the ID {found}, but its address names {wanted}")]
    NotThePinned {
        /// `HOST:PORT`.
        place: String,
        /// The id in the address.
        wanted: NodeId,
        /// The id that it proved.
        found: NodeId,
    },
    /// The file is damaged, or cannot be changed.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// The remembered keys of trackers. Clones share them.
///
/// Where the file cannot be read or written, keys are remembered for as long as the process runs,
/// and a warning is logged.
#[derive(Debug, Clone)]
pub struct KnownTrackers {
    /// None remembers in memory only.
    path: Option<PathBuf>,
    /// Keys that the file could not take, by `HOST:PORT`.
    in_memory: Arc<Mutex<HashMap<String, NodeId>>>,
}

impl KnownTrackers {
    /// Uses the file in the directory of the identities; it need not exist.
    pub fn in_dir(dir: &Path) -> KnownTrackers {
        KnownTrackers {
            path: Some(dir.join(super::KNOWN_TRACKERS)),
            in_memory: Arc::default(),
        }
    }

    /// Remembers keys for as long as the process runs.
    pub fn in_memory() -> KnownTrackers {
        KnownTrackers {
            path: None,
            in_memory: Arc::default(),
        }
    }

    /// Decides whether the tracker that answered at `seen_at` is the one that `address` means,
    /// and remembers it when it is seen for the first time.
    ///
    /// A pinned id decides alone. Loopback addresses are never remembered: any program may listen
    /// there next.
    pub fn check(
        &self,
        address: &TrackerAddress,
        seen_at: SocketAddr,
        found: NodeId,
    ) -> Result<(), TrustError> {
        let place = address.host_port();
        if let Some(wanted) = address.id {
            return match wanted == found {
                true => Ok(()),
                false => Err(TrustError::NotThePinned {
                    place,
                    wanted,
                    found,
                }),
            };
        }
        if seen_at.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        match self.remember(&place, found)? {
            known if known == found => Ok(()),
            known => Err(TrustError::KeyChanged {
                place,
                known,
                found,
            }),
        }
    }

    /// Returns the remembered id of a tracker, which is `found` if there was none. Of several
    /// first contacts at once, one is remembered and all get that one's id.
    fn remember(&self, place: &str, found: NodeId) -> Result<NodeId, TrustError> {
        if let Some(&known) = self.memory().get(place) {
            return Ok(known);
        }
        let Some(path) = &self.path else {
            return Ok(self.remember_in_memory(place, found));
        };
        let lines = match lines(path) {
            Ok(lines) => lines,
            Err(cause) if cause.kind() == io::ErrorKind::InvalidData => {
                return Err(self.io(path, cause));
            }
            Err(cause) => {
                warn!(file = %path.display(), %cause, "cannot read remembered tracker keys");
                return Ok(self.remember_in_memory(place, found));
            }
        };
        if let Some(known) = known_in(&lines, place) {
            return Ok(known);
        }
        // Decided under the lock: another process may have been first.
        let updated = update(path, |lines| match known_in(lines, place) {
            Some(known) => known,
            None => {
                lines.push(format!("{place} {found}"));
                found
            }
        });
        match updated {
            Ok(known) => Ok(known),
            Err(cause) => {
                warn!(
                    file = %path.display(), %cause,
                    "cannot remember the key of tracker {place} beyond this process"
                );
                Ok(self.remember_in_memory(place, found))
            }
        }
    }

    fn remember_in_memory(&self, place: &str, found: NodeId) -> NodeId {
        *self.memory().entry(place.to_owned()).or_insert(found)
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, NodeId>> {
        self.in_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the key of a tracker; returns false if there was none.
    pub fn forget(&self, address: &TrackerAddress) -> Result<bool, TrustError> {
        let place = address.host_port();
        let was_in_memory = self.memory().remove(&place).is_some();
        let Some(path) = &self.path else {
            return Ok(was_in_memory);
        };
        let lines = lines(path).map_err(|cause| self.io(path, cause))?;
        if known_in(&lines, &place).is_none() {
            return Ok(was_in_memory);
        }
        update(path, |lines| {
            lines.retain(|line| parse(line).is_none_or(|(at, _)| at != place));
        })
        .map_err(|cause| self.io(path, cause))?;
        Ok(true)
    }

    fn io(&self, path: &Path, cause: io::Error) -> TrustError {
        TrustError::Io {
            path: path.into(),
            cause,
        }
    }
}

fn lines(path: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(String::from).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Rewrites the file under a lock, if it changes.
fn update<T>(path: &Path, change: impl FnOnce(&mut Vec<String>) -> T) -> io::Result<T> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let lock = private_file::open_lock(&path.with_extension("lock"))?;
    lock.lock()?;
    let before = lines(path)?;
    let mut lines = before.clone();
    let result = change(&mut lines);
    if lines != before {
        let text: String = lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect();
        // Where that fails, the directory has to be named next time.
        let _ = created::note(path, text.as_bytes());
        private_file::replace(path, text.as_bytes())?;
    }
    Ok(result)
}

fn parse(line: &str) -> Option<(&str, NodeId)> {
    let (place, id) = line.trim().split_once(char::is_whitespace)?;
    Some((place, id.trim().parse().ok()?))
}

fn known_in(lines: &[String], place: &str) -> Option<NodeId> {
    lines
        .iter()
        .filter_map(|line| parse(line))
        .find(|(at, _)| *at == place)
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn place(text: &str) -> TrackerAddress {
        text.parse().unwrap()
    }

    const FAR: &str = "192.0.2.1:65000";

    #[test]
    fn a_tracker_is_trusted_on_first_use_and_then_held_to_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownTrackers::in_dir(dir.path());
        let (address, seen_at) = (place("tracker.example"), FAR.parse().unwrap());
        known.check(&address, seen_at, id(1)).unwrap();
        known.check(&address, seen_at, id(1)).unwrap();
        let changed = known.check(&address, seen_at, id(2));
        assert!(matches!(changed, Err(TrustError::KeyChanged { .. })));
        assert!(known.forget(&address).unwrap());
        assert!(!known.forget(&address).unwrap());
        known.check(&address, seen_at, id(2)).unwrap();
    }

    #[test]
    fn of_first_contacts_at_once_with_different_keys_one_is_trusted() {
        const CONTACTS: u8 = 8;
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(CONTACTS.into());
            let trusted: Vec<NodeId> = std::thread::scope(|scope| {
                let contacts: Vec<_> = (0..CONTACTS)
                    .map(|key| {
                        let (dir, barrier) = (dir.path(), &barrier);
                        scope.spawn(move || {
                            let known = KnownTrackers::in_dir(dir);
                            let address = place("tracker.example");
                            barrier.wait();
                            let checked = known.check(&address, FAR.parse().unwrap(), id(key));
                            checked.is_ok().then_some(id(key))
                        })
                    })
                    .collect();
                let ended = contacts.into_iter().map(|contact| contact.join().unwrap());
                ended.flatten().collect()
            });
            assert_eq!(trusted.len(), 1, "round {round}: {trusted:?}");
        }
    }

    #[test]
    fn without_a_place_for_the_file_keys_are_remembered_by_the_process() {
        let dir = tempfile::tempdir().unwrap();
        // A file where the directory should be, which not even root gets around.
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for known in [KnownTrackers::in_dir(&file), KnownTrackers::in_memory()] {
            let (address, seen_at) = (place("tracker.example"), FAR.parse().unwrap());
            known.check(&address, seen_at, id(1)).unwrap();
            let again = known.clone();
            again.check(&address, seen_at, id(1)).unwrap();
            let changed = again.check(&address, seen_at, id(2));
            assert!(matches!(changed, Err(TrustError::KeyChanged { .. })));
        }
    }

    #[test]
    fn a_pin_decides_alone_and_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownTrackers::in_dir(dir.path());
        let pinned = place(&format!("{}@tracker.example", id(1)));
        known.check(&pinned, FAR.parse().unwrap(), id(1)).unwrap();
        let other = known.check(&pinned, FAR.parse().unwrap(), id(2));
        assert!(matches!(other, Err(TrustError::NotThePinned { .. })));
        known
            .check(&place("tracker.example"), FAR.parse().unwrap(), id(3))
            .unwrap();
    }

    #[test]
    fn loopback_is_never_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownTrackers::in_dir(dir.path());
        for found in [id(1), id(2)] {
            known
                .check(&place("localhost"), "[::1]:65000".parse().unwrap(), found)
                .unwrap();
        }
    }

    #[test]
    fn other_lines_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_trackers");
        fs::write(&path, format!("# mine\nother:1 {}\nnonsense\n", id(9))).unwrap();
        let known = KnownTrackers::in_dir(dir.path());
        known
            .check(&place("new:2"), FAR.parse().unwrap(), id(1))
            .unwrap();
        known.forget(&place("new:2")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("# mine\nother:1 {}\nnonsense\n", id(9)));
    }
}
