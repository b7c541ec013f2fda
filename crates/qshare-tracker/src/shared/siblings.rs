//! Siblings: other trackers of the same registry to which nodes can go.
//!
//! A tracker registers itself in Redis. Nodes are told of it only if it advertises an address, and
//! the tracker that tells them has completed a handshake there with its id.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qshare_content::NodeId;
use qshare_net::{DialTarget, Endpoint, connect};
use qshare_wire::{Address, CloseCode, siblings::Sibling};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::layout::{Layout, bytes_of, decode_trackers};
use super::link::Link;
use super::session_record::ObservingTracker;

/// A tracker's record expires after this long, and is written this often.
const LEASE: Duration = Duration::from_secs(12);
const INTERVAL_SECONDS: std::ops::Range<f64> = 1.5..2.5;
/// How long a handshake counts, and the time for one.
const PROOF_LIFETIME: Duration = Duration::from_secs(60);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// Trackers that are read, and siblings that nodes are told of.
pub(super) const TRACKERS_MAX: usize = 256;

/// A tracker as others read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TrackerRecord {
    observer: ObservingTracker,
    port: u16,
}

/// The trackers that were read last, for a Redis that comes back empty: the others register again
/// within [`INTERVAL_SECONDS`], and meanwhile are no less siblings than before.
#[derive(Default)]
struct Remembered {
    trackers: HashMap<NodeId, TrackerRecord>,
    /// The number of the connection to Redis, and when there was another one.
    connection: u64,
    connected_at: Option<Instant>,
}

impl Remembered {
    /// Returns the trackers that were read over the connection of this number. For [`LEASE`] after
    /// a new connection, those that are missing there are added.
    fn complete(
        &mut self,
        now: Instant,
        connection: u64,
        read: Vec<(NodeId, TrackerRecord)>,
    ) -> Vec<(NodeId, TrackerRecord)> {
        if self.connection != connection {
            self.connection = connection;
            self.connected_at = Some(now);
        }
        let is_new = |at: Instant| now.duration_since(at) < LEASE;
        if !self.connected_at.is_some_and(is_new) {
            self.trackers.clear();
        }
        self.trackers.extend(read);
        let all = self.trackers.iter();
        all.map(|(&tracker, record)| (tracker, record.clone()))
            .collect()
    }
}

/// Registers this tracker and finds its siblings.
pub(crate) struct Siblings {
    pub(crate) link: Arc<Link>,
    pub(crate) layout: Layout,
    pub(crate) us: NodeId,
    pub(crate) observer: ObservingTracker,
    pub(crate) port: u16,
    /// What nodes are told.
    pub(crate) found: watch::Sender<Arc<Vec<Sibling>>>,
}

/// Where other trackers have answered, and where they have not.
#[derive(Default)]
struct Proofs {
    proven: HashMap<(NodeId, SocketAddr), Instant>,
    refuted: HashSet<(NodeId, SocketAddr)>,
}

impl Siblings {
    /// Never returns.
    pub(crate) async fn run(&self, endpoint: Endpoint) {
        let mut proofs = Proofs::default();
        let mut remembered = Remembered::default();
        let connections = self.link.connections();
        loop {
            if let Some(read) = self.read().await {
                let connection = *connections.borrow();
                let trackers = remembered.complete(Instant::now(), connection, read);
                let found = self.prove(&endpoint, trackers, &mut proofs).await;
                self.found.send_if_modified(|told| {
                    let is_new = **told != found;
                    *told = Arc::new(found);
                    is_new
                });
            }
            let pause = rand::rng().random_range(INTERVAL_SECONDS);
            sleep(Duration::from_secs_f64(pause)).await;
        }
    }

    /// Registers this tracker, and returns the others. None if Redis does not answer: what nodes
    /// were told stays then.
    async fn read(&self) -> Option<Vec<(NodeId, TrackerRecord)>> {
        let record = TrackerRecord {
            observer: self.observer.clone(),
            port: self.port,
        };
        let record = postcard::to_stdvec(&record).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let mut calls = self
            .layout
            .register_tracker(self.us, record, LEASE, now_ms)
            .to_vec();
        calls.push(self.layout.list_trackers(TRACKERS_MAX));
        let values = self.link.run(&calls).await.ok()?;
        let mut trackers = values.last().map(decode_trackers).unwrap_or_default();
        trackers.retain(|tracker| *tracker != self.us);
        let reads: Vec<_> = trackers
            .iter()
            .map(|&tracker| self.layout.read_tracker(tracker))
            .collect();
        let records = self.link.run(&reads).await.ok()?;
        let records = trackers.into_iter().zip(&records);
        let read = records.filter_map(|(tracker, value)| {
            let record = postcard::from_bytes(bytes_of(value)?).ok()?;
            Some((tracker, record))
        });
        Some(read.collect())
    }

