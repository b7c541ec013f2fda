//! The store of mailboxes in Redis: one for all trackers of a registry.

use std::sync::Arc;

use qshare_content::NodeId;
use qshare_wire::mailbox::MailboxFault;
use tracing::debug;

use super::store::{
    Answer, Claim, ClaimError, Granted, MailboxState, MailboxStore, StoreAway, TokenHash,
};
use crate::shared::{
    MailboxRecords, MailboxTimes, RecordClaim, RecordClaimed, RecordState, SharedRegistry,
};

/// A store that trackers share.
pub(crate) struct SharedMailboxes {
    records: MailboxRecords,
    shared: Arc<SharedRegistry>,
    us: NodeId,
}

impl SharedMailboxes {
    pub(crate) fn new(
        shared: &Arc<SharedRegistry>,
        times: MailboxTimes,
        max: usize,
    ) -> SharedMailboxes {
        SharedMailboxes {
            records: shared.mailboxes(times, max),
            shared: Arc::clone(shared),
            us: shared.us(),
        }
    }
}

impl MailboxStore for SharedMailboxes {
    fn claim(&self, claim: Claim) -> Answer<'_, Result<Granted, ClaimError>> {
        Box::pin(async move {
            let record = RecordClaim {
                number: claim.number,
                token_hash: claim.token.0,
                stream: claim.stream,
                owner: claim.owner,
            };
            let claimed = self.records.claim(&record).await.map_err(|fault| {
                debug!(cause = %fault, "a mailbox cannot be claimed");
                ClaimError::Away
            })?;
            let (remaining, yielded) = match claimed {
                RecordClaimed::Granted(remaining, yielded) => (remaining, yielded),
                RecordClaimed::Taken => return Err(ClaimError::Taken),
                RecordClaimed::Full => return Err(ClaimError::Full),
            };
            let mut evicted = Vec::new();
            for (number, tracker) in yielded {
                match tracker {
                    Some(tracker) if tracker == self.us => evicted.push(number),
                    Some(tracker) => self.shared.pairings.tell_evicted(tracker, number).await,
                    None => {}
                }
            }
            Ok(Granted { remaining, evicted })
        })
    }

    fn end(&self, number: u32, token: TokenHash, why: MailboxFault) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Err(fault) = self.records.end(number, token.0, why).await {
                // It expires by itself, and until then its sharer is away.
                debug!(cause = %fault, "the end of a mailbox was not recorded");
            }
        })
    }

    fn leave(&self, number: u32, stream: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Err(fault) = self.records.leave(number, stream).await {
                debug!(cause = %fault, "the end of a mailbox's stream was not recorded");
            }
        })
    }

    fn state(&self, number: u32) -> Answer<'_, Result<MailboxState, StoreAway>> {
        Box::pin(async move {
            match self.records.state(number).await {
                Ok(RecordState::Unknown) => Ok(MailboxState::Unknown),
                Ok(RecordState::Ended(why)) => Ok(MailboxState::Ended(why)),
                // A stream that this tracker does not have is lost.
                Ok(RecordState::Claimed(tracker)) => Ok(MailboxState::Claimed(
                    tracker.filter(|&tracker| tracker != self.us),
                )),
                Err(fault) => {
                    debug!(cause = %fault, "a mailbox cannot be read");
                    Err(StoreAway)
                }
            }
        })
    }
}
