//! Files and the local disk.

use std::io;
use std::path::Path;

use qshare_node::{DiskError, HashError};

use super::reader::Reader;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;

/// Returns the exit code for an error of the file system.
pub(super) fn exit_of_io(error: &io::Error) -> Exit {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Exit::Disk,
        Kind::StorageFull | Kind::QuotaExceeded => Exit::Disk,
        _ => Exit::Failed,
    }
}

impl From<&DiskError> for Failure {
    fn from(error: &DiskError) -> Failure {
        disk(error, Reader::Shell)
    }
}

/// Describes a failure of the local disk.
pub(crate) fn disk(error: &DiskError, reader: Reader) -> Failure {
    let (problem, in_shell, at_prompt) = match error {
        DiskError::Full { doing, path } => (
            format!("cannot {doing} {}: no space left", shown(path)),
            "Free some space, then run the same command again",
            "Free some space, then enter the name again",
        ),
        DiskError::Permission {
            doing,
            path,
            source,
        } => (
            format!("cannot {doing} {}: {source}", shown(path)),
            "Name a directory that you may write to",
            "Allow it, then enter the name again",
        ),
        DiskError::InTheWay { doing, path } => (
            format!(
                "cannot {doing} {}: it is a symbolic link or a file, not a directory",
                shown(path)
            ),
            "Move it away, or name another directory",
            "Move it away, then enter the name again",
        ),
        DiskError::Io {
            doing,
            path,
            source,
        } => (format!("cannot {doing} {}: {source}", shown(path)), "", ""),
    };
    Failure::new(Exit::Disk, reader.advise(problem, in_shell, at_prompt))
}

impl From<HashError> for Failure {
    fn from(error: HashError) -> Failure {
        let message = match &error {
            // A mistyped name is not a problem of the disk.
            HashError::Disk(DiskError::Io {
                doing,
                path,
                source,
            }) if source.kind() == io::ErrorKind::NotFound => {
                format!("cannot {doing} {}: {source}", shown(path))
            }
            HashError::Disk(error) => return error.into(),
            HashError::Changed(path) => format!(
                "cannot hash {}: it changed meanwhile\nTry again when no program writes to it",
                shown(path)
            ),
            HashError::NotAFile(path) => {
                format!(
                    "cannot hash {path}: {path} is not a regular file",
                    path = shown(path)
                )
            }
            HashError::TooLong(path) => {
                format!("cannot hash {}: it is longer than 16 TiB", shown(path))
            }
            HashError::Cancelled => "hashing was cancelled".to_owned(),
        };
        Failure::new(Exit::Failed, message)
    }
}

/// Describes a `--assets` or `--downloads` that is no directory.
pub(crate) fn not_a_directory(option: &str, path: &Path) -> Failure {
    Failure::new(
        Exit::Failed,
        format!(
            "cannot use {option} {path}: {path} is not a directory\nName the directory to use; to \
             share one file, put it or a hard link to it into a directory of its own",
            path = shown(path)
        ),
    )
}
