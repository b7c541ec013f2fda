//! Files with secrets: read, written and replaced so that no other user reads them, and a power
//! cut leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

/// Largest file with a secret in bytes. A key in PEM has some 150.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Why a file with a secret was not read.
pub(super) enum ReadError {
    /// The system refused.
    Io(io::Error),
    /// Others than its owner may read or write it: its permission bits.
    LooseMode(u32),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

/// Permission bits that a file with a secret must not have, on systems that have them.
#[derive(Clone, Copy)]
pub(super) struct ForbiddenMode(pub(super) u32);

impl ForbiddenMode {
    /// Only the owner may have access, as SSH demands of keys.
    pub(super) const OTHERS: ForbiddenMode = ForbiddenMode(0o077);
    /// The owner's Unix group may have access, too: a group's secret is shared.
    pub(super) const WORLD: ForbiddenMode = ForbiddenMode(0o007);
}

/// Reads a file with a secret, unless its mode is loose. The buffer is zeroed when it is dropped.
pub(super) fn read(path: &Path, forbidden: ForbiddenMode) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    check_mode(&metadata, forbidden)?;
    if metadata.len() > FILE_MAX_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    // The whole size at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX_BYTES as usize));
    Read::by_ref(&mut file)
        .take(FILE_MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(unix)]
fn check_mode(metadata: &fs::Metadata, forbidden: ForbiddenMode) -> Result<(), ReadError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    match mode & forbidden.0 {
        0 => Ok(()),
        _ => Err(ReadError::LooseMode(mode)),
    }
}

#[cfg(not(unix))]
fn check_mode(_: &fs::Metadata, _: ForbiddenMode) -> Result<(), ReadError> {
    Ok(())
}

/// Creates a file that only its owner may read; fails if it exists.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a file under another name first and renames it, so that it is never seen half written,
/// then flushes the directory, so that the new name survives a power cut.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    // Left behind by a process of the same number that was killed.
    let _ = fs::remove_file(&temporary);
    let written = create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory_of(path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Flushes the directory that a file is in.
#[cfg(unix)]
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Windows flushes the directory's entry with the file.
#[cfg(not(unix))]
pub(super) fn sync_directory_of(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Opens the lock file beside `path`, creating it if need be.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}
