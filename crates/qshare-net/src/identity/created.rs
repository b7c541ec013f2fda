//! The record of files that qshare created in directories `certs`, in the user's data directory.
//!
//! A directory `certs` with a file `.qshare` is used without being named on the command line. So
//! that a checkout cannot bring an identity or trusted trackers with it, its files count only if
//! they are recorded here.
//!
//! `created_certs`: one line a file, 64 hex digits, the newest last:
//! SHA-256(absolute path ‖ 0 ‖ contents).

use std::fs;
use std::io;
use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::private_file;

/// Makes a directory one that is used where qshare is started beside it.
pub(super) const MARKER: &str = ".qshare";
const RECORD: &str = "created_certs";
/// Lines that are kept. A first contact with a tracker adds one.
const LINES_MAX: usize = 1000;

/// Records that qshare is about to write `contents` to `path`, if that is in a directory that may
/// be used without being named. Errors are the caller's to ignore: the file is then one that has
/// to be named.
pub(super) fn note(path: &Path, contents: &[u8]) -> io::Result<()> {
    let is_marked = path
        .parent()
        .is_some_and(|directory| directory.join(MARKER).exists());
    match super::directory::user_data_dir().filter(|_| is_marked) {
        Some(data_dir) => record(&data_dir, path, contents),
        None => Ok(()),
    }
}

/// Adds a file to the record.
pub(super) fn record(data_dir: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    fs::create_dir_all(data_dir)?;
    let record = data_dir.join(RECORD);
    let lock = private_file::open_lock(&record.with_extension("lock"))?;
    lock.lock()?;
    let line = digest(path, contents)?;
    let text = fs::read_to_string(&record).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().filter(|&other| other != line).collect();
    lines.push(&line);
    let first = lines.len().saturating_sub(LINES_MAX);
    let text: String = lines[first..]
        .iter()
        .flat_map(|&line| [line, "\n"])
        .collect();
    private_file::replace(&record, text.as_bytes())
}

/// Returns whether the file is as qshare wrote it.
pub(super) fn is_recorded(data_dir: &Path, path: &Path) -> bool {
    let recorded = || -> io::Result<bool> {
        let line = digest(path, &fs::read(path)?)?;
        let text = fs::read_to_string(data_dir.join(RECORD))?;
        Ok(text.lines().any(|other| other == line))
    };
    recorded().unwrap_or(false)
}

fn digest(path: &Path, contents: &[u8]) -> io::Result<String> {
    // The file need not exist yet, but its directory does.
    let (directory, name) = (path.parent(), path.file_name());
    let (Some(directory), Some(name)) = (directory, name) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let path = fs::canonicalize(directory)?.join(name);
    let mut hasher = Sha256::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    hasher.update([0]);
    hasher.update(contents);
    Ok(HEXLOWER.encode(&hasher.finalize()))
}
