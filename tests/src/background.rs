//! A thread with a runtime of its own, for what a test runs beside the processes under test.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A running thread; it ends when the value is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Completes when the [`Background`] is dropped.
pub(crate) type Stopped = oneshot::Receiver<()>;

impl Background {
    /// Starts a thread that runs `work` to its end, and returns the value that `work` sends when it
    /// is ready.
    ///
    /// # Panics
    ///
    /// When `work` ends before it has sent a value.
    pub(crate) fn start<T: Send + 'static, F: Future<Output = ()>>(
        work: impl FnOnce(mpsc::Sender<T>, Stopped) -> F + Send + 'static,
    ) -> (T, Background) {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work(ready, stopped));
        });
        let value = is_ready.recv().unwrap();
        let background = Background {
            stop: Some(stop),
            thread: Some(thread),
        };
        (value, background)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
