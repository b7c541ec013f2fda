//! Refusals that several kinds of requests share.

use qshare_content::ContentId;
use qshare_storage::ReadError;
use qshare_wire::{Refusal, Refused};

use crate::shares::{Holding, ShareStore};

/// Returns the content, or refuses.
pub(super) fn find(shares: &ShareStore, content: &ContentId) -> Result<Holding, Refused> {
    shares
        .find(content)
        .ok_or_else(|| Refused::new(Refusal::NotHere))
}

/// Returns the refusal for a failed read. It does not name the cause, because paths are private.
pub(super) fn refuse_read(error: &ReadError) -> Refused {
    match error {
        ReadError::NotHere => Refused::new(Refusal::NotHere),
        ReadError::Changed => Refused::new(Refusal::Changed),
        ReadError::Disk(_) => Refused::new(Refusal::Failed),
    }
}

/// The refusal that asks the other side to retry later.
pub(super) fn busy(reason: &str, retry_ms: u32) -> Refused {
    let mut refused = match reason.is_empty() {
        true => Refused::new(Refusal::Busy),
        false => Refused::because(Refusal::Busy, reason),
    };
    refused.retry_after_ms = retry_ms;
    refused
}
