//! Mailboxes in the tracker's own memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_content::NodeId;
use qshare_content::fair::{Claim as Share, FairShares, User};
use qshare_wire::mailbox::MailboxFault;

use super::store::{
    Answer, Claim, ClaimError, Granted, MailboxState, MailboxStore, StoreAway, TokenHash,
};
use crate::shared::MailboxTimes;

/// A store in memory. A restart of the tracker empties it; sharers then claim their numbers again.
pub(crate) struct MemoryMailboxes(Mutex<Table>);

impl MemoryMailboxes {
    /// `mailboxes_max` bounds the numbers that are known, those of ended mailboxes included.
    pub(crate) fn new(times: MailboxTimes, mailboxes_max: usize) -> MemoryMailboxes {
        MemoryMailboxes(Mutex::new(Table::new(times, mailboxes_max)))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MailboxStore for MemoryMailboxes {
    fn claim(&self, claim: Claim) -> Answer<'_, Result<Granted, ClaimError>> {
        Box::pin(async move { self.lock().claim(Instant::now(), claim) })
    }

    fn end(&self, number: u32, token: TokenHash, why: MailboxFault) -> Answer<'_, ()> {
        Box::pin(async move { self.lock().end(Instant::now(), number, token, why) })
    }

    fn leave(&self, _number: u32, _stream: u64) -> Answer<'_, ()> {
        // Only this tracker has streams of its mailboxes, and knows them.
        Box::pin(std::future::ready(()))
    }

    fn state(&self, number: u32) -> Answer<'_, Result<MailboxState, StoreAway>> {
        Box::pin(async move { Ok(self.lock().state(Instant::now(), number)) })
    }
}

/// The mailboxes, with the time as an argument.
struct Table {
    times: MailboxTimes,
    mailboxes: BTreeMap<u32, Mailbox>,
    /// Numbers in the order in which they are forgotten.
    by_end: BTreeSet<(Instant, u32)>,
    /// Numbers of each owner; ended mailboxes before others, older before newer ones.
    by_owner: BTreeMap<User<NodeId>, BTreeSet<(bool, Instant, u32)>>,
    shares: FairShares<NodeId>,
}

#[derive(Clone, Copy)]
struct Mailbox {
    token: TokenHash,
    owner: User<NodeId>,
    expires: Instant,
    /// When the number is forgotten.
    forgotten: Instant,
    ended: Option<MailboxFault>,
}

impl Mailbox {
    fn ended(&self, now: Instant) -> Option<MailboxFault> {
        let expired = (now >= self.expires).then_some(MailboxFault::Expired);
        self.ended.or(expired)
    }

    fn rank(&self, number: u32) -> (bool, Instant, u32) {
        (self.ended.is_none(), self.forgotten, number)
    }
}

impl Table {
    fn new(times: MailboxTimes, mailboxes_max: usize) -> Table {
        Table {
            times,
            mailboxes: BTreeMap::new(),
            by_end: BTreeSet::new(),
            by_owner: BTreeMap::new(),
            shares: FairShares::new(mailboxes_max as u64),
        }
    }

    fn claim(&mut self, now: Instant, claim: Claim) -> Result<Granted, ClaimError> {
        self.forget_old(now);
        if let Some(mailbox) = self.mailboxes.get(&claim.number) {
            return match mailbox.token == claim.token && mailbox.ended(now).is_none() {
                true => Ok(Granted {
                    remaining: mailbox.expires.saturating_duration_since(now),
                    evicted: Vec::new(),
                }),
                false => Err(ClaimError::Taken),
            };
        }
        let mut evicted = Vec::new();
        loop {
            match self.shares.claim(claim.owner, 1) {
                Share::Granted => break,
                Share::Refused => return Err(ClaimError::Full),
                Share::Yields(heavy) => match self.first_of(heavy) {
                    Some(number) => {
                        self.remove(number);
                        evicted.push(number);
                    }
                    // The accounts are wrong; they must not keep a claimer waiting.
                    None => _ = self.shares.forget(heavy),
                },
            }
        }
        let expires = now + self.times.lifetime;
        let mailbox = Mailbox {
            token: claim.token,
            owner: claim.owner,
            expires,
            forgotten: expires + self.times.rest,
            ended: None,
        };
        self.insert(claim.number, mailbox);
        Ok(Granted {
            remaining: self.times.lifetime,
            evicted,
        })
    }

    fn end(&mut self, now: Instant, number: u32, token: TokenHash, why: MailboxFault) {
        let Some(mailbox) = self.mailboxes.get(&number).copied() else {
            return;
        };
        if mailbox.token != token || mailbox.ended(now).is_some() {
            return;
        }
        self.unlink(number, &mailbox);
        self.insert(
            number,
            Mailbox {
                forgotten: now + self.times.rest,
                ended: Some(why),
                ..mailbox
            },
        );
    }

    fn state(&mut self, now: Instant, number: u32) -> MailboxState {
        self.forget_old(now);
        match self.mailboxes.get(&number) {
            None => MailboxState::Unknown,
            Some(mailbox) => match mailbox.ended(now) {
                None => MailboxState::Claimed(None),
                Some(why) => MailboxState::Ended(why),
            },
        }
    }

