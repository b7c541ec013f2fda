//! Small files share a sync: whoever wants to be durable at about the same time waits together.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_storage::{Batch, BatchError, Durability, FileAttributes, SingleChunk, Target};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes of files that may wait to be written, in units of a kilobyte.
const QUEUE_KIB: u32 = 8 * 1024;
/// The writing thread is woken for this many files at once, or after [`LINGER`]: a wake-up for
/// each costs more than writing it.
const TOGETHER: usize = 16;
const LINGER: Duration = Duration::from_millis(2);
/// A batch is committed when nobody is about to bring a file, or no file has come for this long,
const QUIET: Duration = Duration::from_millis(30);
/// or it is this old,
const OLD: Duration = Duration::from_secs(2);
/// or holds this many files.
const FULL: usize = 16 * 1024;

struct Job {
    target: Target,
    whole: SingleChunk,
    force: bool,
    durability: Durability,
    done: oneshot::Sender<Result<PathBuf, BatchError>>,
    _room: OwnedSemaphorePermit,
}

/// Writes whole small files in batches, on a thread of its own.
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
    /// Files that somebody is fetching, to bring them here.
    expected: usize,
    /// Whether the thread waits for a first file, however long that takes.
    idle: bool,
    closed: bool,
}

/// Says that a file is about to be brought, until dropped.
pub(crate) struct Expected(Arc<Shared>);

impl Committer {
    pub(crate) fn new() -> Committer {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            come: Condvar::new(),
        });
        let thread_shared = shared.clone();
        let _ = std::thread::Builder::new()
            .name("qshare-commit".into())
            .spawn(move || while commit_some(&thread_shared) {});
        Committer {
            shared,
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
        }
    }

    /// A file is about to be brought: those that are here wait for it a little.
    pub(crate) fn expect(&self) -> Expected {
        self.shared.lock().expected += 1;
        Expected(self.shared.clone())
    }

    /// Writes a file; returns when it has its name (and is durable).
    pub(crate) async fn commit(
        &self,
        expected: Expected,
        target: Target,
        whole: SingleChunk,
        force: bool,
        durability: Durability,
    ) -> Option<Result<PathBuf, BatchError>> {
        let (done, result) = oneshot::channel();
        let kib = u32::try_from(whole.info().length.div_ceil(1024)).unwrap_or(QUEUE_KIB);
        let room = self.room.clone();
        let room = room
            .acquire_many_owned(kib.clamp(1, QUEUE_KIB))
            .await
            .ok()?;
        let job = Job {
            target,
            whole,
            force,
            durability,
            done,
            _room: room,
        };
        self.shared.lock().jobs.push(job);
        // Wakes the thread if this was the last one.
        drop(expected);
        result.await.ok()
    }
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

    /// The first files of a batch, whenever they come; None when there will be none any more.
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

    /// More files for a batch; none when it is to be committed.
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

/// Collects a batch and commits it; false when there will be none any more.
fn commit_some(shared: &Shared) -> bool {
    let Some(mut jobs) = shared.first() else {
        return false;
    };
    let Some((force, durability)) = jobs.first().map(|job| (job.force, job.durability)) else {
        return true;
    };
    let begun = Instant::now();
    let mut batch = Batch::new(force);
    let mut waiting = Vec::new();
    while !jobs.is_empty() {
        for job in jobs {
            if (job.force, job.durability) != (force, durability) {
                // Of another kind, and rare: on its own.
                let mut alone = Batch::new(job.force);
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
    true
}

fn add(
    batch: &mut Batch,
    waiting: &mut Vec<oneshot::Sender<Result<PathBuf, BatchError>>>,
    job: Job,
    commit: bool,
) {
    match batch.add_verified(&job.target, &job.whole, FileAttributes::default()) {
        Ok(()) if commit => {
            if let Some((_, result)) = batch.commit(job.durability).into_iter().next() {
                let _ = job.done.send(result);
            }
        }
        Ok(()) => waiting.push(job.done),
        Err(error) => {
            let _ = job.done.send(Err(error));
        }
    }
}
