//! What this tracker does for other trackers of its registry.

use std::sync::Arc;

use qshare_registry::NetworkUse;

use crate::client::Services;
use crate::introduce::introduce_for_other;
use crate::mailboxes;
use crate::shared::{
    HostedRun, IntroductionRequest, IntroductionResult, OpenRun, TrackerPeer, TrackerUse,
};

/// Serves other trackers.
pub(crate) struct ServesTrackers(pub(crate) Arc<Services>);

impl TrackerPeer for ServesTrackers {
    async fn introduce(&self, request: &IntroductionRequest) -> IntroductionResult {
        introduce_for_other(&self.0, request).await
    }

    async fn host_run(&self, open: OpenRun, run: HostedRun) {
        mailboxes::host(&self.0.mailboxes, open, run).await;
    }

    fn network_use(&self, max: usize) -> TrackerUse {
        let NetworkUse { entry_bytes, nodes } = self.0.registry.network_use(max);
        TrackerUse {
            entry_bytes,
            nodes,
            streams: self.0.streams.network_use(max),
        }
    }

    fn set_use_elsewhere(&self, elsewhere: TrackerUse) {
        let TrackerUse {
            entry_bytes,
            nodes,
            streams,
        } = elsewhere;
        let of_registry = NetworkUse { entry_bytes, nodes };
        self.0.registry.set_use_elsewhere(of_registry);
        self.0.streams.set_use_elsewhere(streams);
    }

    fn evict_mailbox(&self, number: u32) {
        self.0.mailboxes.evict(number);
    }
}
