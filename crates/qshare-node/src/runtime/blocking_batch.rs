//! Short work that blocks, many pieces of it in one trip to a blocking thread.
//!
//! A trip costs two wake-ups, some 20 µs of processor time: more than the reading of a small file
//! that the system has in memory. What comes up while others are away goes with the next.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Pieces that go together, at most: the first waits for the last.
const PIECES_MAX: usize = 64;
/// BlockingBatch at once: a disk may answer several questions at a time.
const BATCHES_MAX: usize = 2;

/// Does the work, and returns what hands over its result.
type Piece = Box<dyn FnOnce() -> HandOver + Send>;
type HandOver = Box<dyn FnOnce() + Send>;

/// Goes on batch until it is dropped.
pub(crate) struct BlockingBatch {
    pieces: mpsc::Sender<Piece>,
}

impl BlockingBatch {
    /// To be called within a runtime.
    pub(crate) fn new() -> BlockingBatch {
        let (pieces, waiting) = mpsc::channel(PIECES_MAX);
        tokio::spawn(go(waiting));
        BlockingBatch { pieces }
    }

    /// Runs something that blocks, but not for long. A panic in it goes on here.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (sender, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let piece: Piece = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            Box::new(move || {
                // Only fails when nobody waits any more.
                let _ = sender.send(result);
            })
        });
        let sent = self.pieces.send(piece).await;
        match result.await {
            Ok(Ok(result)) if sent.is_ok() => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // The runtime is going away, and this task with it.
            _ => std::future::pending().await,
        }
    }
}

async fn go(mut waiting: mpsc::Receiver<Piece>) {
    let mut batch = JoinSet::new();
    loop {
        let mut pieces = Vec::new();
        let more = tokio::select! {
            biased;
            Some(back) = batch.join_next() => {
                let done: Vec<HandOver> = back.unwrap_or_default();
                done.into_iter().for_each(|hand_over| hand_over());
                continue;
            }
            more = waiting.recv_many(&mut pieces, PIECES_MAX), if batch.len() < BATCHES_MAX => more,
        };
        if more == 0 {
            break;
        }
        batch.spawn_blocking(move || pieces.into_iter().map(|piece| piece()).collect());
    }
    while let Some(back) = batch.join_next().await {
        let done: Vec<HandOver> = back.unwrap_or_default();
        done.into_iter().for_each(|hand_over| hand_over());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, mpsc as blocking};

    #[tokio::test]
    async fn everybody_gets_the_result_of_their_own_work() {
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
    async fn what_comes_up_meanwhile_goes_together() {
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
        for _ in 0..PIECES_MAX / 2 {
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
    async fn a_panic_is_the_askers_and_nobody_elses() {
        let batch = Arc::new(BlockingBatch::new());
        let (one, other) = (batch.clone(), batch.clone());
        let panics = tokio::spawn(async move { one.run(|| panic!("on purpose")).await });
        let works = tokio::spawn(async move { other.run(|| 1).await });
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(works.await.unwrap(), 1);
    }
}
