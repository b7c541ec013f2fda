//! Writes small files in batches, so that files that become durable at about the same time share a
//! flush.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_storage::{Batch, BatchError, Durability, FileAttributes, SingleChunk, Target};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::error;

use crate::error::StartError;

/// Limit on the files that wait to be written, in KiB.
const QUEUE_KIB: u32 = 8 * 1024;
/// The writing thread is woken for this many files, or after [`LINGER`]. Waking it for each file
/// costs more than writing the file.
const TOGETHER: usize = 16;
const LINGER: Duration = Duration::from_millis(2);
/// A batch is committed when no further file is expected, or none has come for this long,
const QUIET: Duration = Duration::from_millis(30);
/// or the batch is this old,
const OLD: Duration = Duration::from_secs(2);
/// or it holds this many files.
const FULL: usize = 16 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitOptions {
    /// Whether to replace a different file at the target.
    pub(crate) force: bool,
    /// Whether the file must be durable when the commit is reported.
    pub(crate) durability: Durability,
    pub(crate) attributes: FileAttributes,
}

struct Job {
    target: Target,
    file: SingleChunk,
    options: CommitOptions,
    done: oneshot::Sender<Result<PathBuf, BatchError>>,
    _room: OwnedSemaphorePermit,
}

/// Writes small files in batches, on a thread of its own.
///
/// If a batch panics, its files are lost and their downloads end with an error. The thread goes on
/// with the next batch.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
}

struct Shared {
    queue: Mutex<Queue>,
    come: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Files that are being fetched and will be written by this committer.
    expected: usize,
    /// Whether the thread waits for a first file, without a deadline.
    idle: bool,
    closed: bool,
}

/// Announces a file that is about to be written. Dropping it withdraws the announcement.
pub(crate) struct Expected(Arc<Shared>);

/// The name of the writing thread.
const THREAD: &str = "qshare-commit";

impl Committer {
    /// Starts the writing thread.
    ///
    /// # Errors
    ///
    /// When the system refuses to start a thread.
    pub(crate) fn start() -> Result<Committer, StartError> {
        let started = Committer::start_on(|body| {
            let thread = std::thread::Builder::new().name(THREAD.into());
            thread.spawn(body).map(drop)
        });
        started.map_err(|cause| StartError::Thread {
            name: THREAD,
            cause,
        })
    }

