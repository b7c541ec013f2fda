//! Short blocking work, several jobs in one trip to a blocking thread.
//!
//! One trip costs two wake-ups, about 20 µs of processor time, which is more than reading a small
//! file from the page cache. Jobs that arrive while both threads are busy share the next trip.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Most jobs in one batch. The first job's result is delivered only with the last one's.
const JOBS_MAX: usize = 64;
/// Batches that run at once: a disk can serve several reads at a time.
const BATCHES_MAX: usize = 2;

/// Does the work, and returns a function that delivers the result.
type Job = Box<dyn FnOnce() -> Deliver + Send>;
type Deliver = Box<dyn FnOnce() + Send>;

/// Runs short blocking jobs in batches until it is dropped.
pub(crate) struct BlockingBatch {
    jobs: mpsc::Sender<Job>,
}

impl BlockingBatch {
    /// Spawns the task that forms batches. Must be called within a tokio runtime.
    pub(crate) fn new() -> BlockingBatch {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        tokio::spawn(run_batches(waiting));
        BlockingBatch { jobs }
    }

    /// Runs `work`, which should block for well under a millisecond. A panic in it resumes in the
    /// caller.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            Box::new(move || {
                // Fails only if the caller was dropped.
                let _ = sender.send(result);
            })
        });
        let sent = self.jobs.send(job).await;
        match result.await {
            Ok(Ok(result)) if sent.is_ok() => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            _ => std::future::pending().await,
        }
    }
}

/// Forms batches of the waiting jobs and delivers their results. It cannot panic: jobs catch
/// theirs, and delivering a result runs no foreign code.
async fn run_batches(mut waiting: mpsc::Receiver<Job>) {
    let mut batches = JoinSet::new();
    loop {
        let mut jobs = Vec::new();
        let received = tokio::select! {
            biased;
            Some(finished) = batches.join_next() => {
                deliver(finished.unwrap_or_default());
                continue;
            }
            received = waiting.recv_many(&mut jobs, JOBS_MAX), if batches.len() < BATCHES_MAX => {
                received
            }
        };
        if received == 0 {
            break;
        }
        batches.spawn_blocking(move || jobs.into_iter().map(|job| job()).collect());
    }
    while let Some(finished) = batches.join_next().await {
        deliver(finished.unwrap_or_default());
    }
}

fn deliver(results: Vec<Deliver>) {
    results.into_iter().for_each(|deliver| deliver());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, mpsc as blocking};

    #[tokio::test]
    async fn each_caller_gets_the_result_of_its_own_job() {
        let batch = Arc::new(BlockingBatch::new());
        let mut asked = JoinSet::new();
        for at in 0..1000u32 {
            let batch = batch.clone();
            asked.spawn(async move { (at, batch.run(move || at * 2).await) });
        }
        while let Some(answer) = asked.join_next().await {
            let (at, doubled) = answer.unwrap();
            assert_eq!(doubled, at * 2);
        }
    }

    #[tokio::test]
    async fn jobs_that_arrive_while_all_threads_are_busy_share_a_batch() {
        let batch = Arc::new(BlockingBatch::new());
        let both_away = Arc::new(Barrier::new(BATCHES_MAX + 1));
        let (release, gate) = blocking::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut asked = JoinSet::new();
        for _ in 0..BATCHES_MAX {
            let (batch, away, gate) = (batch.clone(), both_away.clone(), gate.clone());
            asked.spawn(async move {
                let work = move || {
                    away.wait();
                    let _ = gate.lock().unwrap().recv();
                    std::thread::current().id()
                };
                batch.run(work).await
            });
            tokio::task::yield_now().await;
        }
        let away = both_away.clone();
        tokio::task::spawn_blocking(move || away.wait())
            .await
            .unwrap();
        let mut later = JoinSet::new();
        for _ in 0..JOBS_MAX / 2 {
            let batch = batch.clone();
            later.spawn(async move { batch.run(|| std::thread::current().id()).await });
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        drop(release);
        let mut threads = Vec::new();
        while let Some(thread) = later.join_next().await {
            threads.push(thread.unwrap());
        }
        threads.dedup();
        assert_eq!(threads.len(), 1);
    }

    #[tokio::test]
    async fn a_panic_reaches_its_caller_and_no_other() {
        let batch = Arc::new(BlockingBatch::new());
        let (one, other) = (batch.clone(), batch.clone());
        let panics = tokio::spawn(async move { one.run(|| panic!("on purpose")).await });
        let works = tokio::spawn(async move { other.run(|| 1).await });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(works.await.unwrap(), 1);
    }
}
