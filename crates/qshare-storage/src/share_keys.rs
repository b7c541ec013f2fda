//! The keys of private downloads, which are kept across restarts in `share_keys` in the state
//! directory.
//!
//! The index may be deleted or replaced at any time, and a file that it does not know would be
//! offered to everybody. So this is a file of its own, and a damaged one is an error, not an empty
//! list.
//!
//! ```text
//! qshare share keys 1
//! CONTENTID KEY NAME
//! ```
//!
//! One line for each private download, the newest last; `NAME` is the rest of the line. After the
//! name of a folder there is a slash; its content is its manifest, and all files beneath it are
//! private.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use qshare_content::{AssetName, ContentId, ShareKey};
use zeroize::Zeroizing;

use crate::DiskError;

const FILE_NAME: &str = "share_keys";
const HEADER: &str = "qshare share keys 1";

/// A content that came through a private link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateFile {
    /// The content.
    pub content: ContentId,
    /// The key of the share.
    pub key: ShareKey,
    /// The name under which it was downloaded.
    pub name: AssetName,
    /// Whether it is a folder, and the content its manifest.
    pub is_folder: bool,
}

/// The private downloads of a node. Calls that change them block until the file is durable.
#[derive(Debug)]
pub struct ShareKeys {
    path: PathBuf,
    files: Mutex<Vec<PrivateFile>>,
}

