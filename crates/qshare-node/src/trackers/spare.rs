//! Sessions with other trackers of a registry, which only ask while the own tracker does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use qshare_content::TrackerAddress;
use qshare_net::Session;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::ask::Established;
use super::session::TrackerSession;
use super::sessions::{Trackers, established};

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

impl Trackers {
    /// Returns the spare session with a tracker of the registry of `session`, opened if there is
    /// none. None if the tracker does not answer.
    pub(crate) async fn spare(
        &self,
        session: &TrackerSession,
        tracker: &TrackerAddress,
    ) -> Option<Arc<SpareSession>> {
        let slot = session.spare_slot(tracker);
        let mut place = slot.lock().await;
        if let Some(spare) = &*place
            && spare.up.connection.close_reason().is_none()
        {
            spare.is_used.store(true, Ordering::Relaxed);
            return Some(Arc::clone(spare));
        }
        let opened = self.connect(tracker).await.ok()?;
        let spare = Arc::new(SpareSession {
            up: established(&opened),
            is_used: AtomicBool::new(true),
            _session: opened,
        });
        *place = Some(Arc::clone(&spare));
        drop(place);
        let (slot, stopping) = (Arc::downgrade(&slot), self.tasks().stopping().clone());
        self.tasks().spawn(async move {
            stopping.run_until_cancelled(end_unused(slot)).await;
        });
        Some(spare)
    }
}

/// Ends a spare session once it was not used for [`LIFETIME`].
async fn end_unused(slot: Weak<Mutex<Option<Arc<SpareSession>>>>) {
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
