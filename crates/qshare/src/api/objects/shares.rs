//! Objects of shares, searches and uploads. Those with a link have no `Debug`.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{FileKind, Time};

#[derive(Serialize, Deserialize)]
pub(crate) struct Shares {
    pub(crate) shares: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Share {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    pub(crate) name: String,
    pub(crate) kind: FileKind,
    pub(crate) size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<u64>,
    pub(crate) complete: bool,
    pub(crate) private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    pub(crate) removable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hashed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) also_public: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) once: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code_pending: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed_attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receivers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) received: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewShare {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) once: Option<NonZeroU32>,
}

/// Handed-over shares that have changed, in an event.
#[derive(Serialize, Deserialize)]
pub(crate) struct SharesChange {
    pub(crate) snapshot: bool,
    pub(crate) changed: Vec<Share>,
    pub(crate) removed: Vec<String>,
}

/// Something that happened with a handed-over share.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ShareEvent {
    pub(crate) at: Time,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) event: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct LinkOf {
    pub(crate) link: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Uploaded {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) size_bytes: u64,
    pub(crate) content: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    pub(crate) query: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) patience_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) files: Vec<FoundFile>,
    pub(crate) truncated: bool,
    pub(crate) near: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FoundFile {
    pub(crate) name: String,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) kind: FileKind,
    pub(crate) size_bytes: u64,
    pub(crate) complete: u32,
    pub(crate) partial: u32,
    pub(crate) here: bool,
}
