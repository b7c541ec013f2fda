//! A bounded resource that sessions share fairly: memory for announcements and answers, and open
//! request streams.
//!
//! A session may use everything that no other session needs. When the resource is used up, the
//! heaviest session of the heaviest network yields to sessions that use less
//! ([`qshare_content::fair`]).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_content::fair::{Claim, FairShares, Network, User};
use qshare_registry::SessionId;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A session and the network that it comes from.
pub(crate) type SessionUser = User<SessionId>;

/// A bounded resource, in bytes or pieces. Clones share it.
#[derive(Clone)]
pub(crate) struct FairBudget(Arc<SharedBudget>);

struct SharedBudget {
    state: Mutex<State>,
    released: Notify,
}

struct State {
    shares: FairShares<SessionId>,
    holdings: BTreeMap<SessionUser, BTreeMap<u64, Holding>>,
    next_id: u64,
}

struct Holding {
    amount: u64,
    evicted: CancellationToken,
}

/// A part of the resource, held until it is dropped or evicted.
pub(crate) struct Reservation {
    budget: FairBudget,
    user: SessionUser,
    id: u64,
    evicted: CancellationToken,
}

/// There is no room, and no heavier user could yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl FairBudget {
    pub(crate) fn new(capacity: u64) -> FairBudget {
        FairBudget(Arc::new(SharedBudget {
            state: Mutex::new(State {
                shares: FairShares::new(capacity),
                holdings: BTreeMap::new(),
                next_id: 0,
            }),
            released: Notify::new(),
        }))
    }

    /// Reserves `amount`, if necessary by evicting a heavier user. `evicted` is cancelled when this
    /// reservation has to yield; its owner then releases it.
    pub(crate) fn try_reserve(
        &self,
        user: SessionUser,
        amount: u64,
        evicted: CancellationToken,
    ) -> Result<Reservation, NoRoom> {
        let mut state = self.lock();
        state.claim(user, amount)?;
        let id = state.next_id;
        state.next_id += 1;
        let holding = Holding {
            amount,
            evicted: evicted.clone(),
        };
        state.holdings.entry(user).or_default().insert(id, holding);
        drop(state);
        Ok(Reservation {
            budget: self.clone(),
            user,
            id,
            evicted,
        })
    }

    /// Returns how much all sessions hold together.
    pub(crate) fn used(&self) -> u64 {
        self.lock().shares.used()
    }

    /// Returns how much networks hold, up to `max` of them, the heaviest ones.
    pub(crate) fn network_use(&self, max: usize) -> BTreeMap<Network, u64> {
        let heaviest = self.lock().shares.heaviest_networks(max);
        heaviest.into_iter().collect()
    }

    /// Replaces what networks hold of such resources of other trackers.
    pub(crate) fn set_use_elsewhere(&self, elsewhere: BTreeMap<Network, u64>) {
        self.lock().shares.set_elsewhere(elsewhere);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Waits until the reservation is evicted.
    pub(crate) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evicted.cancelled()
    }

    /// Reserves `amount` more, and waits until there is room. Fails once evicted.
    pub(crate) async fn grow(&self, amount: u64) -> Result<(), NoRoom> {
        loop {
            let mut released = pin!(self.budget.0.released.notified());
            released.as_mut().enable();
            if self.evicted.is_cancelled() {
                return Err(NoRoom);
            }
            if self.try_grow(amount).is_ok() {
                return Ok(());
            }
            tokio::select! {
                () = released => {}
                () = self.evicted() => return Err(NoRoom),
            }
        }
    }

    /// Reserves `amount` more if there is room.
    pub(crate) fn try_grow(&self, amount: u64) -> Result<(), NoRoom> {
        let mut state = self.budget.lock();
        if !state.has(self.user, self.id) {
            return Err(NoRoom);
        }
        state.claim(self.user, amount)?;
        // The claim may have evicted this very reservation.
        let user = self.user;
        match state.holding(user, self.id) {
            Some(holding) => {
                holding.amount += amount;
                Ok(())
            }
            None => {
                state.shares.release(user, amount);
                Err(NoRoom)
            }
        }
    }

    /// Gives a part back.
    pub(crate) fn shrink(&self, amount: u64) {
        let mut state = self.budget.lock();
        let user = self.user;
        if let Some(holding) = state.holding(user, self.id) {
            let less = amount.min(holding.amount);
            holding.amount -= less;
            state.shares.release(user, less);
        }
        drop(state);
        self.budget.0.released.notify_waiters();
    }

    /// Adds `amount` whether there is room or not, for memory that is in use already.
    pub(crate) fn count(&self, amount: u64) {
        let mut state = self.budget.lock();
        if let Some(holding) = state.holding(self.user, self.id) {
            holding.amount += amount;
            state.shares.add(self.user, amount);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.remove(self.user, self.id);
        drop(state);
        self.budget.0.released.notify_waiters();
    }
}

