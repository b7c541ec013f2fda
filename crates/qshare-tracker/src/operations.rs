//! What an operator sees of a running tracker: metrics, readiness, and a status with the last hour.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{NodeId, Query};
use qshare_registry::{Counts, Find, GroupId, Readiness};
use serde::Serialize;

use crate::client::Services;
use crate::metrics::{Levels, SharedLevels};
use crate::relay::{Relay, RelayCounts};
use crate::shared::WriteRefusal;

/// Interval between two samples of the last hour.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: one hour.
const SAMPLES_MAX: usize = 720;
/// Files that a status lists.
const LISTED_MAX: usize = 100;

/// A view of a running tracker for its operator. Clones share it.
#[derive(Clone)]
pub struct Operations {
    id: NodeId,
    /// Names are shown in an open swarm only: everyone can list them there.
    is_open: bool,
    begun: Instant,
    services: Arc<Services>,
    samples: Arc<Mutex<VecDeque<Sample>>>,
}

/// Why a tracker should not get new nodes: it may not find what others announced, or others may not
/// find what its nodes announce.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The registry that it shares with others does not answer.
    #[error("the shared registry does not answer")]
    Registry,
    /// The registry that it shares with others refuses writes: what nodes announce here, others do
    /// not find.
    #[error("the shared registry refuses writes: {0}")]
    Writes(WriteRefusal),
    /// It has just started, and nodes are still announcing themselves.
    #[error("warming up: nodes are still announcing themselves")]
    Warming,
}

/// The state of a tracker at one moment of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Seconds since the tracker's start.
    pub at_seconds: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Entries of all nodes.
    pub entries: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Bytes that the relay has forwarded since the start.
    pub relayed_bytes: u64,
}

/// The state of a tracker, as its status page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrackerReport {
    /// The tracker's ID.
    pub id: String,
    /// The program's version.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether the tracker serves a private group.
    pub is_private: bool,
    /// Open sessions.
    pub sessions: u64,
    /// Nodes with a session or a lease.
    pub nodes: u64,
    /// Entries of all nodes.
    pub entries: u64,
    /// Distinct contents.
    pub contents: u64,
    /// Open watches.
    pub watches: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Channels of the relay.
    pub relay_pairs: u64,
    /// Bytes that the relay has forwarded since the start.
    pub relayed_bytes: u64,
    /// The registry that the tracker shares with others; None if it shares none.
    pub registry: Option<RegistryReport>,
    /// Some files of an open swarm, at most 100 in the order of their names; empty in a private
    /// group.
    pub files: Vec<ListedFile>,
    /// The last hour, oldest first.
    pub samples: Vec<Sample>,
}

/// The use of a shared registry in a [`TrackerReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryReport {
    /// Whether there is a connection to Redis.
    pub is_connected: bool,
    /// Why Redis refuses writes; None if it accepts them.
    pub refuses_writes: Option<String>,
    /// Commands and scripts that Redis has carried out since the start.
    pub operations: u64,
    /// Round trips that failed since the start.
    pub errors: u64,
    /// Changes of entries that wait to be written.
    pub queued_entries: u64,
    /// Nodes whose entries all wait to be written.
    pub queued_nodes: u64,
    /// Other trackers of the registry that nodes are told of.
    pub siblings: u64,
}

/// A file in a [`TrackerReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedFile {
    /// The name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Nodes that claim to have all of it.
    pub complete: u64,
    /// Nodes that claim to have some of it.
    pub partial: u64,
}

impl Operations {
    pub(crate) fn new(id: NodeId, is_open: bool, services: Arc<Services>) -> Operations {
        Operations {
            id,
            is_open,
            begun: Instant::now(),
            services,
            samples: Arc::default(),
        }
    }

