//! The objects of docs/api.md, for the server and for the commands that call it.

mod capabilities;
mod downloads;
mod shares;
mod status;

pub(crate) use capabilities::*;
pub(crate) use downloads::*;
use serde::{Deserialize, Serialize};
pub(crate) use shares::*;
pub(crate) use status::*;

/// The body of a failure.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) error: FailedBecause,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FailedBecause {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) changed: usize,
}

/// A text that may be a secret, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Text {
    pub(crate) text: String,
}
