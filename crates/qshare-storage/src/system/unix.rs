//! Unix: everything relative to opened directories; what only Linux has is marked.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{Access, Entry};
use crate::stamp::Stamp;

/// An opened directory. Names are single components, and links are never followed.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A link where none is followed says ELOOP, for which std has no stable kind.
fn sorted(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::ErrorKind::NotADirectory.into(),
        other => other.into(),
    }
}

impl Dir {
    /// Opens a directory of the user's own choice: links are followed.
    pub(crate) fn open(path: &Path) -> io::Result<Dir> {
        rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map(Dir)
            .map_err(io::Error::from)
    }

    /// Opens a directory in this one.
    pub(crate) fn open_dir(&self, name: &OsStr) -> io::Result<Dir> {
        rustix::fs::openat(&self.0, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map(Dir)
            .map_err(sorted)
    }

    /// Makes a directory in this one.
    pub(crate) fn make_dir(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777)).map_err(sorted)
    }

    /// Opens a file in this directory. Does not wait for the other end of a pipe.
    pub(crate) fn open_file(&self, name: &OsStr, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Edit => OFlags::RDWR,
            Access::EditOrCreate => OFlags::RDWR | OFlags::CREATE,
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&self.0, name, flags, Mode::from_raw_mode(0o666))
            .map(File::from)
            .map_err(sorted)
    }

    /// What stands under a name, if anything.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let stat = match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(sorted(errno)),
        };
        // The field types differ between systems and architectures.
        #[allow(clippy::unnecessary_cast, reason = "needed on other architectures")]
        let stamp = Stamp {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as u64,
            mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Entry::File(stamp),
            FileType::Directory => Entry::Directory(stamp),
            FileType::Symlink => Entry::Link,
            _ => Entry::Special,
        }))
    }

    /// Renames within this directory, over whatever is there.
    pub(crate) fn rename_over(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        rustix::fs::renameat(&self.0, from, &self.0, to).map_err(sorted)
    }

    /// Renames within this directory; `AlreadyExists` if something is there.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::fs::RenameFlags;
            match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
                // Not every file system can: NFS, FUSE, some overlays.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                done => return done.map_err(sorted),
            }
        }
        match rustix::fs::linkat(&self.0, from, &self.0, to, AtFlags::empty()) {
            Ok(()) => self.remove(from),
            // No hard links either (FAT): a gap between the look and the rename remains.
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {
                match self.entry(to)? {
                    Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    None => self.rename_over(from, to),
                }
            }
            Err(errno) => Err(sorted(errno)),
        }
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty()).map_err(sorted)
    }

    /// Makes the names in this directory durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.0) {
            // Some file systems cannot flush a directory and need not.
            Err(Errno::INVAL | Errno::BADF) => Ok(()),
            done => done.map_err(sorted),
        }
    }
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The stamp of a file at `path`.
pub(crate) fn stamp_of(metadata: &Metadata, _path: &Path) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// One `pread`.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(bytes, offset)
}

/// `pwrite` until all is written.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Where the first data at or after `offset` begins; None if only a hole follows. Moves the
/// file's own position, which nothing here uses.
pub(crate) fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes has data everywhere.
        Err(_) => Ok((offset < file.metadata()?.len()).then_some(offset)),
    }
}

/// Where the data at `offset` ends.
pub(crate) fn hole_from(file: &File, offset: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(at) => Ok(at),
        Err(_) => Ok(file.metadata()?.len()),
    }
}

/// Whether [`sync_filesystem`] works here.
pub(crate) const SYNCS_FILESYSTEM: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Flushes the whole file system that `dir` is on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn sync_filesystem(dir: &Dir) -> io::Result<()> {
    rustix::fs::syncfs(&dir.0).map_err(io::Error::from)
}

/// Flushes the whole file system that `dir` is on.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn sync_filesystem(_dir: &Dir) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
