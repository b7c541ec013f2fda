//! The interface of a store of mailboxes: which number is claimed by whom, until when.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_content::fair::User;
use qshare_wire::mailbox::MailboxFault;

use crate::shared::MailboxTimes;

/// How long mailboxes and their numbers last: a code expires after a day, and an old code never
/// meets another sharer.
pub(crate) const TIMES: MailboxTimes = MailboxTimes {
    lifetime: Duration::from_secs(24 * 3600),
    rest: Duration::from_secs(24 * 3600),
};

/// SHA-256 of a claim's token. The token itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// A claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) number: u32,
    pub(crate) token: TokenHash,
    /// Names the sharer's stream: it is random.
    pub(crate) stream: u64,
    /// The sharer, as a user of the store's capacity.
    pub(crate) owner: User<NodeId>,
}

/// A claim that was granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Time until the mailbox expires.
    pub(crate) remaining: Duration,
    /// Mailboxes of heavier users at this tracker that the full store has removed to make room.
    pub(crate) evicted: Vec<u32>,
}

/// Why a number was not claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// It belongs to somebody else, or its mailbox has ended less than [`MailboxTimes::rest`] ago.
    Taken,
    /// The store is full, and no heavier user could yield.
    Full,
    /// The store cannot be reached.
    Away,
}

/// What a store knows of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailboxState {
    /// Nothing.
    Unknown,
    /// It is claimed; the other tracker to which the sharer's stream leads, if there is one.
    Claimed(Option<NodeId>),
    /// It has ended, for this reason.
    Ended(MailboxFault),
}

/// The store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreAway;

/// An answer of a store.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of mailboxes. [`super::memory::MemoryMailboxes`] keeps them in memory, and
/// [`super::shared_store::SharedMailboxes`] in Redis, where all trackers of a registry have one
/// store. The tests in `conformance` hold for both.
///
/// A claim must be atomic: of two claimers of a free number, one gets it. The store forgets a
/// number [`MailboxTimes::rest`] after its mailbox has ended.
pub(crate) trait MailboxStore: Send + Sync {
    /// Claims a free number, or takes a mailbox back: a claim with the token of a mailbox that has
    /// not ended is granted, and does not extend its lifetime.
    fn claim(&self, claim: Claim) -> Answer<'_, Result<Granted, ClaimError>>;

    /// Ends a mailbox, if the token is right. [`MailboxStore::state`] tells this reason from then
    /// on.
    fn end(&self, number: u32, token: TokenHash, why: MailboxFault) -> Answer<'_, ()>;

    /// The stream of a claim has ended. The mailbox stays claimed.
    fn leave(&self, number: u32, stream: u64) -> Answer<'_, ()>;

    /// Returns what is known of a number.
    fn state(&self, number: u32) -> Answer<'_, Result<MailboxState, StoreAway>>;
}
