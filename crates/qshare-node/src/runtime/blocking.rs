//! One piece of blocking work on a thread of tokio's blocking pool.

/// Runs `work` on a blocking thread and returns its result. A panic in `work` resumes in the
/// caller, so that it ends the task that needed the result.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
