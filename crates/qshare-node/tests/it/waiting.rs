//! Waiting for a state that no event reports.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Deadline of every wait. Far more than needed, since a machine that also builds is slow.
const DEADLINE: Duration = Duration::from_secs(60);
/// Polling interval. A tracker sustains at most a hundred lookups a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Polls until `look` returns a value.
///
/// # Panics
///
/// When [`DEADLINE`] passes.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    let seen = timeout(DEADLINE, looking).await;
    seen.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}
