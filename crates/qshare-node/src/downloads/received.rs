//! Tells the sources of a private content that this node has all of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::access::Access;
use crate::peers::Peer;

/// Time for all reports together. A share that ends with its receivers learns of this one later, or
/// from its user.
const REPORTS_DEADLINE: Duration = Duration::from_secs(2);

/// Reports to all peers at once, and waits until they have heard it.
pub(super) async fn report_received(peers: Vec<Arc<Peer>>, access: &Access) {
    let mut reports = JoinSet::new();
    for peer in peers {
        let access = access.clone();
        reports.spawn(async move { peer.report_received(&access).await });
    }
    let all = async {
        while let Some(reported) = reports.join_next().await {
            if let Ok(Err(fault)) = reported {
                debug!(%fault, "did not take the report that all is received");
            }
        }
    };
    let _ = timeout(REPORTS_DEADLINE, all).await;
}
