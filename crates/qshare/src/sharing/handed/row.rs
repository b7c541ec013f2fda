//! One share that was handed over, and what is known about it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use qshare_node::content::AssetName;
use qshare_node::{Audience, Share, ShareVersion};
use tokio_util::sync::CancellationToken;

use super::super::code::ShownCode;
use super::file::Record;

/// Identifies a share, whatever its content is. Stays the same over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShareId([u8; 16]);

impl ShareId {
    pub(super) fn random() -> ShareId {
        ShareId(rand::random())
    }
}

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// The text is not a share ID.
#[derive(Debug)]
pub(crate) struct NotAShareId;

impl FromStr for ShareId {
    type Err = NotAShareId;

    fn from_str(text: &str) -> Result<ShareId, NotAShareId> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotAShareId)?;
        Ok(ShareId(bytes.try_into().map_err(|_| NotAShareId)?))
    }
}

/// What a share is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandedState {
    /// It is hashed for the first time, or waits for that.
    Hashing,
    /// It is served.
    Serving,
    /// The file or folder has changed, and its new content is not hashed yet.
    Changed,
    /// It cannot be read; the node tries again.
    Failed(String),
}

/// Something that happened with a share.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    pub(crate) at: SystemTime,
    pub(crate) id: ShareId,
    pub(crate) name: AssetName,
    pub(crate) what: Happened,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A code is offered.
    Code,
    /// Somebody typed a wrong code.
    AttemptFailed,
    /// A receiver was given the link.
    Redeemed,
    /// A receiver of the code has everything.
    Completed,
    /// The code has ended, and no other follows.
    CodeEnded,
    /// The content has changed and is no longer served.
    Changed,
    /// The new content is served.
    Version,
}

impl Happened {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Happened::Code => "code",
            Happened::AttemptFailed => "attempt_failed",
            Happened::Redeemed => "redeemed",
            Happened::Completed => "completed",
            Happened::CodeEnded => "code_ended",
            Happened::Changed => "changed",
            Happened::Version => "version",
        }
    }
}

/// A share as others see it.
#[derive(Clone)]
pub(crate) struct Handed {
    pub(crate) id: ShareId,
    /// Its place in the list.
    pub(crate) order: u64,
    pub(crate) name: AssetName,
    pub(crate) path: PathBuf,
    pub(crate) is_folder: bool,
    pub(crate) is_private: bool,
    pub(crate) state: HandedState,
    /// None before it is hashed for the first time.
    pub(crate) version: Option<ShareVersion>,
    pub(crate) hashed_bytes: u64,
    pub(crate) total_bytes: u64,
    /// Receivers by code until the share ends; None for any number.
    pub(crate) uses_left: Option<u32>,
    pub(crate) code: Option<ShownCode>,
    /// Whether the first code is still being offered.
    pub(crate) is_code_pending: bool,
    pub(crate) failed_attempts: u64,
    pub(crate) audience: Audience,
}

/// A share, and the task that serves it.
pub(super) struct Row {
    pub(super) record: Record,
    pub(super) order: u64,
    pub(super) revision: u64,
    pub(super) stop: CancellationToken,
    /// Once it is hashed.
    pub(super) shared: Option<Share>,
    pub(super) state: HandedState,
    pub(super) version: Option<ShareVersion>,
    pub(super) hashed_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) code: Option<ShownCode>,
    pub(super) is_code_pending: bool,
    pub(super) failed_attempts: u64,
    pub(super) audience: Audience,
}

impl Row {
    pub(super) fn new(record: Record, order: u64, revision: u64, stop: CancellationToken) -> Row {
        Row {
            is_code_pending: record.offers_code(),
            record,
            order,
            revision,
            stop,
            shared: None,
            state: HandedState::Hashing,
            version: None,
            hashed_bytes: 0,
            total_bytes: 0,
            code: None,
            failed_attempts: 0,
            audience: Audience::default(),
        }
    }

    pub(super) fn view(&self) -> Handed {
        Handed {
            id: self.record.id,
            order: self.order,
            name: self.record.name.clone(),
            path: self.record.path.clone(),
            is_folder: self.record.is_folder,
            is_private: self.record.key.is_some(),
            state: self.state.clone(),
            version: self.version.clone(),
            hashed_bytes: self.hashed_bytes,
            total_bytes: self.total_bytes,
            uses_left: self.record.uses_left,
            code: self.code.clone(),
            is_code_pending: self.is_code_pending,
            failed_attempts: self.failed_attempts,
            audience: self.audience.clone(),
        }
    }
}