    fn first_of(&self, owner: User<NodeId>) -> Option<u32> {
        let (.., number) = self.by_owner.get(&owner)?.first()?;
        Some(*number)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some(&(at, number)) = self.by_end.first()
            && at <= now
        {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(mailbox) = self.mailboxes.remove(&number) {
            self.unlink(number, &mailbox);
            self.shares.release(mailbox.owner, 1);
        }
    }

    fn insert(&mut self, number: u32, mailbox: Mailbox) {
        self.by_end.insert((mailbox.forgotten, number));
        let owned = self.by_owner.entry(mailbox.owner).or_default();
        owned.insert(mailbox.rank(number));
        self.mailboxes.insert(number, mailbox);
    }

    fn unlink(&mut self, number: u32, mailbox: &Mailbox) {
        self.by_end.remove(&(mailbox.forgotten, number));
        if let Some(owned) = self.by_owner.get_mut(&mailbox.owner) {
            owned.remove(&mailbox.rank(number));
            if owned.is_empty() {
                self.by_owner.remove(&mailbox.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qshare_content::fair::Network;

    use super::super::store::TIMES;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn claim(number: u32, token: u8, network: u8) -> Claim {
        Claim {
            number,
            token: TokenHash([token; 32]),
            stream: 0,
            owner: User {
                network: Network::V4([203, 0, network]),
                id: NodeId([token; 32]),
            },
        }
    }

    #[test]
    fn a_number_belongs_to_its_first_claimer_who_may_take_it_back() {
        let (mut table, now) = (Table::new(TIMES, 10), Instant::now());
        assert!(table.claim(now, claim(7, 1, 1)).is_ok());
        assert_eq!(table.claim(now, claim(7, 2, 2)), Err(ClaimError::Taken));
        let later = now + Duration::from_secs(3600);
        let again = table.claim(later, claim(7, 1, 1)).unwrap();
        assert_eq!(again.remaining, TIMES.lifetime - Duration::from_secs(3600));
        assert_eq!(table.state(later, 7), MailboxState::Claimed(None));
        assert_eq!(table.state(later, 8), MailboxState::Unknown);
    }

    #[test]
    fn a_mailbox_expires_after_a_day_and_its_number_rests_for_another() {
        let (mut table, now) = (Table::new(TIMES, 10), Instant::now());
        table.claim(now, claim(7, 1, 1)).unwrap();
        let expired = now + TIMES.lifetime;
        assert_eq!(
            table.state(expired - SECOND, 7),
            MailboxState::Claimed(None)
        );
        let ended = MailboxState::Ended(MailboxFault::Expired);
        assert_eq!(table.state(expired, 7), ended);
        // Not even its owner gets it back.
        assert_eq!(table.claim(expired, claim(7, 1, 1)), Err(ClaimError::Taken));
        let free = expired + TIMES.rest;
        let taken = table.claim(free - SECOND, claim(7, 2, 2));
        assert_eq!(taken, Err(ClaimError::Taken));
        assert!(table.claim(free, claim(7, 2, 2)).is_ok());
    }

    #[test]
    fn an_ended_mailbox_tells_why_until_its_number_is_free_again() {
        let (mut table, now) = (Table::new(TIMES, 10), Instant::now());
        table.claim(now, claim(7, 1, 1)).unwrap();
        // Only the owner ends it.
        table.end(now, 7, TokenHash([2; 32]), MailboxFault::UsedUp);
        assert_eq!(table.state(now, 7), MailboxState::Claimed(None));
        table.end(now, 7, TokenHash([1; 32]), MailboxFault::Guessed);
        table.end(now, 7, TokenHash([1; 32]), MailboxFault::UsedUp);
        let ended = MailboxState::Ended(MailboxFault::Guessed);
        assert_eq!(table.state(now + TIMES.rest - SECOND, 7), ended);
        assert_eq!(table.claim(now, claim(7, 1, 1)), Err(ClaimError::Taken));
        assert_eq!(table.state(now + TIMES.rest, 7), MailboxState::Unknown);
        assert!(table.mailboxes.is_empty() && table.by_owner.is_empty());
        assert_eq!(table.shares.used(), 0);
    }

    #[test]
    fn when_it_is_full_the_network_with_the_most_yields_ended_ones_first() {
        let (mut table, now) = (Table::new(TIMES, 4), Instant::now());
        for number in 0..4 {
            table.claim(now, claim(number, 1, 1)).unwrap();
        }
        assert_eq!(table.claim(now, claim(9, 1, 1)), Err(ClaimError::Full));
        table.end(now, 2, TokenHash([1; 32]), MailboxFault::Ended);
        let granted = table.claim(now, claim(9, 2, 2)).unwrap();
        assert_eq!(granted.evicted, [2]);
        let granted = table.claim(now, claim(10, 2, 2)).unwrap();
        assert_eq!(granted.evicted, [0]);
        assert_eq!(table.claim(now, claim(11, 2, 2)), Err(ClaimError::Full));
        assert_eq!(table.mailboxes.len(), 4);
    }
}
