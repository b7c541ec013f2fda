//! What an operator sees of the shared registry: metrics, readiness and the report.

use qshare_tracker::{NotReady, Tracker};

use super::{eventually, redis_or_skip, tracker_over};
use crate::common::{Node, entry};

/// Returns the value of a metric.
fn metric(tracker: &Tracker, name: &str) -> f64 {
    let text = tracker.operations().metrics();
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_and_readiness_follow_redis() {
    let mut redis = redis_or_skip!();
    let tracker = tracker_over(&redis).await;
    let node = Node::new(None);
    let mut joined = node.join(&tracker).await;
    joined.announce(vec![entry("x", 1)]).await;
    let value = |name: &str| metric(&tracker, &format!("qshare_tracker_registry_{name}"));
    assert_eq!(value("connected"), 1.0);
    assert!(value("connections_total") >= 1.0);
    let operations = value("operations_total");
    assert!(operations >= 4.0, "{operations}");
    assert!(value("round_trip_seconds_count") >= 2.0);
    assert_eq!((value("queued_entries"), value("queued_nodes")), (0.0, 0.0));
    let report = tracker.operations().report().registry.unwrap();
    assert!(report.is_connected && report.operations >= operations as u64);
    assert_eq!(tracker.operations().readiness(), Ok(()));
    redis.kill();
    eventually("the loss is seen", async || {
        (tracker.operations().readiness() == Err(NotReady::Registry)).then_some(())
    })
    .await;
    assert_eq!(value("connected"), 0.0);
    joined.announce(vec![entry("y", 2)]).await;
    eventually("what waits is counted, and so are errors", async || {
        let waiting = value("queued_entries") + value("queued_nodes");
        let errors = tracker.operations().report().registry.unwrap().errors;
        (waiting >= 1.0 && errors > 0).then_some(())
    })
    .await;
    assert!(
        tracker
            .operations()
            .metrics()
            .contains("registry_errors_total{cause=")
    );
    redis.restart();
    eventually("it is ready again, and nothing waits", async || {
        let waiting = value("queued_entries") + value("queued_nodes");
        let is_ready = tracker.operations().readiness().is_ok();
        (is_ready && waiting == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tracker_alone_shows_nothing_of_a_registry() {
    let tracker = crate::common::start();
    assert_eq!(tracker.operations().report().registry, None);
    assert!(!tracker.operations().metrics().contains("registry_"));
}
