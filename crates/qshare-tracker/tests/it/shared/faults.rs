//! Redis killed, restarted empty, paused, full, read-only; a tracker that dies.

use std::time::{Duration, Instant};

use qshare_net::{Identity, IdentityRole};
use qshare_tracker::{NotReady, Tracker, WriteRefusal};
use qshare_wire::tracker::Readiness;

use super::redis_server::RedisServer;
use super::{
    config_over, eventually, redis_or_skip, registry, started, tracker_over,
    until_a_lease_has_passed, until_found,
};
use crate::common::{Node, config, entry, names};

#[tokio::test]
async fn after_redis_was_restarted_empty_everything_is_there_again() {
    let mut redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    let mut at_b = two.join(&b).await;
    at_a.announce((0..200).map(|at| entry(&format!("a{at}"), at)).collect())
        .await;
    at_b.announce(vec![entry("b", 201)]).await;
    redis.kill();
    let asking = asker.join(&b).await;
    // Own entries are found, changes are acknowledged, and nothing is denied for good.
    assert_eq!(names(&asking.find("b").await), ["b"]);
    at_a.announce(vec![entry("meanwhile", 202)]).await;
    at_a.withdraw(&entry("a0", 0)).await;
    let missing = asking.find("a7").await;
    assert_eq!(missing.readiness, Readiness::Warming);
    redis.restart();
    until_found(&asking, "meanwhile").await;
    until_found(&asking, "a7").await;
    until_found(&asking, "a199").await;
    assert_eq!(names(&asking.find("a0").await), [""; 0]);
    let at_other = asker.join(&a).await;
    until_found(&at_other, "b").await;
}

#[tokio::test]
async fn a_redis_that_lost_everything_unnoticed_is_filled_again_within_a_lease() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, asker) = (Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    // As after a failover to a replica that had received nothing: connections stay.
    redis.command(&["FLUSHALL"]);
    let asking = asker.join(&b).await;
    until_found(&asking, "x").await;
}

#[tokio::test]
async fn answers_come_at_once_while_redis_is_paused() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    let mut at_b = two.join(&b).await;
    at_a.announce(vec![entry("far", 1)]).await;
    at_b.announce(vec![entry("near", 2)]).await;
    let asking = asker.join(&b).await;
    assert_eq!(names(&asking.find("far").await), ["far"]);
    redis.pause();
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(names(&asking.find("near").await), ["near"]);
        // What was found is answered for one lease.
        assert_eq!(names(&asking.find("far").await), ["far"]);
        assert_eq!(asking.find("none").await.readiness, Readiness::Warming);
        // No wait adds up: each has a deadline of less than a second.
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    at_a.withdraw(&entry("far", 1)).await;
    redis.resume();
    eventually("the withdrawn name is gone", async || {
        let found = asking.find("far").await;
        (found.matches.is_empty() && found.readiness == Readiness::Ready).then_some(())
    })
    .await;
    // Commands that waited in the paused server do not bring it back.
    until_a_lease_has_passed(&b, &asking).await;
    assert_eq!(names(&asking.find("far").await), [""; 0]);
    until_found(&asking, "near").await;
}

#[tokio::test]
async fn a_full_redis_refuses_writes_and_trackers_go_on() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, asker) = (Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    at_a.announce(vec![entry("before", 1)]).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    at_a.announce(vec![entry("during", 2)]).await;
    let here = asker.join(&a).await;
    assert_eq!(names(&here.find("during").await), ["during"]);
    // The other tracker publishes nothing, and learns of it, too.
    let refuses = Err(NotReady::Writes(WriteRefusal::MemoryFull));
    for tracker in [&a, &b] {
        eventually("the refusal is seen", async || {
            (tracker.operations().readiness() == refuses).then_some(())
        })
        .await;
    }
    // Beyond the leases in Redis it denies nothing that the first tracker knows.
    let asking = asker.join(&b).await;
    until_a_lease_has_passed(&b, &asking).await;
    for name in ["before", "during"] {
        assert_eq!(names(&here.find(name).await), [name]);
        let found = asking.find(name).await;
        assert!(names(&found) == [name] || found.readiness == Readiness::Warming);
    }
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    for tracker in [&a, &b] {
        eventually("writes are accepted again", async || {
            tracker.operations().readiness().ok()
        })
        .await;
    }
    until_found(&asking, "during").await;
    until_found(&asking, "before").await;
}