    /// Returns the metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        self.services.metrics.text(&self.levels())
    }

    /// Whether nodes are well served here: the tracker knows what is announced anywhere, and
    /// others learn what is announced here.
    ///
    /// # Errors
    ///
    /// The reason why it cannot.
    pub fn readiness(&self) -> Result<(), NotReady> {
        if let Some(shared) = &self.services.shared {
            if let Some(refusal) = shared.write_refusal() {
                return Err(NotReady::Writes(refusal));
            }
            if !shared.is_up() {
                return Err(NotReady::Registry);
            }
        }
        match self.services.registry.readiness() {
            Readiness::Ready => Ok(()),
            Readiness::Warming => Err(NotReady::Warming),
        }
    }

    /// Returns the state and the last hour.
    pub fn report(&self) -> TrackerReport {
        let levels = self.levels();
        let relay = levels.relay.unwrap_or_default();
        let Counts {
            sessions,
            nodes,
            entries,
            contents,
            watches,
            ..
        } = levels.registry;
        TrackerReport {
            id: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.begun.elapsed().as_secs(),
            is_private: !self.is_open,
            sessions: sessions as u64,
            nodes: nodes as u64,
            entries: entries as u64,
            contents: contents as u64,
            watches: watches as u64,
            requests: self.services.metrics.requests_total(),
            relay_pairs: relay.pairs as u64,
            relayed_bytes: relay.forwarded_bytes,
            registry: levels.shared.as_ref().map(|shared| RegistryReport {
                is_connected: shared.is_connected,
                refuses_writes: shared.write_refusal.map(|refusal| refusal.to_string()),
                operations: shared.metrics.operations_total(),
                errors: shared.metrics.errors_total(),
                queued_entries: shared.queued_changes as u64,
                queued_nodes: shared.queued_nodes as u64,
                siblings: self.siblings() as u64,
            }),
            files: match self.is_open {
                true => self.files(),
                false => Vec::new(),
            },
            samples: self.samples().iter().copied().collect(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.services.registry.counts()
    }

    pub(crate) fn relay_counts(&self) -> Option<RelayCounts> {
        self.services.relay.as_ref().map(Relay::counts)
    }

    fn files(&self) -> Vec<ListedFile> {
        let mut all = Find {
            group: GroupId::OPEN,
            query: Query::Name("**".to_owned()),
            after: None,
            limit: LISTED_MAX,
            holders: 0,
            asking: None,
            near: false,
        };
        let Ok(page) = self.services.registry.find(&mut all) else {
            return Vec::new();
        };
        let listed = page.matches.into_iter().map(|found| ListedFile {
            name: found.name.as_str().to_owned(),
            bytes: found.info.length,
            complete: found.complete as u64,
            partial: found.partial as u64,
        });
        listed.collect()
    }

    /// Returns how many other trackers nodes are told of.
    fn siblings(&self) -> usize {
        let shared = self.services.shared.as_ref();
        shared.map_or(0, |shared| shared.siblings().borrow().len())
    }

    fn levels(&self) -> Levels {
        let services = &self.services;
        let limits = &services.limits;
        let budgets = [
            (
                "announcements_bytes",
                services.announcements.used(),
                limits.announcements_max_bytes,
            ),
            (
                "answers_bytes",
                services.answers.used(),
                limits.answers_max_bytes,
            ),
            (
                "open_streams",
                services.streams.used(),
                limits.open_streams_max,
            ),
        ];
        Levels {
            registry: self.counts(),
            relay: self.relay_counts(),
            shared: services.shared.as_ref().map(|shared| {
                let (queued_changes, queued_nodes) = shared.publisher.waiting();
                SharedLevels {
                    is_connected: shared.is_up(),
                    write_refusal: shared.write_refusal(),
                    queued_changes,
                    queued_nodes,
                    metrics: shared.metrics().clone(),
                }
            }),
            budgets,
        }
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample at each interval. Never returns.
    pub(crate) async fn sample(self) {
        let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
        loop {
            interval.tick().await;
            let levels = self.levels();
            let sample = Sample {
                at_seconds: self.begun.elapsed().as_secs(),
                sessions: levels.registry.sessions as u64,
                entries: levels.registry.entries as u64,
                requests: self.services.metrics.requests_total(),
                relayed_bytes: levels.relay.unwrap_or_default().forwarded_bytes,
            };
            let mut samples = self.samples();
            if samples.len() == SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
    }
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
