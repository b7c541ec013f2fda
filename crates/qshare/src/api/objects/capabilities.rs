//! Objects of capabilities. Those with a capability have no `Debug`.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Capabilities {
    pub(crate) capabilities: Vec<Capability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Capability {
    pub(crate) capability: String,
    pub(crate) path: String,
    pub(crate) content: String,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) expires_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCapability {
    pub(crate) what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_seconds: Option<u64>,
}
