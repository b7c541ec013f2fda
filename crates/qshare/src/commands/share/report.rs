//! What `share --json` prints.

use qshare_node::content::Link;
use qshare_node::{Audience, CodeEvent, Share};
use serde::Serialize;

use crate::sharing::{ShownCode, is_end};

/// The first line of a share, and the line of each new version of its file.
#[derive(Clone, Serialize)]
pub(super) struct SharedJson {
    pub(super) code: Option<String>,
    pub(super) link: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// With --http, the address for browsers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<String>,
}

impl SharedJson {
    pub(super) fn new(share: &Share, link: &Link, code: Option<String>) -> SharedJson {
        let version = share.version();
        SharedJson {
            code,
            link: link.to_string(),
            id: link.info.id().to_string(),
            name: share.name().to_string(),
            bytes: version.bytes,
            files: version.files,
            http: None,
        }
    }
}

/// An event of a share.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum EventJson {
    /// Who is served has changed.
    Receivers {
        name: String,
        receivers: usize,
        received: usize,
        sent_bytes: u64,
    },
    /// The file has changed and is no longer served.
    Changed { name: String },
    /// A code is offered in the place of an earlier one.
    Code { name: String, code: String },
    /// Somebody typed a wrong code.
    AttemptFailed { name: String, left: usize },
    /// A receiver was given the link.
    Redeemed { name: String, left: Option<u32> },
    /// A receiver of the code has everything.
    Completed { name: String, left: Option<u32> },
    /// The code has ended, and no other follows.
    CodeEnded { name: String },
    /// The new content of a changed file is served.
    Version {
        #[serde(flatten)]
        shared: SharedJson,
    },
}

impl EventJson {
    /// Returns an event of a code, if scripts may need it.
    pub(super) fn code(
        name: String,
        event: &CodeEvent,
        shown: Option<&ShownCode>,
    ) -> Option<EventJson> {
        Some(match event {
            CodeEvent::Offered(_) => EventJson::Code {
                name,
                code: shown?.text.clone(),
            },
            CodeEvent::AttemptFailed { left, .. } => EventJson::AttemptFailed { name, left: *left },
            CodeEvent::Redeemed { left, .. } => EventJson::Redeemed { name, left: *left },
            CodeEvent::Completed { left } => EventJson::Completed { name, left: *left },
            end if is_end(end) => EventJson::CodeEnded { name },
            _ => return None,
        })
    }

    pub(super) fn receivers(share: &Share, audience: &Audience) -> EventJson {
        EventJson::Receivers {
            name: share.name().to_string(),
            receivers: audience.receivers,
            received: audience.received,
            sent_bytes: audience.sent_bytes,
        }
    }
}
