//! Who makes the next snapshot: one asker at a time, networks in turn.
//!
//! Identities are free, so askers are counted by network: however many wait from one network, an
//! asker from another is next but one at the latest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::fair::{Claim, FairShares, Network, User};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Askers that wait. When there are more, the network with the most loses one.
const WAITING_MAX: u64 = 64;

/// The turns of all askers. Clones share them.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Queue>>);

/// The turn of one asker, which ends when it is dropped.
pub(super) struct Turn(Option<Turns>);

struct Queue {
    is_taken: bool,
    next_ticket: u64,
    places: FairShares<u64>,
    waiting: BTreeMap<Network, VecDeque<Waiter>>,
    /// Networks with waiting askers, the one whose turn is next first.
    order: VecDeque<Network>,
}

struct Waiter {
    ticket: u64,
    /// Dropped to refuse the asker.
    admit: oneshot::Sender<Turn>,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns(Arc::new(Mutex::new(Queue {
            is_taken: false,
            next_ticket: 0,
            places: FairShares::new(WAITING_MAX),
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
        })))
    }

    /// Waits for a turn. None if too many wait, or after `patience`.
    pub(super) async fn take(&self, network: Network, patience: Duration) -> Option<Turn> {
        let admitted = {
            let mut queue = self.lock();
            if !queue.is_taken {
                queue.is_taken = true;
                return Some(Turn(Some(self.clone())));
            }
            queue.wait(network)?
        };
        // A turn that is granted just now ends with the receiver.
        timeout(patience, admitted).await.ok()?.ok()
    }

    /// Returns the number of askers that wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        let queue = self.lock();
        let waiters = queue.waiting.values().flatten();
        waiters.filter(|waiter| !waiter.admit.is_closed()).count()
    }

    fn end_turn(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.next();
                queue.is_taken = next.is_some();
                next
            };
            // One that has given up returns the turn.
            let Some(next) = next else { return };
            match next.admit.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut turn) => turn.0 = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = &self.0 {
            turns.end_turn();
        }
    }
}

impl Queue {
    fn wait(&mut self, network: Network) -> Option<oneshot::Receiver<Turn>> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.forget_leavers();
        let user = User {
            network,
            id: ticket,
        };
        loop {
            match self.places.claim(user, 1) {
                Claim::Granted => break,
                Claim::Refused => return None,
                Claim::Yields(other) => self.refuse(other),
            }
        }
        let (admit, admitted) = oneshot::channel();
        let of_network = self.waiting.entry(network).or_default();
        if of_network.is_empty() {
            self.order.push_back(network);
        }
        of_network.push_back(Waiter { ticket, admit });
        Some(admitted)
    }

    /// Makes room: a waiting asker is refused.
    fn refuse(&mut self, user: User<u64>) {
        self.places.forget(user);
        if let Some(waiters) = self.waiting.get_mut(&user.network) {
            waiters.retain(|waiter| waiter.ticket != user.id);
            self.forget_if_empty(user.network);
        }
    }

    fn forget_leavers(&mut self) {
        let networks: Vec<Network> = self.order.iter().copied().collect();
        for network in networks {
            let Some(waiters) = self.waiting.get_mut(&network) else {
                continue;
            };
            let places = &mut self.places;
            waiters.retain(|waiter| {
                let has_left = waiter.admit.is_closed();
                if has_left {
                    let id = waiter.ticket;
                    places.forget(User { network, id });
                }
                !has_left
            });
            self.forget_if_empty(network);
        }
    }

    fn forget_if_empty(&mut self, network: Network) {
        if self.waiting.get(&network).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&network);
            self.order.retain(|other| *other != network);
        }
    }

    /// Returns the asker whose turn is next.
    fn next(&mut self) -> Option<Waiter> {
        let network = self.order.pop_front()?;
        let waiters = self.waiting.get_mut(&network)?;
        let next = waiters.pop_front()?;
        self.places.forget(User {
            network,
            id: next.ticket,
        });
        match waiters.is_empty() {
            true => _ = self.waiting.remove(&network),
            false => self.order.push_back(network),
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn network(byte: u8) -> Network {
        Network::V4([203, 0, byte])
    }

    /// Waits for a turn in a task, after the asker is in the queue.
    async fn asker(
        turns: &Turns,
        byte: u8,
        served: &Arc<Mutex<Vec<u8>>>,
    ) -> tokio::task::JoinHandle<bool> {
        let (asking, served) = (turns.clone(), served.clone());
        let before = turns.waiting();
        let asker = tokio::spawn(async move {
            let Some(_turn) = asking.take(network(byte), LONG).await else {
                return false;
            };
            served.lock().unwrap().push(byte);
            true
        });
        while turns.waiting() == before && !asker.is_finished() && before < WAITING_MAX as usize {
            tokio::task::yield_now().await;
        }
        asker
    }

    #[tokio::test]
    async fn networks_take_turns_however_many_wait_from_one() {
        let (turns, served) = (Turns::new(), Arc::default());
        let first = turns.take(network(1), LONG).await.unwrap();
        let mut askers = Vec::new();
        for byte in [1, 1, 1, 1, 2, 2, 3] {
            askers.push(asker(&turns, byte, &served).await);
        }
        drop(first);
        for asker in askers {
            assert!(asker.await.unwrap());
        }
        assert_eq!(*served.lock().unwrap(), [1, 2, 3, 1, 2, 1, 1]);
        assert_eq!(turns.waiting(), 0);
        // Nobody has the turn.
        assert!(turns.take(network(9), Duration::ZERO).await.is_some());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_the_network_that_fills_it() {
        let (turns, served) = (Turns::new(), Arc::default());
        let first = turns.take(network(1), LONG).await.unwrap();
        let mut askers = Vec::new();
        for _ in 0..WAITING_MAX {
            askers.push(asker(&turns, 1, &served).await);
        }
        assert!(turns.take(network(1), LONG).await.is_none());
        let other = asker(&turns, 2, &served).await;
        while turns.lock().places.used_by_network(network(2)) == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(other.await.unwrap());
        let mut refused = 0;
        for asker in askers {
            refused += u32::from(!asker.await.unwrap());
        }
        assert_eq!(refused, 1);
        // Network 1 had the turn and waited first, so network 2 is second.
        assert_eq!(served.lock().unwrap()[..3], [1, 2, 1]);
    }

    #[tokio::test]
    async fn one_that_gave_up_keeps_nobody_waiting() {
        let (turns, served) = (Turns::new(), Arc::default());
        let first = turns.take(network(1), LONG).await.unwrap();
        assert!(turns.take(network(2), Duration::ZERO).await.is_none());
        let gone = asker(&turns, 3, &served).await;
        gone.abort();
        assert!(gone.await.is_err());
        let last = asker(&turns, 4, &served).await;
        drop(first);
        assert!(last.await.unwrap());
        assert_eq!(*served.lock().unwrap(), [4]);
    }
}
