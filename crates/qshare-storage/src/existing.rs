//! The check of a download's target before it is written.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_content::ContentInfo;

use crate::beneath;
use crate::directories::Directories;
use crate::hashing::{HashError, HashOptions, hash_opened};
use crate::system::{Access, Dir, Entry};
use crate::{DiskError, Target};

/// The entry at a download's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A file with the bytes of the content. A symbolic link to one counts as well at a path that
    /// the user chose.
    Same,
    /// Another file, or a symbolic link. Only `force` replaces it.
    Different,
    /// A directory. It is never replaced.
    Directory,
    /// A device, a FIFO or a socket, which is never replaced. A symbolic link to one counts as well
    /// at a path that the user chose.
    Special,
}

impl Existing {
    /// Does the same as [`Existing::under`] on this thread alone.
    pub(crate) fn at_once(
        dir: &Dir,
        file_name: &OsStr,
        target: &Target,
        info: &ContentInfo,
    ) -> Result<Existing, DiskError> {
        let options = HashOptions {
            threads: 1,
            ..HashOptions::default()
        };
        match Existing::under(dir, file_name, target, info, &options) {
            Ok(existing) => Ok(existing),
            Err(HashError::Disk(error)) => Err(error),
            // Unreachable: `under` returns nothing else unless it is cancelled.
            Err(_) => Ok(Existing::Different),
        }
    }

    /// Checks `file_name` in the open directory of the target.
    pub(crate) fn under(
        dir: &Dir,
        file_name: &OsStr,
        target: &Target,
        info: &ContentInfo,
        options: &HashOptions,
    ) -> Result<Existing, HashError> {
        let path = target.path();
        let failed = |doing, error| DiskError::new(doing, &path, error);
        match dir
            .entry(file_name)
            .map_err(|error| failed("look at", error))?
        {
            None => Ok(Existing::Nothing),
            Some(Entry::Directory(_)) => Ok(Existing::Directory),
            Some(Entry::Special) => Ok(Existing::Special),
            Some(Entry::Link) => match target {
                // The name comes from the network: the link is not followed.
                Target::Beneath { .. } => Ok(Existing::Different),
                Target::Path(_) => behind_link(&path, info, options),
            },
            Some(Entry::File(stamp)) if stamp.size != info.length => Ok(Existing::Different),
            Some(Entry::File(_)) => {
                let file = dir
                    .open_file(file_name, Access::Read)
                    .map_err(|error| failed("read", error))?;
                compare(&file, &path, info, options)
            }
        }
    }
}

/// Looks at the targets of downloads before they begin. Looks at targets in one directory that run
/// at about the same time share the open directory, since opening it takes most of the time.
#[derive(Clone, Default)]
pub struct TargetLooks(Arc<Mutex<Looking>>);

#[derive(Default)]
struct Looking {
    /// Empty unless looks are pending: open directories keep their file systems busy.
    directories: Directories,
    pending: usize,
}

/// A look that was asked for. The target is seen as it was at a time after that.
pub struct TargetLook {
    looking: Arc<Mutex<Looking>>,
    asked_at: Instant,
}

impl TargetLooks {
    /// Asks for a look.
    pub fn ask(&self) -> TargetLook {
        lock(&self.0).pending += 1;
        TargetLook {
            looking: self.0.clone(),
            asked_at: Instant::now(),
        }
    }
}

impl TargetLook {
    /// Checks the target of a download of `info`. Hashes a file of the right length on this thread.
    /// Creates no directories.
    ///
    /// # Errors
    ///
    /// A directory of the path cannot be opened, or the file cannot be read.
    pub fn at(self, target: &Target, info: &ContentInfo) -> Result<Existing, DiskError> {
        let found = lock(&self.looking)
            .directories
            .find(target, self.asked_at)?;
        match found {
            Some(spot) => Existing::at_once(&spot.dir, &spot.file_name, target, info),
            None => Ok(Existing::Nothing),
        }
    }
}

impl Drop for TargetLook {
    fn drop(&mut self) {
        let mut looking = lock(&self.looking);
        looking.pending -= 1;
        if looking.pending == 0 {
            looking.directories.forget();
        }
    }
}

fn lock(looking: &Mutex<Looking>) -> MutexGuard<'_, Looking> {
    looking.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks the file that a symbolic link leads to.
fn behind_link(
    path: &Path,
    info: &ContentInfo,
    options: &HashOptions,
) -> Result<Existing, HashError> {
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        // The link is dangling or circular.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Ok(Existing::Different);
        }
        Err(error) => return Err(DiskError::new("look at", path, error).into()),
    };
    if metadata.is_dir() {
        return Ok(Existing::Directory);
    }
    if !metadata.is_file() {
        return Ok(Existing::Special);
    }
    if metadata.len() != info.length {
        return Ok(Existing::Different);
    }
    let file = File::open(path).map_err(|error| DiskError::new("read", path, error))?;
    compare(&file, path, info, options)
}

