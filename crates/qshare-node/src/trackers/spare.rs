//! Sessions with other trackers of a registry, which only ask while the own tracker does not
//! answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use qshare_net::Session;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::ask::Established;

/// A spare session that is not used for this long ends.
const LIFETIME: Duration = Duration::from_secs(10);

/// The place of a spare session.
pub(super) type SpareSlot = Arc<Mutex<Option<Arc<SpareSession>>>>;

/// A session that only asks.
pub(crate) struct SpareSession {
    pub(crate) up: Established,
    is_used: AtomicBool,
    _session: Session,
}

impl SpareSession {
    pub(super) fn new(up: Established, session: Session) -> SpareSession {
        SpareSession {
            up,
            is_used: AtomicBool::new(true),
            _session: session,
        }
    }

    /// Notes that the session is used, and keeps it open for another [`LIFETIME`].
    pub(super) fn note_use(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }
}

/// Ends a spare session once it was not used for [`LIFETIME`].
pub(super) async fn end_unused(slot: Weak<Mutex<Option<Arc<SpareSession>>>>) {
    loop {
        sleep(LIFETIME).await;
        let Some(slot) = slot.upgrade() else { return };
        let mut place = slot.lock().await;
        let is_used = |spare: &Arc<SpareSession>| spare.is_used.swap(false, Ordering::Relaxed);
        if !place.as_ref().is_some_and(is_used) {
            *place = None;
            return;
        }
    }
}
