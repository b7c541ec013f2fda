//! Opening paths beneath a directory without following symbolic links.
//!
//! The path comes from the network, and a component may be a link. Each component is opened
//! relative to its parent with `O_NOFOLLOW`, which works on every Unix and in every sandbox.
//! Linux's `openat2(RESOLVE_BENEATH)` needs fewer calls, but missing directories are created one
//! by one anyway.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

use crate::system::Dir;

/// The result of [`open_dir`].
pub(crate) struct Reached {
    /// The directory.
    pub(crate) dir: Dir,
    /// The directories in which another one was created, for a caller that flushes them.
    pub(crate) changed: Vec<Dir>,
}

/// Opens `relative` (plain components only) beneath `base`. Creates missing directories if `make`.
pub(crate) fn open_dir(base: Dir, relative: &Path, make: bool) -> io::Result<Reached> {
    let mut dir = base;
    let mut changed = Vec::new();
    for component in relative.components() {
        let Component::Normal(name) = component else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let next = match dir.open_dir(name) {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                let next = make_dir(&dir, name)?;
                changed.push(std::mem::replace(&mut dir, next));
                continue;
            }
            opened => opened?,
        };
        dir = next;
    }
    Ok(Reached { dir, changed })
}

fn make_dir(dir: &Dir, name: &OsStr) -> io::Result<Dir> {
    match dir.make_dir(name) {
        // Another download may have created it just now.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => dir.open_dir(name),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::system::Access;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_directories_are_made_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let base = || Dir::open(temp.path()).unwrap();
        let reached = open_dir(base(), Path::new("a/b/c"), true).unwrap();
        assert_eq!(reached.changed.len(), 3);
        let file = OsStr::new("f");
        reached.dir.open_file(file, Access::EditOrCreate).unwrap();
        assert!(temp.path().join("a/b/c/f").is_file());

        symlink(outside.path(), temp.path().join("link")).unwrap();
        for path in ["link", "link/x"] {
            let error = open_dir(base(), Path::new(path), true).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{path}");
        }
        symlink(outside.path().join("x"), temp.path().join("a/f")).unwrap();
        let a = open_dir(base(), Path::new("a"), false).unwrap().dir;
        for access in [Access::Read, Access::Edit, Access::EditOrCreate] {
            assert!(a.open_file(file, access).is_err(), "{access:?}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn paths_that_climb_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["..", "a/../..", "/etc"] {
            let base = Dir::open(temp.path()).unwrap();
            assert!(open_dir(base, Path::new(path), true).is_err(), "{path}");
        }
    }
}
