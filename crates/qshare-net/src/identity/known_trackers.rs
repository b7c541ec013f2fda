//! Trackers whose keys were seen before, as SSH remembers hosts.
//!
//! `known_trackers`, in the directory of the identities: one line a tracker,
//! `HOST:PORT TRACKERID`. Empty lines and lines that begin with `#` are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use qshare_content::{NodeId, TrackerAddress};

/// Why a tracker is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It is not the one that was seen before under this address.
    #[error(
        "the tracker at {place} has another key than before: it was {known} and now is {found}. \
         Somebody may be impersonating it; if it really was set up anew, run `qshare forget {place}`"
    )]
    KeyChanged {
        /// `HOST:PORT`.
        place: String,
        /// The id in `known_trackers`.
        known: NodeId,
        /// The id that it proved now.
        found: NodeId,
    },
    /// It is not the one whose id was given.
    #[error("the tracker at {place} is {found}, not {wanted} as its address demands")]
    NotThePinned {
        /// `HOST:PORT`.
        place: String,
        /// The id in the address.
        wanted: NodeId,
        /// The id that it proved.
        found: NodeId,
    },
    /// The file cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The file of remembered keys.
#[derive(Debug, Clone)]
pub struct KnownTrackers {
    path: PathBuf,
}

impl KnownTrackers {
    /// The file in the directory of the identities; it need not exist.
    pub fn in_dir(dir: &Path) -> KnownTrackers {
        KnownTrackers {
            path: dir.join("known_trackers"),
        }
    }

    /// Decides whether the tracker that answered at `seen_at` is the one that `address` means,
    /// and remembers it when it is seen for the first time.
    ///
    /// A pinned id decides alone. Loopback addresses are never remembered: anything may listen
    /// there next.
    pub fn check(
        &self,
        address: &TrackerAddress,
        seen_at: SocketAddr,
        found: NodeId,
    ) -> Result<(), TrustError> {
        let place = address.host_port();
        if let Some(wanted) = address.id {
            return if wanted == found {
                Ok(())
            } else {
                Err(TrustError::NotThePinned {
                    place,
                    wanted,
                    found,
                })
            };
        }
        if seen_at.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        match self.known(&place)? {
            Some(known) if known == found => Ok(()),
            Some(known) => Err(TrustError::KeyChanged {
                place,
                known,
                found,
            }),
            None => self.update(|lines| {
                // Another process may have been first.
                if known_in(lines, &place).is_none() {
                    lines.push(format!("{place} {found}"));
                }
            }),
        }
    }

    /// Drops what is remembered of a tracker; false if there was nothing.
    pub fn forget(&self, address: &TrackerAddress) -> Result<bool, TrustError> {
        let place = address.host_port();
        if self.known(&place)?.is_none() {
            return Ok(false);
        }
        self.update(|lines| lines.retain(|line| parse(line).is_none_or(|(at, _)| at != place)))?;
        Ok(true)
    }

    fn known(&self, place: &str) -> Result<Option<NodeId>, TrustError> {
        Ok(known_in(&self.lines()?, place))
    }

    fn lines(&self) -> Result<Vec<String>, TrustError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().map(String::from).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(self.io(cause)),
        }
    }

    /// Rewrites the file under a lock, by way of a temporary one.
    fn update(&self, change: impl FnOnce(&mut Vec<String>)) -> Result<(), TrustError> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(|cause| self.io(cause))?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.with_extension("lock"))
            .map_err(|cause| self.io(cause))?;
        lock.lock().map_err(|cause| self.io(cause))?;
        let mut lines = self.lines()?;
        change(&mut lines);
        let text: String = lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect();
        let temporary = self.path.with_extension("tmp");
        File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &self.path))
            .map_err(|cause| self.io(cause))
    }

    fn io(&self, cause: io::Error) -> TrustError {
        TrustError::Io {
            path: self.path.clone(),
            cause,
        }
    }
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
