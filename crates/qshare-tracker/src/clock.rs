//! The time by which leases end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The clock of a tracker's own registry: the system's, which a test moves forward to let leases
/// end. A shared registry is not concerned: Redis ends the leases there. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Moved>);

#[derive(Debug, Default)]
struct Moved {
    /// Nanoseconds by which it is ahead of the system's clock.
    ahead_ns: AtomicU64,
    again: Notify,
}

impl Clock {
    /// Moves the clock forward. What became due ends at once.
    pub fn advance(&self, by: Duration) {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.ahead_ns.fetch_add(by_ns, Ordering::Relaxed);
        self.0.again.notify_waiters();
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::now() + Duration::from_nanos(self.0.ahead_ns.load(Ordering::Relaxed))
    }

    /// Waits until the clock shows `at`.
    pub(crate) async fn sleep_until(&self, at: Instant) {
        loop {
            // Begins before the clock is read, so that no move is missed.
            let moved = self.0.again.notified();
            let left = at.saturating_duration_since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = moved => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_sleeps_is_woken_when_the_clock_is_moved_past_the_time() {
        let clock = Clock::default();
        let (hour, at) = (Duration::from_secs(3600), clock.now());
        let (moving, sleeping) = (clock.clone(), clock.sleep_until(at + hour));
        let moves = async move {
            moving.advance(hour / 2);
            tokio::task::yield_now().await;
            moving.advance(hour / 2);
        };
        let both = async { tokio::join!(sleeping, moves) };
        tokio::time::timeout(Duration::from_secs(60), both)
            .await
            .unwrap();
        assert!(clock.now() >= at + hour);
    }
}
