//! Systems without `openat`: paths are checked before they are used. A local process could replace
//! a directory with a link between check and use; a peer cannot.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Access, Entry};
use crate::stamp::{DirectoryStamp, FileAttributes, Stamp};

/// A directory, identified by its path. Names are single components, and links are not followed.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// Opens a directory that the user chose, following links.
    pub(crate) fn open(path: &Path) -> io::Result<Dir> {
        if fs::metadata(path)?.is_dir() {
            Ok(Dir(path.to_path_buf()))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// Opens a directory in this one.
    pub(crate) fn open_dir(&self, name: &OsStr) -> io::Result<Dir> {
        match self.entry(name)? {
            Some(Entry::Directory(_)) => Ok(Dir(self.0.join(name))),
            Some(_) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes a directory in this one.
    pub(crate) fn make_dir(&self, name: &OsStr) -> io::Result<()> {
        fs::create_dir(self.0.join(name))
    }

    /// Opens a file in this directory.
    pub(crate) fn open_file(&self, name: &OsStr, access: Access) -> io::Result<File> {
        if matches!(
            self.entry(name)?,
            Some(Entry::Link | Entry::Special | Entry::Directory(_))
        ) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let edit = access != Access::Read;
        OpenOptions::new()
            .read(true)
            .write(edit)
            .create(access == Access::EditOrCreate)
            .truncate(false)
            .open(self.0.join(name))
    }

    /// Opens an existing file in this directory for writes around the page cache.
    pub(crate) fn open_direct(&self, _name: &OsStr) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the entry of a name, if there is one.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let path = self.0.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(Entry::File(stamp_of(&metadata, &path)))),
            Ok(metadata) if metadata.is_dir() => {
                Ok(Some(Entry::Directory(stamp_of(&metadata, &path))))
            }
            Ok(metadata) if metadata.is_symlink() => Ok(Some(Entry::Link)),
            Ok(_) => Ok(Some(Entry::Special)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames within this directory, replacing an existing file.
    pub(crate) fn rename_over(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    /// Renames within this directory; `AlreadyExists` if the name exists.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match self.entry(to)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => self.rename_over(from, to),
        }
    }

    /// Refuses: symbolic links need a privilege on these systems.
    pub(crate) fn make_link(&self, _name: &OsStr, _target: &OsStr) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the target of a symbolic link in this directory.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        Ok(fs::read_link(self.0.join(name))?.into_os_string())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    /// Does nothing: these systems cannot flush a directory.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the stamp of a file at `path`. A hash of the path replaces the inode number, and there
/// is no change time.
pub(crate) fn stamp_of(metadata: &Metadata, path: &Path) -> Stamp {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let mtime = metadata.modified().ok();
    let mtime = mtime.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Stamp {
        device: 0,
        inode: hasher.finish(),
        size: metadata.len(),
        mtime_ns: mtime.map_or(0, |since| since.as_nanos() as i64),
        ctime_ns: 0,
        executable: false,
    }
}

/// The stamp of a directory at `path`.
pub(crate) fn directory_stamp_of(metadata: &Metadata, path: &Path) -> DirectoryStamp {
    let stamp = stamp_of(metadata, path);
    DirectoryStamp {
        device: stamp.device,
        inode: stamp.inode,
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
    }
}

/// Gives a file its attributes; there is no executable bit here.
pub(crate) fn set_attributes(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    match attributes.modified_ns.map(u64::try_from) {
        Some(Ok(ns)) => file.set_modified(UNIX_EPOCH + std::time::Duration::from_nanos(ns)),
        _ => Ok(()),
    }
}

/// Returns false: whether a file system is remote is unknown here.
pub(crate) fn is_remote(_path: &Path) -> bool {
    false
}

/// Returns the largest number: these systems have no limit that matters.
pub(crate) fn open_files_limit() -> u64 {
    u64::MAX
}

/// Returns false: this error is not distinguished here.
pub(crate) fn is_out_of_descriptors(_error: &io::Error) -> bool {
    false
}

/// Reads at an offset. A second handle keeps threads from sharing a position.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, bytes, offset);
    #[cfg(not(windows))]
    {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read(bytes)
    }
}

/// Writes all of `bytes` at an offset.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            match std::os::windows::fs::FileExt::seek_write(file, rest, offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => done += count,
            }
        }
        Ok(())
    }
    #[cfg(not(windows))]
    {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }
}

/// Returns where the first data at or after `offset` begins. Here the whole file is data.
pub(crate) fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    Ok((offset < file.metadata()?.len()).then_some(offset))
}

/// Returns where the data at `offset` ends.
pub(crate) fn hole_from(file: &File, _offset: u64) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Whether [`sync_filesystem`] works on this system.
pub(crate) const SYNCS_FILESYSTEM: bool = false;

/// Flushes the whole file system that `dir` is on.
pub(crate) fn sync_filesystem(_dir: &Dir) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
