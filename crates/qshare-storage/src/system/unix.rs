//! Unix: all operations are relative to open directories. Linux-only parts are marked.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, SeekFrom};
use rustix::io::Errno;

use super::{Access, Entry};
use crate::stamp::{DirectoryStamp, FileAttributes, Stamp};

/// An open directory. Names are single components, and links are never followed.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

/// The mode bit that lets the owner execute a file.
const OWNER_EXECUTES: u32 = 0o100;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Converts an error. Opening a link without following it fails with ELOOP, for which std has no
/// stable kind.
fn sorted(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::ErrorKind::NotADirectory.into(),
        other => other.into(),
    }
}

impl Dir {
    /// Opens a directory that the user chose, following links.
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

    /// Opens a file in this directory. Does not block on a FIFO.
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

    /// Opens an existing file in this directory for writes around the page cache.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn open_direct(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty())
            .map(File::from)
            .map_err(sorted)
    }

    /// Opens an existing file in this directory for writes around the page cache.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn open_direct(&self, _name: &OsStr) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the entry of a name, if there is one.
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
            executable: stat.st_mode as u32 & OWNER_EXECUTES != 0,
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Entry::File(stamp),
            FileType::Directory => Entry::Directory(stamp),
            FileType::Symlink => Entry::Link,
            _ => Entry::Special,
        }))
    }

    /// Renames within this directory, replacing an existing file.
    pub(crate) fn rename_over(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        rustix::fs::renameat(&self.0, from, &self.0, to).map_err(sorted)
    }

    /// Renames within this directory; `AlreadyExists` if the name exists.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::fs::RenameFlags;
            match rustix::fs::renameat_with(&self.0, from, &self.0, to, RenameFlags::NOREPLACE) {
                // NFS, FUSE and some overlays do not support this.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                done => return done.map_err(sorted),
            }
        }
        match rustix::fs::linkat(&self.0, from, &self.0, to, AtFlags::empty()) {
            Ok(()) => self.remove(from),
            // FAT has no hard links either. A file may appear between the check and the rename.
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {
                match self.entry(to)? {
                    Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    None => self.rename_over(from, to),
                }
            }
            Err(errno) => Err(sorted(errno)),
        }
    }

    /// Makes a symbolic link in this directory.
    pub(crate) fn make_link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        rustix::fs::symlinkat(target, &self.0, name).map_err(sorted)
    }

    /// Returns the target of a symbolic link in this directory.
    pub(crate) fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new()).map_err(sorted)?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        rustix::fs::unlinkat(&self.0, name, AtFlags::empty()).map_err(sorted)
    }

    /// Flushes this directory, which makes its names durable.
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

/// Returns the stamp of a file at `path`.
pub(crate) fn stamp_of(metadata: &Metadata, _path: &Path) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        executable: metadata.mode() & OWNER_EXECUTES != 0,
    }
}

/// Returns the stamp of a directory at `path`.
pub(crate) fn directory_stamp_of(metadata: &Metadata, path: &Path) -> DirectoryStamp {
    let stamp = stamp_of(metadata, path);
    DirectoryStamp {
        device: stamp.device,
        inode: stamp.inode,
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
    }
}

/// One `pread`.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(bytes, offset)
}

/// Calls `pwrite` until all bytes are written.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Returns where the first data at or after `offset` begins; None if only a hole follows. Moves
/// the file's position, which no other function uses.
pub(crate) fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // On a file system without holes the whole file is data.
        Err(_) => Ok((offset < file.metadata()?.len()).then_some(offset)),
    }
}

/// Returns where the data at `offset` ends.
pub(crate) fn hole_from(file: &File, offset: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(at) => Ok(at),
        Err(_) => Ok(file.metadata()?.len()),
    }
}

/// Whether [`sync_filesystem`] works on this system.
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

/// Sets a file's attributes. The executable bits are set where the read bits are, which the umask
/// has restricted already.
pub(crate) fn set_attributes(file: &File, attributes: &FileAttributes) -> io::Result<()> {
    if attributes.executable {
        let mode = file.metadata()?.mode() & 0o777;
        // Each read bit sets the execute bit of the same class, unless the umask forbids it.
        let mode = Mode::from_raw_mode((mode | (mode & 0o444) >> 2 & !umask()) as RawMode);
        rustix::fs::fchmod(file, mode)?;
    }
    if let Some(modified_ns) = attributes.modified_ns {
        file.set_modified(time_of(modified_ns))?;
    }
    Ok(())
}

/// Returns the umask of this process, where it can be read without changing it for a moment, which
/// would affect files that other threads create. Elsewhere the read bits alone decide.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok())
            .unwrap_or(0)
    })
}

/// Returns the time that is `ns` nanoseconds after 1970.
fn time_of(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

/// Returns whether other machines may change the file system at `path` without a notification here.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_remote(path: &Path) -> bool {
    /// `f_type` of NFS, SMB, CIFS, SMB2, FUSE (sshfs, virtiofs, …), 9P, Ceph, AFS, Coda, OCFS2,
    /// GFS2 and Lustre (linux/magic.h, statfs(2)).
    const REMOTE: [u32; 12] = [
        0x6969,
        0x517B,
        0xFF53_4D42,
        0xFE53_4D42,
        0x6573_5546,
        0x0102_1997,
        0x00C3_6400,
        0x5346_414F,
        0x7375_7245,
        0x7461_636F,
        0x0116_1970,
        0x0BD0_0BD0,
    ];
    rustix::fs::statfs(path).is_ok_and(|stat| REMOTE.contains(&(stat.f_type as u32)))
}

/// Returns whether other machines may change the file system at `path` without a notification here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_remote(_path: &Path) -> bool {
    false
}

/// Returns the limit of open files of this process.
pub(crate) fn open_files_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

/// Returns whether the process or the system has too many files open.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}
