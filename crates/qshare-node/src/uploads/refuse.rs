//! Refusals that several kinds of requests share.

use qshare_content::{ContentId, Topic};
use qshare_storage::ReadError;
use qshare_wire::{Refusal, Refused};

use super::unlock::UnlockedTopics;
use crate::shares::{Found, Holding, ShareStore};

/// Returns the content that a request names, or refuses. The name is the id of a public content, or
/// a topic that the connection has unlocked. Everything else is refused with the same bytes.
pub(super) fn find(
    shares: &ShareStore,
    unlocked: &UnlockedTopics,
    named: &ContentId,
) -> Result<Holding, Refused> {
    let topic = Topic(named.0);
    let public = shares.find(named);
    let private = shares.find_private(&topic);
    let private = private.filter(|(_, unlocked_by)| unlocked.contains(unlocked_by));
    match (public, private) {
        (Some(holding), _) | (None, Some((Found::Holding(holding), _))) => Ok(holding),
        (None, Some((Found::Changed, _))) => Err(Refused::new(Refusal::Changed)),
        (None, None) => {
            let former = shares.changed_member(&topic);
            let is_changed = former.is_some_and(|former| unlocked.contains(&former));
            Err(Refused::new(match is_changed {
                true => Refusal::Changed,
                false => Refusal::NotHere,
            }))
        }
    }
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
