//! A tracker that is full refuses or removes entries, and says so.

use std::time::Duration;

use qshare_node::{Identity, Node, NodeConfig, Shares};
use qshare_wire::tracker::{AnnounceStage, EntriesEvicted};

use crate::scripted_tracker::ScriptedTracker;
use crate::transfers::put;
use crate::waiting::eventually;

/// Waits until the status shows `entries` entries that the tracker does not list.
async fn until_unlisted(node: &Node, entries: u64) {
    eventually("the count of unlisted entries", async || {
        (node.status().trackers[0].unlisted_entries == entries).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_shows_what_a_full_tracker_does_not_list_and_announces_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let shares = Shares {
        assets: dir.path().join("assets"),
        downloads: dir.path().join("downloads"),
        exclude: Vec::new(),
        state_dir: dir.path().join("state"),
    };
    for name in ["a", "b"] {
        put(dir.path(), name, name.as_bytes());
    }
    let (mut tracker, node) = ScriptedTracker::with(|trackers| {
        NodeConfig::full(Identity::ephemeral().unwrap(), shares, trackers)
    })
    .await;

    // The node may connect before or after it has indexed the files.
    let mut announced = 0;
    while announced < 2 {
        announced += tracker.take_announcement(0).await.entries.len();
    }
    until_unlisted(&node, 0).await;
    let evicted = EntriesEvicted {
        entries: 2,
        retry_after_ms: 1,
        extensions: Vec::new(),
    };
    tracker.send(&evicted).await;
    until_unlisted(&node, 2).await;

    // Everything is announced again after a pause; this time one entry is refused.
    loop {
        let announce = tracker.take_announcement(0).await;
        if announce.stage == AnnounceStage::FullBegin && announce.entries.len() == 2 {
            break;
        }
    }
    until_unlisted(&node, 0).await;
    let end = tracker.take_announcement(1).await;
    assert_eq!(end.stage, AnnounceStage::FullEnd);
    until_unlisted(&node, 1).await;
    node.shutdown(Duration::ZERO).await;
}
