//! What of a directory tree can be shared.

use std::io;
use std::path::{Path, PathBuf};

use qshare_content::{AssetName, NameError};

use crate::SkipReason;
use crate::stamp::Stamp;
use crate::system::stamp_of;

/// One thing beneath a root.
pub(crate) enum Found {
    /// A file that can be shared.
    File {
        relative: PathBuf,
        name: AssetName,
        stamp: Stamp,
    },
    /// Something that cannot, and somebody may wonder why.
    Skipped {
        relative: PathBuf,
        reason: SkipReason,
    },
}

/// What a path is to us.
pub(crate) enum Naming {
    /// It can be told to others under this name.
    Shared(AssetName),
    /// Hidden, or one of our own working files: passed over without a word.
    Silent,
    /// It cannot be told to others.
    Unfit(SkipReason),
}

/// The name of a path relative to its root.
pub(crate) fn naming(relative: &Path) -> Naming {
    let Some(text) = relative.to_str() else {
        return Naming::Unfit(SkipReason::NotUnicode);
    };
    match AssetName::from_local(text) {
        Ok(name) => Naming::Shared(name),
        Err(NameError::Hidden(_) | NameError::OwnSuffix(_)) => Naming::Silent,
        Err(error) => Naming::Unfit(error.into()),
    }
}

/// Reports what is at `start` (relative to `root`; a file or a directory) and beneath it.
/// `excluded` are paths relative to the root. Links are not followed, except that the root itself
/// may be one.
pub(crate) fn walk(root: &Path, start: &Path, excluded: &[PathBuf], mut found: impl FnMut(Found)) {
    let hidden = |path: &Path| {
        let mut components = path.components();
        components.any(|name| name.as_os_str().as_encoded_bytes().starts_with(b"."))
    };
    let out = |relative: &Path| excluded.iter().any(|path| relative.starts_with(path));
    if hidden(start) || out(start) {
        return;
    }
    let mut directories = Vec::new();
    let mut look = |relative: PathBuf, metadata: &std::fs::Metadata, into: &mut Vec<PathBuf>| {
        if metadata.is_dir() {
            into.push(relative);
        } else if metadata.is_file() {
            match naming(&relative) {
                Naming::Shared(name) => {
                    let stamp = stamp_of(metadata, &root.join(&relative));
                    found(Found::File {
                        relative,
                        name,
                        stamp,
                    });
                }
                Naming::Unfit(reason) => found(Found::Skipped { relative, reason }),
                Naming::Silent => {}
            }
        }
    };
    if start == Path::new("") {
        directories.push(PathBuf::new());
    } else if let Ok(metadata) = root.join(start).symlink_metadata() {
        look(start.to_path_buf(), &metadata, &mut directories);
    }
    let mut unreadable = Vec::new();
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(root.join(&directory)) {
            Ok(entries) => entries,
            // It may have gone since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                unreadable.push((directory, error));
                continue;
            }
        };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let relative = directory.join(entry.file_name());
            // Does not follow links.
            if !out(&relative)
                && let Ok(metadata) = entry.metadata()
            {
                look(relative, &metadata, &mut directories);
            }
        }
    }
    for (relative, error) in unreadable {
        let reason = SkipReason::Unreadable(error.to_string());
        found(Found::Skipped { relative, reason });
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_can_be_told_to_others_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for directory in ["d/e", ".hidden", "certs/state", "d/.git"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in [
            "a",
            "d/b",
            "d/e/été",
            ".dot",
            ".hidden/x",
            "certs/node.key",
            "certs/state/i",
            "d/.git/c",
            "x.qshare.part",
            "x.qshare.meta",
            "bad\nname",
            "back\\slash",
        ] {
            std::fs::write(root.join(file), b"x").unwrap();
        }
        std::fs::write(root.join(OsStr::from_bytes(b"\xff")), b"x").unwrap();
        symlink(root.join("a"), root.join("link")).unwrap();
        symlink(root.join("d"), root.join("dlink")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let excluded = [PathBuf::from("certs")];
        let find = |start: &str| {
            let (mut files, mut skipped) = (Vec::new(), 0);
            walk(root, Path::new(start), &excluded, |found| match found {
                Found::File { name, .. } => files.push(name.as_str().to_owned()),
                Found::Skipped { .. } => skipped += 1,
            });
            files.sort();
            (files, skipped)
        };
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        assert_eq!(find(""), (names(&["a", "d/b", "d/e/été"]), 3));
        assert_eq!(find("d"), (names(&["d/b", "d/e/été"]), 0));
        assert_eq!(find("d/b"), (names(&["d/b"]), 0));
        for nothing in [
            ".hidden",
            "certs/state",
            "link",
            "dlink",
            "absent",
            "socket",
        ] {
            assert_eq!(find(nothing), (Vec::new(), 0), "{nothing}");
        }
    }
}
