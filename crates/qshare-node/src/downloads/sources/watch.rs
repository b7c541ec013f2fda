//! Watches for sources at all trackers, on the local network, and behind host names.

use std::sync::Arc;

use qshare_content::NodeAddress;
use tokio::sync::mpsc;

use super::static_sources::{needs_resolver, resolve};
use crate::access::Access;
use crate::lookup::LanLookup;
use crate::runtime::Tasks;
use crate::trackers::Trackers;
use crate::vocabulary::HolderNews;

/// Limit on the changes of holders that are queued for a download.
const NEWS_MAX: usize = 64;

/// Watches for sources of contents. Clones share the tracker sessions.
#[derive(Clone)]
pub(crate) struct SourceWatch {
    trackers: Arc<Trackers>,
    lan: Arc<LanLookup>,
    tasks: Tasks,
}

impl SourceWatch {
    pub(crate) fn new(trackers: Arc<Trackers>, lan: Arc<LanLookup>, tasks: Tasks) -> SourceWatch {
        SourceWatch {
            trackers,
            lan,
            tasks,
        }
    }

    /// Watches a content at every tracker and on the local network, and resolves the host names of
    /// `nodes`, until the receiver is dropped.
    pub(crate) fn start(
        &self,
        access: &Access,
        nodes: &[NodeAddress],
    ) -> mpsc::Receiver<HolderNews> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        self.trackers.watch_holders(access, &sender);
        let (lan, access, news) = (self.lan.clone(), access.clone(), sender.clone());
        self.spawn(async move { lan.watch(access, news).await });
        for node in nodes.iter().filter(|node| needs_resolver(node)) {
            self.spawn(resolve(node.clone(), sender.clone()));
        }
        receiver
    }

    pub(super) fn spawn(&self, watch: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.tasks.stopping().clone();
        self.tasks
            .spawn(async move { stopping.run_until_cancelled(watch).await });
    }
}
