//! Counters of answers that are being sent, and of bytes sent.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Counts answers and bytes.
pub(super) struct Counters {
    /// Answers that are not acknowledged yet.
    under_way: watch::Sender<usize>,
    sent_bytes: AtomicU64,
}

/// Counts one running answer until dropped.
pub(super) struct UnderWay<'a>(&'a Counters);

impl Counters {
    pub(super) fn new() -> Counters {
        Counters {
            under_way: watch::Sender::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(self)
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the payload bytes sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits until no answer is running.
    pub(super) async fn idle(&self) {
        let mut under_way = self.under_way.subscribe();
        let _ = under_way.wait_for(|&count| count == 0).await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