#[tokio::test]
async fn a_read_only_redis_is_left_until_it_can_be_written_again() {
    let redis = redis_or_skip!();
    let Some(master) = RedisServer::start() else {
        return;
    };
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, asker) = (Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    redis.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    at_a.announce(vec![entry("y", 2)]).await;
    let here = asker.join(&a).await;
    assert_eq!(names(&here.find("y").await), ["y"]);
    eventually("the refusal is seen", async || {
        let refuses = NotReady::Writes(WriteRefusal::ReadOnly);
        (b.operations().readiness() == Err(refuses)).then_some(())
    })
    .await;
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    let asking = asker.join(&b).await;
    until_found(&asking, "x").await;
    until_found(&asking, "y").await;
}

#[tokio::test]
async fn a_redis_that_would_drop_entries_is_refused() {
    let Some(redis) = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]) else {
        return;
    };
    let mut config = config();
    config.shared = Some(registry(&redis.url()));
    let tracker = Tracker::start(config).unwrap();
    let fault = tracker.check_registry().await.unwrap_err();
    assert!(fault.is_refusal(), "{fault}");
    assert!(fault.to_string().contains("noeviction"), "{fault}");
}

#[tokio::test]
async fn a_missing_or_wrong_password_is_a_refusal() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    redis.command(&["CONFIG", "SET", "requirepass", "right"]);
    for password in [None, Some("wrong"), Some("right")] {
        let mut config = config();
        let mut shared = registry(&redis.url());
        shared.password = password.map(|text| text.to_owned().into());
        config.shared = Some(shared);
        let tracker = Tracker::start(config).unwrap();
        let checked = tracker.check_registry().await;
        match password {
            Some("right") => assert!(checked.is_ok(), "{checked:?}"),
            _ => {
                let fault = checked.unwrap_err();
                assert!(fault.is_refusal(), "{fault:?}");
                let text = fault.to_string();
                assert!(text.contains("--registry-password-file"), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn nodes_of_a_tracker_that_died_are_found_until_their_lease_ends() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, asker) = (Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    // Dropped without a goodbye: its tasks end.
    drop(a);
    let asking = asker.join(&b).await;
    assert_eq!(names(&asking.find("x").await), ["x"]);
    let mut again = one.join(&b).await;
    again.announce(vec![entry("x", 1)]).await;
    until_a_lease_has_passed(&b, &asking).await;
    let found = asking.find("x").await;
    assert_eq!((names(&found), found.matches[0].complete), (vec!["x"], 1));
}

#[tokio::test]
async fn a_tracker_that_was_killed_and_started_again_finds_its_nodes_at_once() {
    let redis = redis_or_skip!();
    let certs = tempfile::tempdir().unwrap();
    let start = async || {
        let mut config = config_over(registry(&redis.url()));
        config.identity = Identity::load_or_create(certs.path(), IdentityRole::Tracker).unwrap();
        started(config).await
    };
    let (one, asker) = (Node::new(None), Node::new(None));
    let first = start().await;
    let mut joined = one.join(&first).await;
    joined.announce(vec![entry("x", 1)]).await;
    drop(first);
    let again = start().await;
    let asking = asker.join(&again).await;
    // Its memory is empty, and the node has not returned.
    assert_eq!(names(&asking.find("x").await), ["x"]);
    eventually("the lease ends", async || {
        let found = asking.find("x").await;
        found.matches.is_empty().then_some(())
    })
    .await;
}
