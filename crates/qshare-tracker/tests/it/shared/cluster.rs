//! A cluster of three masters.

use std::process::Command;

use super::redis_server::{RedisServer, is_installed};

pub(super) struct Cluster {
    pub(super) servers: Vec<RedisServer>,
}

impl Cluster {
    /// Starts the servers and joins them. None, with a message, where they are not installed.
    pub(super) fn start() -> Option<Cluster> {
        if !is_installed("redis-cli") {
            return None;
        }
        let servers = (0..3).map(|_| RedisServer::start_in_cluster());
        let cluster = Cluster {
            servers: servers.collect::<Option<_>>()?,
        };
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(cluster.hosts())
            .arg("--cluster-yes")
            .output()
            .unwrap();
        assert!(created.status.success(), "{created:?}");
        Some(cluster)
    }

    fn hosts(&self) -> Vec<String> {
        let servers = self.servers.iter();
        servers
            .map(|server| format!("127.0.0.1:{}", server.port))
            .collect()
    }

    pub(super) fn url(&self) -> String {
        format!("redis-cluster://{}", self.hosts().join(","))
    }
}
