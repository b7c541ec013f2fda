//! Objects of downloads.

use qshare_node::Priority;
use serde::{Deserialize, Serialize};

use super::{PathName, Time};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Downloads {
    pub(crate) downloads: Vec<Download>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Download {
    pub(crate) id: String,
    pub(crate) content: String,
    pub(crate) name: String,
    /// Nodes that receive no folders leave it out.
    #[serde(default)]
    pub(crate) kind: FileKind,
    pub(crate) path: String,
    pub(crate) stage: StageName,
    pub(crate) added_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<Time>,
    pub(crate) size_bytes: u64,
    pub(crate) verified_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) complete_files: Option<u64>,
    pub(crate) bytes_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<u64>,
    pub(crate) sources: u32,
    pub(crate) priority: PriorityName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit_bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_code: Option<String>,
    pub(crate) why: Vec<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileKind {
    #[default]
    File,
    Folder,
}

impl FileKind {
    pub(crate) fn new(is_folder: bool) -> FileKind {
        match is_folder {
            true => FileKind::Folder,
            false => FileKind::File,
        }
    }

    /// Returns a name as a person writes it: that of a folder ends with a slash.
    pub(crate) fn shown(self, name: &str) -> String {
        match self {
            FileKind::File => name.to_owned(),
            FileKind::Folder => format!("{name}/"),
        }
    }
}

impl Download {
    /// Returns the name as a person writes it: that of a folder ends with a slash.
    pub(crate) fn shown_name(&self) -> String {
        self.kind.shown(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StageName {
    Queued,
    Recovering,
    Searching,
    Fetching,
    Finishing,
    Complete,
    Paused,
    Failed,
}

impl StageName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            StageName::Queued => "queued",
            StageName::Recovering => "recovering",
            StageName::Searching => "searching",
            StageName::Fetching => "fetching",
            StageName::Finishing => "finishing",
            StageName::Complete => "complete",
            StageName::Paused => "paused",
            StageName::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PriorityName {
    Low,
    Normal,
    High,
}

impl From<Priority> for PriorityName {
    fn from(priority: Priority) -> PriorityName {
        match priority {
            Priority::Low => PriorityName::Low,
            Priority::Normal => PriorityName::Normal,
            Priority::High => PriorityName::High,
        }
    }
}

impl From<PriorityName> for Priority {
    fn from(name: PriorityName) -> Priority {
        match name {
            PriorityName::Low => Priority::Low,
            PriorityName::Normal => Priority::Normal,
            PriorityName::High => Priority::High,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Why {
    pub(crate) cause: String,
    pub(crate) percent: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DownloadDetail {
    pub(crate) download: Download,
    pub(crate) chunks: u32,
    pub(crate) verified_chunks: u32,
    pub(crate) open_chunks: u32,
    pub(crate) unheld_chunks: u32,
    pub(crate) in_flight_bytes: u64,
    pub(crate) reused_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) wasted_bytes: u64,
    pub(crate) possible_bytes_per_second: u64,
    pub(crate) sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) path: PathName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) chunks: u32,
    pub(crate) wanted_chunks: u32,
    pub(crate) waiting: u32,
    pub(crate) answering: u32,
    pub(crate) outstanding_bytes: u64,
    pub(crate) queue_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) verified_bytes: u64,
    pub(crate) verified_chunks: u32,
    pub(crate) bytes_per_second: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked_again_in_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkMap {
    pub(crate) id: String,
    pub(crate) chunks: u32,
    pub(crate) chunk_bytes: u64,
    pub(crate) verified: Vec<u32>,
}

/// Has no `Debug`: `what` may be a link.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Add {
    pub(crate) what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) force: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) include: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exclude: Option<Vec<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Added {
    pub(crate) downloads: Vec<Download>,
    pub(crate) skipped: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) all: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) all: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<bool>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DownloadChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<PriorityName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit_bytes_per_second: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DownloadsChange {
    pub(crate) snapshot: bool,
    pub(crate) changed: Vec<Download>,
    pub(crate) removed: Vec<String>,
}