fn compare(
    file: &File,
    path: &Path,
    info: &ContentInfo,
    options: &HashOptions,
) -> Result<Existing, HashError> {
    match hash_opened(file, path, options) {
        Ok((hashed, _)) if hashed.info == *info => Ok(Existing::Same),
        Ok(_) | Err(HashError::Changed(_) | HashError::NotAFile(_) | HashError::TooLong(_)) => {
            Ok(Existing::Different)
        }
        Err(error) => Err(error),
    }
}

impl Target {
    /// Opens the directory of the target and returns it with the file's name; None if the directory
    /// does not exist.
    pub(crate) fn find(&self) -> Result<Option<(Dir, OsString)>, DiskError> {
        let (base, inner, file_name) = self.split()?;
        let opened = Dir::open(&base).and_then(|base| beneath::open_dir(base, inner, false));
        match opened {
            Ok(reached) => Ok(Some((reached.dir, file_name.to_os_string()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DiskError::new("open directory", base.join(inner), error)),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use qshare_content::{AssetName, Chunks, tree};

    use super::*;

    fn info(bytes: &[u8]) -> ContentInfo {
        let length = bytes.len() as u64;
        let root = tree::chunk_hash(&Chunks::of_length(length), bytes);
        ContentInfo { length, root }
    }

    #[test]
    fn links_beneath_a_directory_are_not_followed_and_those_of_the_user_are() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("base");
        fs::create_dir_all(base.join("d")).unwrap();
        let bytes = b"some bytes";
        fs::write(temp.path().join("outside"), bytes).unwrap();
        fs::write(base.join("same"), bytes).unwrap();
        fs::write(base.join("d/longer"), b"some more bytes").unwrap();
        fs::write(base.join("other"), b"same bytes").unwrap();
        symlink(temp.path().join("outside"), base.join("link")).unwrap();
        symlink(temp.path(), base.join("dirlink")).unwrap();
        symlink("/dev/null", base.join("null")).unwrap();
        symlink("nowhere", base.join("dangling")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, base.join("fifo"), 0o600.into()).unwrap();

        let looks = TargetLooks::default();
        let look = |target: &Target| looks.ask().at(target, &info(bytes));
        let beneath = |name: &str| look(&Target::beneath(&base, AssetName::new(name).unwrap()));
        let chosen = |name: &str| look(&Target::Path(base.join(name))).unwrap();
        for (name, as_beneath, as_chosen) in [
            ("same", Existing::Same, Existing::Same),
            ("other", Existing::Different, Existing::Different),
            ("d/longer", Existing::Different, Existing::Different),
            ("d", Existing::Directory, Existing::Directory),
            ("fifo", Existing::Special, Existing::Special),
            ("absent/x", Existing::Nothing, Existing::Nothing),
            ("link", Existing::Different, Existing::Same),
            ("dirlink", Existing::Different, Existing::Directory),
            ("null", Existing::Different, Existing::Special),
            ("dangling", Existing::Different, Existing::Different),
        ] {
            assert_eq!(beneath(name).unwrap(), as_beneath, "{name}");
            assert_eq!(chosen(name), as_chosen, "{name}");
        }
        assert!(beneath("dirlink/outside").is_err());
        assert_eq!(chosen("dirlink/outside"), Existing::Same);
        assert!(!base.join("absent").exists());
    }

    #[test]
    fn looks_share_a_directory_that_was_opened_after_they_were_asked_for() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("base");
        let bytes = b"some bytes";
        for dir in ["d", "e"] {
            fs::create_dir_all(base.join(dir)).unwrap();
            fs::write(base.join(dir).join("x"), dir).unwrap();
        }
        fs::write(base.join("d/same"), bytes).unwrap();
        let beneath = |name: &str| Target::beneath(&base, AssetName::new(name).unwrap());
        let look = |look: TargetLook| look.at(&beneath("d/same"), &info(bytes)).unwrap();
        let looks = TargetLooks::default();
        let [first, second, third] = [looks.ask(), looks.ask(), looks.ask()];
        assert_eq!(look(first), Existing::Same);
        assert_eq!(lock(&looks.0).directories.open_count(), 1);
        // The directory is another one now.
        fs::rename(base.join("d"), base.join("d.old")).unwrap();
        fs::rename(base.join("e"), base.join("d")).unwrap();
        // It was asked for earlier, and sees what the first one saw.
        assert_eq!(look(second), Existing::Same);
        assert_eq!(look(looks.ask()), Existing::Nothing);
        assert_eq!(lock(&looks.0).directories.open_count(), 1);
        drop(third);
        assert_eq!(lock(&looks.0).directories.open_count(), 0);
    }
}
