//! What this tracker does for other trackers of its registry.

use std::sync::Arc;

use crate::client::Services;
use crate::introduce::introduce_for_other;
use crate::mailboxes;
use crate::shared::{HostedRun, IntroductionRequest, IntroductionResult, OpenRun, TrackerPeer};

/// Serves other trackers.
pub(crate) struct ServesTrackers(pub(crate) Arc<Services>);

impl TrackerPeer for ServesTrackers {
    async fn introduce(&self, request: &IntroductionRequest) -> IntroductionResult {
        introduce_for_other(&self.0, request).await
    }

    async fn host_run(&self, open: OpenRun, run: HostedRun) {
        mailboxes::host(&self.0.mailboxes, open, run).await;
    }

    fn evict_mailbox(&self, number: u32) {
        self.0.mailboxes.evict(number);
    }
}
