//! The directory of the identities.

use std::path::{Path, PathBuf};

use etcetera::app_strategy::{AppStrategy, AppStrategyArgs, choose_app_strategy};

use super::IdentityError;
use super::created;

/// Files of `./certs` that decide who this process is and which trackers it trusts.
const DECISIVE: [&str; 3] = ["node.key", "tracker.key", super::KNOWN_TRACKERS];

/// The directory in which identities and remembered tracker keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityDir {
    /// The directory.
    pub path: PathBuf,
    /// `./certs`, if it asks to be used and was not, because its keys or remembered trackers are
    /// not from here: an unpacked archive or a checkout may contain them.
    pub ignored: Option<PathBuf>,
}

/// Returns the directory of the identities: `given`; else `./certs` if it contains a file
/// `.qshare`, and no keys or remembered trackers but those that qshare created there itself, as the
/// user's data directory records; else the user's data directory.
///
/// # Errors
///
/// [`IdentityError::NoDirectory`] if the user has no data directory.
pub fn default_identity_dir(given: Option<&Path>) -> Result<IdentityDir, IdentityError> {
    let found = |path| IdentityDir {
        path,
        ignored: None,
    };
    if let Some(dir) = given {
        return Ok(found(dir.into()));
    }
    choose(Path::new("certs"), user_data_dir())
}

fn choose(certs: &Path, data_dir: Option<PathBuf>) -> Result<IdentityDir, IdentityError> {
    let asks = certs.join(created::MARKER).exists();
    let is_planted = |name: &&str| {
        let path = certs.join(name);
        // A link that leads nowhere counts: qshare would write through it.
        path.symlink_metadata().is_ok()
            && !data_dir
                .as_deref()
                .is_some_and(|data_dir| created::is_recorded(data_dir, &path))
    };
    let is_foreign = asks && DECISIVE.iter().any(is_planted);
    if asks && !is_foreign {
        return Ok(IdentityDir {
            path: certs.into(),
            ignored: None,
        });
    }
    Ok(IdentityDir {
        path: data_dir.ok_or(IdentityError::NoDirectory)?,
        ignored: is_foreign.then(|| certs.into()),
    })
}

/// Returns qshare's directory among the user's data; None for a user without a home.
pub(super) fn user_data_dir() -> Option<PathBuf> {
    let app = AppStrategyArgs {
        top_level_domain: String::new(),
        author: String::new(),
        app_name: "qshare".into(),
    };
    choose_app_strategy(app).ok().map(|user| user.data_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct World {
        _dir: tempfile::TempDir,
        certs: PathBuf,
        data: PathBuf,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let [certs, data] = ["certs", "data"].map(|name| dir.path().join(name));
        fs::create_dir(&certs).unwrap();
        World {
            _dir: dir,
            certs,
            data,
        }
    }

    impl World {
        fn chosen(&self) -> IdentityDir {
            choose(&self.certs, Some(self.data.clone())).unwrap()
        }

        fn uses_certs(&self) -> bool {
            let chosen = self.chosen();
            assert_eq!(chosen.ignored.is_none(), chosen.path == self.certs);
            chosen.path == self.certs
        }
    }

    #[test]
    fn a_directory_certs_is_used_only_if_it_asks_to_be() {
        let world = world();
        let chosen = world.chosen();
        assert_eq!((chosen.path, chosen.ignored), (world.data.clone(), None));
        fs::write(world.certs.join(".qshare"), "").unwrap();
        assert!(world.uses_certs());
    }

    #[test]
    fn a_planted_key_or_known_tracker_is_not_used() {
        for name in DECISIVE {
            let world = world();
            fs::write(world.certs.join(".qshare"), "").unwrap();
            fs::write(world.certs.join(name), "planted").unwrap();
            assert!(!world.uses_certs(), "{name}");
        }
    }

    #[test]
    fn what_qshare_created_there_is_used_until_somebody_else_replaces_it() {
        let world = world();
        fs::write(world.certs.join(".qshare"), "").unwrap();
        let key = world.certs.join("node.key");
        created::record(&world.data, &key, b"ours").unwrap();
        fs::write(&key, "ours").unwrap();
        assert!(world.uses_certs());
        // The same bytes elsewhere are a copy.
        fs::write(world.certs.join("tracker.key"), "ours").unwrap();
        assert!(!world.uses_certs());
        fs::remove_file(world.certs.join("tracker.key")).unwrap();
        fs::write(&key, "a checkout's").unwrap();
        assert!(!world.uses_certs());
    }

    #[test]
    fn without_a_data_directory_nothing_planted_is_used_either() {
        let world = world();
        fs::write(world.certs.join(".qshare"), "").unwrap();
        assert_eq!(choose(&world.certs, None).unwrap().path, world.certs);
        fs::write(world.certs.join("node.key"), "planted").unwrap();
        assert!(matches!(
            choose(&world.certs, None),
            Err(IdentityError::NoDirectory)
        ));
    }
}