    /// Returns those that have completed a handshake at the address that they advertise.
    async fn prove(
        &self,
        endpoint: &Endpoint,
        trackers: Vec<(NodeId, TrackerRecord)>,
        proofs: &mut Proofs,
    ) -> Vec<Sibling> {
        let Proofs { proven, refuted } = proofs;
        proven.retain(|_, at| at.elapsed() < PROOF_LIFETIME);
        refuted.retain(|(tracker, at)| {
            let mut all = trackers.iter();
            all.any(|(id, record)| id == tracker && record.observer.advertised == Some(*at))
        });
        let mut dials = JoinSet::new();
        for (tracker, record) in &trackers {
            if let Some(at) = record.observer.advertised
                && !proven.contains_key(&(*tracker, at))
            {
                let (endpoint, tracker) = (endpoint.clone(), *tracker);
                dials.spawn(async move {
                    let target = DialTarget::Tracker(Some(tracker));
                    let dialled = connect(&endpoint, target, at, HANDSHAKE_DEADLINE).await;
                    (tracker, at, dialled)
                });
            }
        }
        while let Some(dialled) = dials.join_next().await {
            let Ok((tracker, at, dialled)) = dialled else {
                continue;
            };
            match dialled {
                Ok(connection) => {
                    qshare_net::close(&connection, CloseCode::Goodbye);
                    proven.insert((tracker, at), Instant::now());
                    refuted.remove(&(tracker, at));
                }
                Err(error) if refuted.insert((tracker, at)) => warn!(
                    tracker = %tracker.short(), %at, %error,
                    "nodes are not told of a tracker: it does not answer where it says it is \
                     (--advertise)"
                ),
                Err(error) => {
                    debug!(tracker = %tracker.short(), %at, %error, "not a sibling to tell of");
                }
            }
        }
        let mut found = Vec::new();
        for (tracker, record) in trackers {
            let Some(at) = record.observer.advertised else {
                continue;
            };
            if !proven.contains_key(&(tracker, at)) {
                continue;
            }
            // On the same machine, nodes replace it by the address at which they reach this
            // tracker.
            let is_loopback = at.ip().is_loopback();
            let address = match is_loopback && record.observer.host == self.observer.host {
                true => Address::TrackerHost { port: at.port() },
                false => Address::Socket(at),
            };
            found.push(Sibling { tracker, address });
        }
        // Each tracker names others first, which spreads nodes.
        found.sort_by_key(|sibling| sibling.tracker);
        if found.len() > qshare_wire::siblings::SIBLINGS_MAX {
            found.shuffle(&mut rand::rng());
            found.truncate(qshare_wire::siblings::SIBLINGS_MAX);
        }
        found
    }

    /// Removes this tracker's record, because it stops.
    pub(crate) async fn leave(&self) {
        let _ = self
            .link
            .run(&self.layout.unregister_tracker(self.us))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(port: u16) -> TrackerRecord {
        let observer = ObservingTracker {
            host: 0,
            advertised: None,
        };
        TrackerRecord { observer, port }
    }

    #[test]
    fn siblings_stay_while_redis_is_new_and_go_at_once_later() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut remembered = Remembered::default();
        let start = Instant::now();
        let mut after = |seconds, connection, read: &[NodeId]| {
            let at = start + Duration::from_secs(seconds);
            let read = read.iter().map(|&tracker| (tracker, record(7))).collect();
            let mut found: Vec<NodeId> = remembered
                .complete(at, connection, read)
                .into_iter()
                .map(|(tracker, _)| tracker)
                .collect();
            found.sort();
            found
        };
        assert_eq!(after(0, 1, &[a, b]), [a, b]);
        // One that leaves a Redis which is not new is gone.
        assert_eq!(after(20, 1, &[b]), [b]);
        // Redis was restarted empty.
        assert_eq!(after(22, 2, &[]), [b]);
        assert_eq!(after(33, 2, &[a]), [a, b]);
        assert_eq!(after(34, 2, &[a]), [a]);
    }
}
