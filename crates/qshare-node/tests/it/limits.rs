//! Limits that change while a download runs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use qshare_node::{Cause, Download, Node, RateLimit, RateLimits};
use tokio::time::timeout;

use super::transfers::{find, noise, one_shot, put, request, sharing, tracker};
use super::waiting::eventually;

const DEADLINE: Duration = Duration::from_secs(60);

fn down(limit: RateLimit) -> RateLimits {
    RateLimits {
        up: RateLimit::NONE,
        down: limit,
    }
}

/// Waits until a download says that its own limit is what limits it.
async fn is_limited(node: &Node) {
    eventually("its own limit as the cause", async || {
        let status = node.status();
        let why = status.downloads.first()?.swarm.why.first()?;
        (why.cause == Cause::OwnLimit).then_some(())
    })
    .await;
}

async fn completes(download: &Download) {
    let finished = timeout(DEADLINE, download.finished()).await.unwrap();
    finished.unwrap();
}

#[tokio::test]
async fn limits_of_the_node_and_of_a_download_can_be_lifted_while_it_runs() {
    let (tracker, address) = tracker();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Seven minutes at 10 kB/s.
    put(from.path(), "data.bin", &noise(4 << 20, 1));
    let source = sharing(&address, from.path()).await;
    let node = one_shot(&address).await;
    let slow = RateLimit::from_bytes(10_000).unwrap();
    node.set_rate_limits(down(slow));
    assert_eq!(node.rate_limits(), down(slow));
    let file = find(&node, "data.bin", 1).await;
    let download = node.download(request(file, to.path()));
    is_limited(&node).await;
    download.set_limit(slow);
    node.set_rate_limits(RateLimits::default());
    assert_eq!(download.limit(), slow);
    is_limited(&node).await;
    download.set_limit(RateLimit::NONE);
    completes(&download).await;
    node.shutdown(Duration::ZERO).await;
    source.shutdown(Duration::ZERO).await;
    tracker.shutdown(Duration::ZERO).await;
}