impl State {
    fn claim(&mut self, user: SessionUser, amount: u64) -> Result<(), NoRoom> {
        loop {
            match self.shares.claim(user, amount) {
                Claim::Granted => return Ok(()),
                Claim::Refused => return Err(NoRoom),
                Claim::Yields(heavy) => self.evict_one(heavy),
            }
        }
    }

    /// Evicts the largest reservation of a user; of equally large ones, the newest.
    fn evict_one(&mut self, user: SessionUser) {
        let holdings = self.holdings.get(&user);
        let largest = holdings.and_then(|holdings| {
            let sizes = holdings.iter().map(|(&id, holding)| (holding.amount, id));
            sizes.max().map(|(_, id)| id)
        });
        match largest.and_then(|id| self.remove(user, id)) {
            Some(holding) => holding.evicted.cancel(),
            // The user holds nothing, so the accounts are wrong. They must not keep a claimant
            // waiting.
            None => _ = self.shares.forget(user),
        }
    }

    fn has(&self, user: SessionUser, id: u64) -> bool {
        self.holdings
            .get(&user)
            .is_some_and(|holdings| holdings.contains_key(&id))
    }

    fn holding(&mut self, user: SessionUser, id: u64) -> Option<&mut Holding> {
        self.holdings.get_mut(&user)?.get_mut(&id)
    }

    fn remove(&mut self, user: SessionUser, id: u64) -> Option<Holding> {
        let holdings = self.holdings.get_mut(&user)?;
        let holding = holdings.remove(&id)?;
        if holdings.is_empty() {
            self.holdings.remove(&user);
        }
        self.shares.release(user, holding.amount);
        Some(holding)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use qshare_content::NodeId;
    use qshare_registry::{GroupId, Registry, RegistryConfig};

    use super::*;

    /// Returns sessions of these networks, in order. Only a registry creates session ids.
    pub(crate) fn users(networks: &[u8]) -> Vec<SessionUser> {
        let now = Instant::now();
        let mut registry = Registry::new(RegistryConfig::default(), now, 1);
        let users = networks.iter().enumerate().map(|(n, &network)| {
            let at = SocketAddr::from(([203, 0, network, 1], 2000));
            let mut node = [0; 32];
            node[..8].copy_from_slice(&n.to_be_bytes());
            let opened = registry.handle_session_opened(now, GroupId::OPEN, NodeId(node), at, &[]);
            User {
                network: Network::of(at.ip()),
                id: opened.unwrap(),
            }
        });
        users.collect()
    }

    fn reserve(budget: &FairBudget, user: SessionUser, amount: u64) -> Option<Reservation> {
        budget
            .try_reserve(user, amount, CancellationToken::new())
            .ok()
    }

    #[test]
    fn a_session_may_use_all_that_nobody_else_wants() {
        let users = users(&[1]);
        let budget = FairBudget::new(100);
        let all = reserve(&budget, users[0], 100).unwrap();
        assert!(reserve(&budget, users[0], 1).is_none());
        assert!(!all.evicted.is_cancelled());
        drop(all);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_largest_reservation_of_the_heaviest_user_yields_to_a_newcomer() {
        let users = users(&[1, 1, 2, 3]);
        let budget = FairBudget::new(100);
        let light = reserve(&budget, users[1], 20).unwrap();
        let other = reserve(&budget, users[2], 20).unwrap();
        let small = reserve(&budget, users[0], 20).unwrap();
        let large = reserve(&budget, users[0], 40).unwrap();
        let newcomer = reserve(&budget, users[3], 10).unwrap();
        assert!(large.evicted.is_cancelled());
        for kept in [&light, &other, &small, &newcomer] {
            assert!(!kept.evicted.is_cancelled());
        }
        assert_eq!(budget.used(), 70);
        drop(large);
        assert_eq!(budget.used(), 70, "what was evicted is released once");
        drop((light, other, small, newcomer));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_reservation_grows_and_an_evicted_one_does_not() {
        let users = users(&[1, 2]);
        let budget = FairBudget::new(100);
        let growing = reserve(&budget, users[0], 0).unwrap();
        assert_eq!(growing.try_grow(90), Ok(()));
        assert_eq!(growing.try_grow(20), Err(NoRoom));
        let _newcomer = reserve(&budget, users[1], 30).unwrap();
        assert!(growing.evicted.is_cancelled());
        assert_eq!(growing.try_grow(1), Err(NoRoom));
        growing.count(50);
        assert_eq!(budget.used(), 30);
    }

    #[tokio::test]
    async fn a_session_that_waits_is_served_once_there_is_room() {
        let users = users(&[1, 1]);
        let budget = FairBudget::new(100);
        let held = reserve(&budget, users[0], 50).unwrap();
        let waiting = reserve(&budget, users[1], 50).unwrap();
        let grown = tokio::spawn(async move {
            waiting.grow(40).await.unwrap();
            waiting
        });
        tokio::task::yield_now().await;
        assert!(!grown.is_finished());
        drop(held);
        let waiting = grown.await.unwrap();
        assert_eq!(budget.used(), 90);
        drop(waiting);
    }
}
