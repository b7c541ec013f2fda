//! Small files share a sync: whoever wants to be durable at about the same time waits together.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use qshare_content::ContentInfo;
use qshare_storage::{Batch, Sync, Target, WholeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Files that may wait to be written, at most 128 KiB each.
const QUEUE: usize = 64;
/// A batch is committed when no file has come for this long,
const QUIET: Duration = Duration::from_millis(15);
/// or it is this old,
const OLD: Duration = Duration::from_secs(2);
/// or holds this many files.
const FULL: usize = 8192;

struct Job {
    target: Target,
    info: ContentInfo,
    bytes: Vec<u8>,
    force: bool,
    sync: Sync,
    done: oneshot::Sender<Result<PathBuf, WholeError>>,
    _room: OwnedSemaphorePermit,
}

/// Writes whole small files in batches, on a thread of its own.
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl Committer {
    pub(crate) fn new() -> Committer {
        let (jobs, queue) = mpsc::channel();
        // Ends when the last sender is gone.
        let _ = std::thread::Builder::new()
            .name("qshare-commit".into())
            .spawn(move || while commit_some(&queue) {});
        Committer {
            jobs,
            room: Arc::new(Semaphore::new(QUEUE)),
        }
    }

    /// Writes a file whose bytes were verified; returns when it has its name (and is durable).
    pub(crate) async fn commit(
        &self,
        target: Target,
        info: ContentInfo,
        bytes: Vec<u8>,
        force: bool,
        sync: Sync,
    ) -> Option<Result<PathBuf, WholeError>> {
        let (done, result) = oneshot::channel();
        let room = self.room.clone().acquire_owned().await.ok()?;
        self.jobs
            .send(Job {
                target,
                info,
                bytes,
                force,
                sync,
                done,
                _room: room,
            })
            .ok()?;
        result.await.ok()
    }
}

/// Collects a batch and commits it; false when there will be none any more.
fn commit_some(queue: &mpsc::Receiver<Job>) -> bool {
    let Ok(first) = queue.recv() else {
        return false;
    };
    let (force, sync, begun) = (first.force, first.sync, Instant::now());
    let mut batch = Batch::new(force);
    let mut waiting = Vec::new();
    let mut next = Some(first);
    while let Some(job) = next {
        if (job.force, job.sync) != (force, sync) {
            // Of another kind, and rare: on its own.
            let mut alone = Batch::new(job.force);
            add(&mut alone, &mut Vec::new(), job, true);
        } else {
            add(&mut batch, &mut waiting, job, false);
        }
        let full = batch.len() >= FULL || begun.elapsed() >= OLD;
        next = if full {
            None
        } else {
            queue.recv_timeout(QUIET).ok()
        };
    }
    for ((_, result), done) in batch.commit(sync).into_iter().zip(waiting) {
        let _ = done.send(result);
    }
    true
}

fn add(
    batch: &mut Batch,
    waiting: &mut Vec<oneshot::Sender<Result<PathBuf, WholeError>>>,
    job: Job,
    commit: bool,
) {
    match batch.add(&job.target, job.info, &job.bytes) {
        Ok(()) if commit => {
            if let Some((_, result)) = batch.commit(job.sync).into_iter().next() {
                let _ = job.done.send(result);
            }
        }
        Ok(()) => waiting.push(job.done),
        Err(error) => {
            let _ = job.done.send(Err(error));
        }
    }
}
