//! The operating system behind one interface: open directories, positioned reads and writes,
//! holes, stamps, attributes, and flushing a whole file system.

#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(crate) use portable::{
    Dir, SYNCS_FILESYSTEM, data_from, directory_stamp_of, hole_from, is_out_of_descriptors,
    is_remote, open_files_limit, read_at, stamp_of, sync_filesystem, write_all_at,
};
#[cfg(unix)]
pub(crate) use unix::{
    Dir, SYNCS_FILESYSTEM, data_from, directory_stamp_of, hole_from, is_out_of_descriptors,
    is_remote, open_files_limit, read_at, stamp_of, sync_filesystem, write_all_at,
};

#[cfg(not(unix))]
use portable::set_attributes;
#[cfg(unix)]
use unix::set_attributes;

use std::fs::File;
use std::io;
use std::path::Path;

use crate::stamp::{FileAttributes, Stamp};

/// The mode in which [`Dir::open_file`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Edit,
    /// An existing file or a new one, to read and write.
    EditOrCreate,
}

/// An entry of a directory; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file.
    File(Stamp),
    /// A directory.
    Directory(Stamp),
    /// A symbolic link.
    Link,
    /// A device, a FIFO or a socket.
    Special,
}

/// Gives a finished file its attributes. A file system that cannot keep them (FAT, some FUSE) is
/// no reason to fail a download.
pub(crate) fn apply_attributes(file: &File, attributes: &FileAttributes, path: &Path) {
    if let Err(error) = set_attributes(file, attributes) {
        tracing::debug!(path = %path.display(), %error, "the file's attributes were not set");
    }
}

/// Reads exactly `bytes.len()` bytes.
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match read_at(file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
