//! Objects of shares, searches and uploads. Those with a link have no `Debug`.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Shares {
    pub(crate) shares: Vec<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) content: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) size_bytes: u64,
    pub(crate) complete: bool,
    pub(crate) private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    pub(crate) removable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
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
    pub(crate) once: Option<u32>,
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
    pub(crate) size_bytes: u64,
    pub(crate) complete: u32,
    pub(crate) partial: u32,
    pub(crate) here: bool,
}
