//! Objects of the node as a whole.

use std::time::SystemTime;

use qshare_node::PathKind;
use serde::{Deserialize, Serialize};

use super::{Download, DownloadDetail, Share};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn now() -> Time {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Time(since.map_or(0, |since| since.as_millis() as u64))
    }
}

/// Returns a duration in ms, to the nearest 10 µs.
pub(crate) fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) started_at: Time,
    pub(crate) listen: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) group: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assets_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) downloads_dir: Option<String>,
    pub(crate) shared_files: usize,
    pub(crate) shared_bytes: u64,
    pub(crate) shares_revision: u64,
    pub(crate) still_written: Vec<String>,
    pub(crate) trackers: Vec<Tracker>,
    pub(crate) port_mapping: PortMapping,
    pub(crate) peers: usize,
    pub(crate) lan_nodes: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) up_bytes_per_second: u64,
    pub(crate) down_bytes_per_second: u64,
    pub(crate) limits: Limits,
    pub(crate) downloads: DownloadCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
}

impl Status {
    /// Returns the status with all that changes from second to second set to 0.
    pub(crate) fn without_counters(&self) -> Status {
        Status {
            sent_bytes: 0,
            received_bytes: 0,
            up_bytes_per_second: 0,
            down_bytes_per_second: 0,
            memory_bytes: None,
            ..self.clone()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tracker {
    pub(crate) tracker: String,
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
    pub(crate) unlisted_entries: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    pub(crate) state: String,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cause: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DownloadCounts {
    pub(crate) active: usize,
    pub(crate) queued: usize,
    pub(crate) paused: usize,
    pub(crate) failed: usize,
    pub(crate) complete: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) step_seconds: u32,
    pub(crate) until: Time,
    pub(crate) up_bytes_per_second: Vec<u64>,
    pub(crate) down_bytes_per_second: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RatePoint {
    pub(crate) at: Time,
    pub(crate) up_bytes_per_second: u64,
    pub(crate) down_bytes_per_second: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peers {
    pub(crate) peers: Vec<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) path: PathName,
    pub(crate) rtt_ms: f64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

/// The kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PathName {
    Direct,
    Lan,
    Relay,
}

impl PathName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            PathName::Direct => "direct",
            PathName::Lan => "LAN",
            PathName::Relay => "relay",
        }
    }
}

impl From<PathKind> for PathName {
    fn from(path: PathKind) -> PathName {
        match path {
            PathKind::Direct => PathName::Direct,
            PathKind::Lan => PathName::Lan,
            PathKind::Relay => PathName::Relay,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) up_bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) down_bytes_per_second: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) up_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) down_bytes_per_second: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) at: Time,
    pub(crate) kind: String,
    pub(crate) level: String,
    pub(crate) text: String,
}

/// What `qshare status --json` prints.
#[derive(Serialize)]
pub(crate) struct StatusReport {
    pub(crate) status: Status,
    pub(crate) downloads: Vec<Download>,
    /// Those that were handed to the node.
    pub(crate) shares: Vec<Share>,
    /// Of the downloads that were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) details: Vec<DownloadDetail>,
}