    /// Starts on a thread that `spawn` creates.
    fn start_on(
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<Committer> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            come: Condvar::new(),
        });
        let thread_shared = shared.clone();
        spawn(Box::new(move || run(&thread_shared, commit_batch)))?;
        Ok(Committer {
            shared,
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
        })
    }

    /// Announces a file that is about to be written. Files that are ready wait for it briefly.
    pub(crate) fn expect(&self) -> Expected {
        self.shared.lock().expected += 1;
        Expected(self.shared.clone())
    }

    /// Writes a file. Returns its path once the file has its final name, and is durable if the
    /// caller asked for that.
    ///
    /// # Errors
    ///
    /// [`CommitError::Lost`] if the writing thread panicked over the file's batch.
    pub(crate) async fn commit(
        &self,
        expected: Expected,
        target: Target,
        file: SingleChunk,
        options: CommitOptions,
    ) -> Result<PathBuf, CommitError> {
        let (done, result) = oneshot::channel();
        let kib = u32::try_from(file.info().length.div_ceil(1024)).unwrap_or(QUEUE_KIB);
        let room = self.room.clone();
        let room = room.acquire_many_owned(kib.clamp(1, QUEUE_KIB)).await;
        let job = Job {
            target,
            file,
            options,
            done,
            _room: room.map_err(|_| CommitError::Lost)?,
        };
        self.shared.lock().jobs.push(job);
        // Wakes the thread if this was the last expected file.
        drop(expected);
        Ok(result.await.map_err(|_| CommitError::Lost)??)
    }
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The batch failed for this file.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The writing thread panicked.
    #[error("the writing thread panicked")]
    Lost,
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.come.notify_one();
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.expected -= 1;
        let wake = queue.idle || queue.expected == 0 || queue.jobs.len() == TOGETHER;
        drop(queue);
        if wake {
            self.0.come.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first files of a batch. Returns None when the committer is dropped.
    fn first(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        queue.idle = true;
        let none_yet = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
        let waited = self.come.wait_while(queue, none_yet);
        queue = waited.unwrap_or_else(PoisonError::into_inner);
        queue.idle = false;
        let jobs = std::mem::take(&mut queue.jobs);
        (!jobs.is_empty()).then_some(jobs)
    }

    /// Waits for more files of a batch. Returns None when the batch is to be committed.
    fn more(&self) -> Vec<Job> {
        let quiet = Instant::now() + QUIET;
        let mut queue = self.lock();
        loop {
            let last = queue.expected == 0 || queue.closed;
            if !queue.jobs.is_empty() || last || Instant::now() >= quiet {
                return std::mem::take(&mut queue.jobs);
            }
            let few = |queue: &mut Queue| {
                queue.jobs.len() < TOGETHER && queue.expected > 0 && !queue.closed
            };
            let waited = self.come.wait_timeout_while(queue, LINGER, few);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Commits batches until the committer is dropped.
fn run(shared: &Shared, commit: impl Fn(&Shared, Vec<Job>)) {
    while let Some(jobs) = shared.first() {
        // Dropping the files of a batch that panicked reports the error to their downloads.
        if catch_unwind(AssertUnwindSafe(|| commit(shared, jobs))).is_err() {
            error!("writing a batch of small files panicked");
        }
    }
}

/// Collects a batch that begins with these files, and commits it.
fn commit_batch(shared: &Shared, mut jobs: Vec<Job>) {
    let Some((force, durability)) = jobs
        .first()
        .map(|job| (job.options.force, job.options.durability))
    else {
        return;
    };
    let begun = Instant::now();
    let mut batch = Batch::new(force);
    let mut waiting = Vec::new();
    while !jobs.is_empty() {
        for job in jobs {
            if (job.options.force, job.options.durability) != (force, durability) {
                // A file with other options is rare, and is committed on its own.
                let mut alone = Batch::new(job.options.force);
                add(&mut alone, &mut Vec::new(), job, true);
            } else {
                add(&mut batch, &mut waiting, job, false);
            }
        }
        let full = batch.len() >= FULL || begun.elapsed() >= OLD;
        jobs = if full { Vec::new() } else { shared.more() };
    }
    for ((_, result), done) in batch.commit(durability).into_iter().zip(waiting) {
        let _ = done.send(result);
    }
}

fn add(
    batch: &mut Batch,
    waiting: &mut Vec<oneshot::Sender<Result<PathBuf, BatchError>>>,
    job: Job,
    commit: bool,
) {
    match batch.add_verified(&job.target, &job.file, job.options.attributes) {
        Ok(()) if commit => {
            if let Some((_, result)) = batch.commit(job.options.durability).into_iter().next() {
                let _ = job.done.send(result);
            }
        }
        Ok(()) => waiting.push(job.done),
        Err(error) => {
            let _ = job.done.send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use qshare_content::{ContentInfo, tree};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn file(bytes: &[u8]) -> SingleChunk {
        let info = ContentInfo {
            length: bytes.len() as u64,
            root: tree::leaf_hash(bytes),
        };
        SingleChunk::verified(info, bytes.to_vec()).unwrap()
    }

    async fn write(
        committer: &Committer,
        dir: &Path,
        name: &str,
        durability: Durability,
    ) -> Result<PathBuf, CommitError> {
        let expected = committer.expect();
        let target = Target::Path(dir.join(name));
        let options = CommitOptions {
            force: false,
            durability,
            attributes: FileAttributes::default(),
        };
        let written = committer.commit(expected, target, file(b"hello"), options);
        timeout(DEADLINE, written).await.unwrap()
    }

    #[tokio::test]
    async fn files_of_all_kinds_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let committer = Committer::start().unwrap();
        let (one, other) = tokio::join!(
            write(&committer, dir.path(), "a", Durability::Immediate),
            write(&committer, dir.path(), "b", Durability::Deferred),
        );
        for path in [one.unwrap(), other.unwrap()] {
            assert_eq!(std::fs::read(path).unwrap(), b"hello");
        }
        std::fs::write(dir.path().join("c"), "other").unwrap();
        let refused = write(&committer, dir.path(), "c", Durability::Immediate).await;
        let refused = refused.unwrap_err();
        assert!(matches!(
            refused,
            CommitError::Batch(BatchError::Different(_))
        ));
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error() {
        let failed = Committer::start_on(|_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(failed.is_err());
    }

    #[tokio::test]
    async fn a_batch_that_panics_ends_its_downloads_and_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let panics_once = Mutex::new(true);
        let committer = Committer::start_on(|_| Ok(())).unwrap();
        let shared = committer.shared.clone();
        let thread = std::thread::spawn(move || {
            run(&shared, |shared, jobs| {
                if std::mem::take(&mut *panics_once.lock().unwrap()) {
                    panic!("on purpose");
                }
                commit_batch(shared, jobs);
            });
        });
        let lost = write(&committer, dir.path(), "a", Durability::Deferred).await;
        assert!(matches!(lost.unwrap_err(), CommitError::Lost));
        write(&committer, dir.path(), "b", Durability::Deferred)
            .await
            .unwrap();
        drop(committer);
        thread.join().unwrap();
    }
}
