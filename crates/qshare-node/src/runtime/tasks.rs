//! The tasks of a node: how they are stopped together, and how a panic in one of them is handled.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::error::PartFailed;

/// Spawns and stops the tasks of one node. Clones share everything.
///
/// A short task (an answer, a dial) may be lost without harm to others. A part of the node that
/// must run until shutdown is started with [`supervise`](Self::supervise): its end is recorded as
/// a failure of the whole node, which [`failure`](Self::failure) reports.
#[derive(Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failed: Arc<watch::Sender<Option<PartFailed>>>,
}

impl Tasks {
    pub(crate) fn new() -> Tasks {
        Tasks {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failed: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Cancelled when the node shuts down. Tasks end soon afterwards.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Spawns a task that may end at any time.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// Spawns a part that must run until the node stops. It is dropped at shutdown; if it panics
    /// or returns before that, the node has failed.
    pub(crate) fn supervise(
        &self,
        part: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stopping = self.stopping.clone();
        self.supervise_to_the_end(part, async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    /// Spawns a part that must run until the node stops, and ends by itself then.
    pub(crate) fn supervise_to_the_end(
        &self,
        part: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let cause = match catch_panic(task).await {
                Ok(()) => "it ended by itself".into(),
                Err(panicked) => panicked.to_string(),
            };
            if !tasks.stopping.is_cancelled() {
                tasks.fail(PartFailed { part, cause });
            }
        });
    }

    /// Records that a part is lost. The first failure stays.
    pub(crate) fn fail(&self, failed: PartFailed) {
        error!(
            part = failed.part,
            cause = failed.cause,
            "a part of the node failed"
        );
        self.failed.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(failed);
            }
            is_first
        });
    }

    /// Waits until a part fails. Stays pending while no part fails.
    pub(crate) async fn failure(&self) -> PartFailed {
        let mut failed = self.failed.subscribe();
        let first = failed
            .wait_for(Option::is_some)
            .await
            .map(|first| first.clone());
        match first {
            Ok(Some(failed)) => failed,
            _ => std::future::pending().await,
        }
    }

    /// Accepts no more tasks and waits until all have ended.
    pub(crate) async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// The number of tasks that have not ended.
    pub(crate) fn count(&self) -> usize {
        self.tracker.len()
    }
}

/// A future panicked, with this message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Panicked {
    message: String,
}

impl Panicked {
    /// Creates the error from the payload of a panic.
    pub(crate) fn new(payload: &(dyn Any + Send)) -> Panicked {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panicked".into());
        Panicked { message }
    }
}

/// Runs a future, and returns a panic in it as an error.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(payload) => Poll::Ready(Err(Panicked::new(&*payload))),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_supervised_part_that_panics_fails_the_node() {
        let tasks = Tasks::new();
        tasks.supervise("announcing", async { panic!("on purpose") });
        let failed = timeout(DEADLINE, tasks.failure()).await.unwrap();
        assert_eq!((failed.part, &*failed.cause), ("announcing", "on purpose"));
    }

    #[tokio::test]
    async fn a_supervised_part_that_returns_early_fails_the_node() {
        let tasks = Tasks::new();
        tasks.supervise("accepting", async {});
        let failed = timeout(DEADLINE, tasks.failure()).await.unwrap();
        assert_eq!(failed.part, "accepting");
    }

    #[tokio::test]
    async fn the_end_of_parts_at_shutdown_is_no_failure() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping().clone();
        tasks.supervise("until stopped", async move { stopping.cancelled().await });
        tasks.supervise("for ever", std::future::pending());
        tasks.stopping().cancel();
        timeout(DEADLINE, tasks.wait()).await.unwrap();
        assert!(timeout(Duration::ZERO, tasks.failure()).await.is_err());
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_message() {
        let number = 7;
        let caught = catch_panic(async move { panic!("bad {number}") }).await;
        let caught: Result<(), Panicked> = caught;
        assert_eq!(caught.unwrap_err().to_string(), "bad 7");
        assert_eq!(catch_panic(async { 3 }).await, Ok(3));
    }
}
