//! A registry in a cluster of three masters, and one behind Sentinel that fails over.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Child, Command, Stdio};

use super::cluster::Cluster;
use super::redis_server::{RedisServer, free_port, is_installed};
use super::{eventually, tracker_at};
use crate::common::{Node, entry, names};

#[tokio::test]
async fn keys_are_spread_over_the_masters_of_a_cluster() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let url = cluster.url();
    let (a, b) = (tracker_at(&url).await, tracker_at(&url).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    let mut at_b = two.join(&b).await;
    let name = |at: u8| format!("f{at:03}");
    at_a.announce((0..250).map(|at| entry(&name(at), at)).collect())
        .await;
    at_b.announce((100..200).map(|at| entry(&name(at), at)).collect())
        .await;
    for tracker in [&a, &b] {
        let asking = asker.join(tracker).await;
        for at in [0, 120, 249] {
            let found = asking.find(&name(at)).await;
            assert_eq!(names(&found), [name(at)]);
            assert_eq!(found.nodes.len(), if at == 120 { 2 } else { 1 });
        }
        let found = asking.find("f00*").await;
        assert_eq!(names(&found), (0..10).map(name).collect::<Vec<String>>());
    }
    // Its keys are spread over the servers.
    for server in &cluster.servers {
        let redis::Value::Int(keys) = server.command(&["DBSIZE"]) else {
            panic!("no size");
        };
        assert!(keys > 50, "{keys} keys on one server");
    }
}

/// A Sentinel, which ends when this is dropped.
struct Sentinel {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    fn start(master: u16) -> Sentinel {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = dir.path().join("sentinel.conf");
        let settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            dir.path().display()
        );
        std::fs::write(&file, settings).unwrap();
        let process = Command::new("redis-sentinel")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Sentinel {
            process,
            port,
            _dir: dir,
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn trackers_follow_a_failover() {
    if !is_installed("redis-sentinel") {
        return;
    }
    let (Some(mut master), Some(replica)) = (RedisServer::start(), RedisServer::start()) else {
        return;
    };
    replica.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica follows", async || {
        let info = replica.command(&["INFO", "replication"]);
        format!("{info:?}")
            .contains("master_link_status:up")
            .then_some(())
    })
    .await;
    let sentinel = Sentinel::start(master.port);
    let url = format!("redis-sentinel://127.0.0.1:{}/main", sentinel.port);
    let (a, b) = (tracker_at(&url).await, tracker_at(&url).await);
    let (one, asker) = (Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    let asking = asker.join(&b).await;
    assert_eq!(names(&asking.find("x").await), ["x"]);
    // Sentinel has to know the replica, which it asks the master for every 10 s.
    eventually("Sentinel knows the replica", async || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinel.port)).ok()?;
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::cmd("SENTINEL");
        let known: redis::Value = command
            .arg("REPLICAS")
            .arg("main")
            .query(&mut connection)
            .ok()?;
        (known != redis::Value::Array(Vec::new())).then_some(())
    })
    .await;
    master.kill();
    at_a.announce(vec![entry("y", 2)]).await;
    eventually("what was announced meanwhile is found", async || {
        (names(&asking.find("y").await) == ["y"]).then_some(())
    })
    .await;
    eventually("what was announced before is found", async || {
        (names(&asking.find("x").await) == ["x"]).then_some(())
    })
    .await;
}