impl ShareKeys {
    /// Reads the keys in a state directory. A missing file has none.
    ///
    /// # Errors
    ///
    /// [`DiskError`] if the file cannot be read, or is not one of share keys: without its keys,
    /// private files would be offered to everybody.
    pub fn open(state_dir: &Path) -> Result<ShareKeys, DiskError> {
        let path = state_dir.join(FILE_NAME);
        let failed = |error| DiskError::new("read the share keys in", &path, error);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::default(),
            Err(error) => return Err(failed(error)),
        };
        let files = decode(&text).ok_or_else(|| {
            let cause = "it is damaged. Move it away if no private file is in a shared directory";
            failed(io::Error::new(io::ErrorKind::InvalidData, cause))
        })?;
        Ok(ShareKeys {
            path,
            files: Mutex::new(files),
        })
    }

    /// Records a private download.
    pub fn add(&self, file: PrivateFile) -> Result<(), DiskError> {
        let mut files = self.lock();
        if files.contains(&file) {
            return Ok(());
        }
        files.push(file);
        let written = self.write(&files);
        if written.is_err() {
            files.pop();
        }
        written
    }

    /// Forgets a private download: a file at its place is public from now on, unless it came
    /// through another private link, too.
    pub fn remove(&self, forgotten: &PrivateFile) -> Result<(), DiskError> {
        let mut files = self.lock();
        let left: Vec<_> = files
            .iter()
            .filter(|file| *file != forgotten)
            .cloned()
            .collect();
        if left.len() < files.len() {
            self.write(&left)?;
            *files = left;
        }
        Ok(())
    }

    /// Returns the keys under which a content was downloaded.
    pub fn keys_of(&self, content: &ContentId) -> Vec<ShareKey> {
        let files = self.lock();
        let of_content = files.iter();
        let of_content = of_content.filter(|file| file.content == *content && !file.is_folder);
        of_content.map(|file| file.key.clone()).collect()
    }

    /// Returns the private folders.
    pub fn folders(&self) -> Vec<PrivateFile> {
        let files = self.lock();
        let folders = files.iter().filter(|file| file.is_folder);
        folders.cloned().collect()
    }

    /// Returns whether a name lies beneath that of a private folder.
    pub fn is_in_folder(&self, name: &AssetName) -> bool {
        let files = self.lock();
        let mut folders = files.iter().filter(|file| file.is_folder);
        folders.any(|folder| {
            let rest = name.as_str().strip_prefix(folder.name.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// Returns the keys of the downloads that had this name.
    pub fn keys_of_name(&self, name: &AssetName) -> Vec<ShareKey> {
        let files = self.lock();
        let of_name = files.iter();
        let of_name = of_name.filter(|file| file.name == *name && !file.is_folder);
        of_name.map(|file| file.key.clone()).collect()
    }

    fn write(&self, files: &[PrivateFile]) -> Result<(), DiskError> {
        let failed = |error| DiskError::new("write", &self.path, error);
        let mut text = Zeroizing::new(format!("{HEADER}\n"));
        for file in files {
            let PrivateFile { content, name, .. } = file;
            let slash = if file.is_folder { "/" } else { "" };
            let key = Zeroizing::new(file.key.to_text());
            let line = Zeroizing::new(format!("{content} {} {name}{slash}\n", *key));
            text.push_str(&line);
        }
        let temporary = self.path.with_extension("tmp");
        let written = create_private(&temporary)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| sync_parent(&self.path));
        written.map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PrivateFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(text: &str) -> Option<Vec<PrivateFile>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next() != Some(HEADER) {
        return None;
    }
    lines
        .map(|line| {
            let (content, rest) = line.split_once(' ')?;
            let (key, name) = rest.split_once(' ')?;
            let folder = name.strip_suffix('/');
            Some(PrivateFile {
                content: content.parse().ok()?,
                key: key.parse().ok()?,
                name: AssetName::new(folder.unwrap_or(name)).ok()?,
                is_folder: folder.is_some(),
            })
        })
        .collect()
}

/// Creates or empties a file that only its owner may read.
fn create_private(path: &Path) -> io::Result<File> {
    // An older file may have another mode.
    let _ = fs::remove_file(path);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a rename durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        #[cfg(unix)]
        Some(parent) => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(byte: u8, name: &str) -> PrivateFile {
        PrivateFile {
            content: ContentId([byte; 32]),
            key: ShareKey::from_bytes([byte; 16]),
            name: AssetName::new(name).unwrap(),
            is_folder: false,
        }
    }

    #[test]
    fn a_folder_is_known_by_what_lies_beneath_it_and_is_forgotten_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ShareKeys::open(dir.path()).unwrap();
        let folder = PrivateFile {
            is_folder: true,
            ..file(1, "d/photos")
        };
        keys.add(folder.clone()).unwrap();
        keys.add(file(1, "d/photos")).unwrap();
        let again = ShareKeys::open(dir.path()).unwrap();
        let is_in = |name: &str| again.is_in_folder(&AssetName::new(name).unwrap());
        assert!(is_in("d/photos/a/b") && !is_in("d/photos") && !is_in("d/photos2/a"));
        assert_eq!(again.folders(), std::slice::from_ref(&folder));
        assert_eq!(again.keys_of(&ContentId([1; 32])).len(), 1);
        again.remove(&folder).unwrap();
        let last = ShareKeys::open(dir.path()).unwrap();
        assert!(last.folders().is_empty());
        assert_eq!(last.keys_of(&ContentId([1; 32])).len(), 1);
    }

    #[test]
    fn keys_survive_a_restart_and_only_the_owner_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ShareKeys::open(dir.path()).unwrap();
        for one in [file(1, "d/a file"), file(2, "été"), file(1, "d/a file")] {
            keys.add(one).unwrap();
        }
        let again = ShareKeys::open(dir.path()).unwrap();
        assert_eq!(again.keys_of(&ContentId([1; 32])), [file(1, "x").key]);
        let name = AssetName::new("été").unwrap();
        assert_eq!(again.keys_of_name(&name), [file(2, "x").key]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let metadata = fs::metadata(dir.path().join(FILE_NAME)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        again.remove(&file(1, "d/a file")).unwrap();
        let last = ShareKeys::open(dir.path()).unwrap();
        assert!(last.keys_of(&ContentId([1; 32])).is_empty());
        assert_eq!(last.keys_of(&ContentId([2; 32])).len(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ShareKeys::open(dir.path()).unwrap();
        keys.add(file(1, "a")).unwrap();
        let path = dir.path().join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        for damaged in [
            &text[1..],
            &text[..text.len() - 1],
            &text.replace(" a", ""),
            "\n",
        ] {
            fs::write(&path, damaged).unwrap();
            assert!(ShareKeys::open(dir.path()).is_err(), "{damaged:?}");
        }
        fs::write(&path, format!("{HEADER}\n")).unwrap();
        assert!(ShareKeys::open(dir.path()).is_ok());
    }
}
