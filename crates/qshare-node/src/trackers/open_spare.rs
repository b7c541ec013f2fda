//! Opens spare sessions.

use std::sync::Arc;

use qshare_content::TrackerAddress;

use super::session::TrackerSession;
use super::sessions::{Trackers, established};
use super::spare::{SpareSession, end_unused};

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
            spare.note_use();
            return Some(Arc::clone(spare));
        }
        let opened = self.connect(tracker).await.ok()?;
        let spare = Arc::new(SpareSession::new(established(&opened), opened));
        *place = Some(Arc::clone(&spare));
        drop(place);
        let (slot, stopping) = (Arc::downgrade(&slot), self.tasks().stopping().clone());
        self.tasks().spawn(async move {
            stopping.run_until_cancelled(end_unused(slot)).await;
        });
        Some(spare)
    }
}
