//! Opens spare sessions.

use std::sync::Arc;

use qshare_content::TrackerAddress;

use super::session::TrackerSession;
use super::sessions::{Trackers, established};
use super::spare::{SpareSession, end_unused};

impl Trackers {
    /// Opens a spare session with another tracker of the registry of `session`, in the background:
    /// the session's own tracker is slow, and the other one may have to be asked.
    pub(crate) fn prepare_spare(self: &Arc<Self>, session: &Arc<TrackerSession>) {
        let Some(other) = session.others().into_iter().next() else {
            return;
        };
        let (trackers, session) = (Arc::clone(self), Arc::clone(session));
        let stopping = self.tasks().stopping().clone();
        self.tasks().spawn(async move {
            let opened = trackers.spare(&session, &other);
            stopping.run_until_cancelled(opened).await;
        });
    }

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
