//! Standard input, kept in a private file for as long as it is shared.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qshare_node::default_identity_dir;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::ShareArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;
use crate::output;

/// Beginning of the names of spooled files. Other files are left alone.
const PREFIX: &str = "stdin-";
/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Interval of the lines about progress.
const TELL_EVERY: Duration = Duration::from_secs(4);

/// A file that holds what was read. It is locked, and is deleted when the value is dropped.
pub(super) struct Spooled {
    file: NamedTempFile,
}

impl Spooled {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Reads standard input to its end. Dropping the future deletes what was read so far.
pub(super) async fn spool(args: &ShareArgs, console: &Console) -> Result<Spooled, Failure> {
    let dir = default_identity_dir(args.network.certs.dir.as_deref())?;
    let dir = dir.path.join("spool");
    if io::stdin().is_terminal() {
        console.note("reading from the terminal; Ctrl-D ends the input");
    }
    let count = Arc::new(AtomicU64::new(0));
    let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
    let reading = {
        let (dir, count, stopped) = (dir.clone(), count.clone(), stop.0.clone());
        spawn_blocking(move || {
            let file = create(&dir)?;
            read(io::stdin().lock(), file, &count, &stopped)
        })
    };
    let mut reading = std::pin::pin!(reading);
    let begun = Instant::now();
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.reset();
    let read = loop {
        tokio::select! {
            read = &mut reading => break read,
            _ = ticks.tick() => {
                let bytes = count.load(Ordering::Relaxed);
                let per_second = bytes as f64 / begun.elapsed().as_secs_f64();
                let rate = output::bytes(per_second as u64);
                console.note(&format!("read {} from stdin, {rate}/s", output::bytes(bytes)));
            }
        }
    };
    match read {
        Ok(Ok(file)) => Ok(Spooled { file }),
        Ok(Err(fault)) => Err(failure(fault, &dir, count.load(Ordering::Relaxed))),
        Err(lost) => Err(Failure::internal(lost.to_string())),
    }
}

/// Tells the thread that reads to delete its file, once it is no longer blocked.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why standard input was not spooled.
#[derive(Debug, thiserror::Error)]
enum SpoolError {
    #[error("cannot read standard input: {0}")]
    Read(io::Error),
    #[error("cannot write to the disk: {0}")]
    Write(io::Error),
    /// Nobody waits for it any more.
    #[error("interrupted")]
    Stopped,
}

fn failure(fault: SpoolError, dir: &Path, read_bytes: u64) -> Failure {
    match fault {
        SpoolError::Write(cause) if cause.kind() == io::ErrorKind::StorageFull => Failure::new(
            Exit::Disk,
            format!(
                "cannot keep standard input: the disk of {} is full after {}\nFree space, or name \
                 a directory on another disk: --certs DIR",
                shown(dir),
                output::bytes(read_bytes)
            ),
        ),
        SpoolError::Write(cause) => Failure::new(
            Exit::Disk,
            format!("cannot keep standard input in {}: {cause}", shown(dir)),
        ),
        SpoolError::Read(_) => Failure::new(Exit::Failed, fault.to_string()),
        SpoolError::Stopped => Failure::printed(Exit::Interrupted),
    }
}

/// Creates a locked file that only its owner may read, and deletes those that crashed processes
/// left behind. Blocks.
fn create(dir: &Path) -> Result<NamedTempFile, SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(SpoolError::Write)?;
    remove_leftovers(dir);
    let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(dir);
    let file = file.map_err(SpoolError::Write)?;
    // Without locks on this file system, a later process may delete it: the file stays open, but a
    // new version of it cannot be hashed. It does not change.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Deletes spooled files that no process has locked.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && is_left_over(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_left_over(path: &PathBuf) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

fn read(
    mut from: impl Read,
    mut file: NamedTempFile,
    count: &AtomicU64,
    stopped: &AtomicBool,
) -> Result<NamedTempFile, SpoolError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Read(error)),
        };
        if stopped.load(Ordering::Relaxed) {
            return Err(SpoolError::Stopped);
        }
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(file);
        };
        file.write_all(bytes).map_err(SpoolError::Write)?;
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_of_crashed_processes_are_deleted_and_those_in_use_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("spool");
        let used = create(&dir).unwrap();
        let left = dir.join("stdin-left");
        let foreign = dir.join("other");
        fs::write(&left, "left").unwrap();
        fs::write(&foreign, "kept").unwrap();
        let (count, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let next = create(&dir).unwrap();
        assert!(used.path().exists() && foreign.exists() && !left.exists());
        let next = read(&b"hello"[..], next, &count, &stopped).unwrap();
        assert_eq!(fs::read(next.path()).unwrap(), b"hello");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(next.path())), (0o700, 0o600));
        let path = next.path().to_path_buf();
        drop(next);
        assert!(!path.exists());
        assert_eq!(count.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_full_disk_is_named() {
        let cause = io::Error::from(io::ErrorKind::StorageFull);
        let failure = failure(SpoolError::Write(cause), Path::new("/d"), 5_000_000);
        assert_eq!(failure.exit, Exit::Disk);
        assert!(
            failure.message.contains("/d is full after 5.0 MB"),
            "{}",
            failure.message
        );
    }
}
