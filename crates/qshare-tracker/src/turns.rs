//! The order in which lookups run on the one thread.
//!
//! A lookup never takes longer than about a millisecond, but a session may request hundreds at
//! once, and identities are free. Waiting lookups therefore take turns: by network first, then by
//! session within the network. Each turn goes to the waiter with the least work so far (start-time
//! fair queueing, Goyal, Vin and Cheng 1996). A session is not limited while no other session
//! waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qshare_content::fair::{Network, User};
use qshare_registry::SessionId;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A lookup that has waited for this long is refused, and may be retried later.
const PATIENCE: Duration = Duration::from_secs(2);
/// Steps of work, about 4 ns each, after which the thread serves its sockets before the next turn:
/// 0.1 ms.
pub(crate) const LONG_STEPS: u64 = 25_000;

/// The lookup turns of all sessions of a tracker.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whether a lookup has the turn.
    taken: bool,
    queue: FairQueue<oneshot::Sender<Turn>>,
}

/// The right to run a lookup. Dropping it passes the turn to the next waiter.
pub(crate) struct Turn {
    turns: Turns,
    user: User<SessionId>,
    /// False if the turn was never handed over.
    is_live: bool,
}

impl Turns {
    /// Takes the turn if no other lookup has it or waits for it.
    pub(crate) fn try_take(&self, user: User<SessionId>) -> Option<Turn> {
        let mut state = self.lock();
        if state.taken {
            return None;
        }
        state.taken = true;
        Some(self.turn_of(user))
    }

    /// Waits for a turn. Returns None after [`PATIENCE`].
    pub(crate) async fn take(&self, user: User<SessionId>) -> Option<Turn> {
        let turn = {
            let mut state = self.lock();
            if state.taken {
                let (sender, receiver) = oneshot::channel();
                state.queue.push(user, sender);
                receiver
            } else {
                state.taken = true;
                return Some(self.turn_of(user));
            }
        };
        timeout(PATIENCE, turn).await.ok()?.ok()
    }

    fn turn_of(&self, user: User<SessionId>) -> Turn {
        Turn {
            turns: self.clone(),
            user,
            is_live: true,
        }
    }

    fn pass_on(&self) {
        let mut state = self.lock();
        while let Some((user, waiting)) = state.queue.pop() {
            match waiting.send(self.turn_of(user)) {
                Ok(()) => return,
                // The waiter has given up.
                Err(mut turn) => turn.is_live = false,
            }
        }
        state.taken = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Ends the turn, and charges the work that was done in it.
    pub(crate) async fn end(self, steps: u64) {
        if steps >= LONG_STEPS {
            // The runtime serves its sockets before it polls this task again.
            tokio::task::yield_now().await;
        }
        // The lookups that came meanwhile count as waiting, so the work is charged only now.
        self.turns.lock().queue.charge(self.user, steps);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_live {
            self.turns.pass_on();
        }
    }
}

/// Waiting networks and, within these, waiting sessions. The one with the least work comes first. A
/// newcomer starts with the work of the current turn.
struct FairQueue<T> {
    /// The work of the network that had the last turn.
    clock: u64,
    networks: BTreeMap<Network, NetworkQueue<T>>,
    ready: BTreeSet<(u64, Network)>,
    /// Number of networks that remained after the last purge of those not ahead of the clock.
    kept: usize,
}

struct NetworkQueue<T> {
    work: u64,
    clock: u64,
    sessions: BTreeMap<SessionId, SessionQueue<T>>,
    ready: BTreeSet<(u64, SessionId)>,
}

struct SessionQueue<T> {
    work: u64,
    waiting: VecDeque<T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue {
            clock: 0,
            networks: BTreeMap::new(),
            ready: BTreeSet::new(),
            kept: 0,
        }
    }
}

impl<T> Default for NetworkQueue<T> {
    fn default() -> NetworkQueue<T> {
        NetworkQueue {
            work: 0,
            clock: 0,
            sessions: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }
}

impl<T> Default for SessionQueue<T> {
    fn default() -> SessionQueue<T> {
        SessionQueue {
            work: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<T> FairQueue<T> {
    fn push(&mut self, user: User<SessionId>, waiting: T) {
        self.forget_the_idle();
        let User { network, id } = user;
        let of_network = self.networks.entry(network).or_default();
        if of_network.ready.is_empty() {
            of_network.work = of_network.work.max(self.clock);
            self.ready.insert((of_network.work, network));
        }
        let session = of_network.sessions.entry(id).or_default();
        if session.waiting.is_empty() {
            session.work = session.work.max(of_network.clock);
            of_network.ready.insert((session.work, id));
        }
        session.waiting.push_back(waiting);
    }

    /// Returns the next waiter. If there is none, the accounts are cleared.
    fn pop(&mut self) -> Option<(User<SessionId>, T)> {
        let Some(&(work, network)) = self.ready.first() else {
            *self = FairQueue::default();
            return None;
        };
        self.clock = work;
        let of_network = self.networks.get_mut(&network)?;
        let &(work, id) = of_network.ready.first()?;
        of_network.clock = work;
        let session = of_network.sessions.get_mut(&id)?;
        let waiting = session.waiting.pop_front()?;
        if session.waiting.is_empty() {
            of_network.ready.remove(&(work, id));
            if of_network.ready.is_empty() {
                self.ready.remove(&(of_network.work, network));
            }
        }
        Some((User { network, id }, waiting))
    }

    /// Charges the work of a turn, which matters only while other lookups wait.
    fn charge(&mut self, user: User<SessionId>, steps: u64) {
        if self.ready.is_empty() {
            return;
        }
        let User { network, id } = user;
        let of_network = self.networks.entry(network).or_default();
        let is_ready = self.ready.remove(&(of_network.work, network));
        of_network.work = of_network.work.max(self.clock) + steps;
        if is_ready {
            self.ready.insert((of_network.work, network));
        }
        let session = of_network.sessions.entry(id).or_default();
        let is_ready = of_network.ready.remove(&(session.work, id));
        session.work = session.work.max(of_network.clock) + steps;
        if is_ready {
            of_network.ready.insert((session.work, id));
        }
    }

    /// Drops networks and sessions that neither wait nor are ahead of the others, once there are
    /// many.
    fn forget_the_idle(&mut self) {
        const FEW: usize = 64;
        if self.networks.len() < 2 * self.kept.max(FEW) {
            return;
        }
        let clock = self.clock;
        self.networks.retain(|_, network| {
            let (clock_within, is_ready) = (network.clock, !network.ready.is_empty());
            network.sessions.retain(|_, session| {
                !session.waiting.is_empty() || (is_ready && session.work > clock_within)
            });
            is_ready || network.work > clock
        });
        self.kept = self.networks.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates session ids, which only a registry can create.
    fn sessions(count: usize) -> Vec<SessionId> {
        use std::net::SocketAddr;
        use std::time::Instant;

        use qshare_content::NodeId;
        use qshare_registry::{GroupId, Registry, RegistryConfig};

        let now = Instant::now();
        let mut registry = Registry::new(RegistryConfig::default(), now, 1);
        let at = SocketAddr::from(([127, 0, 0, 1], 2000));
        (0..count)
            .map(|n| {
                let node = NodeId([n as u8; 32]);
                registry
                    .handle_session_opened(now, GroupId::OPEN, node, at, &[])
                    .unwrap()
            })
            .collect()
    }

    fn network(n: u8) -> Network {
        Network::of([203, 0, n, 1].into())
    }

    /// Serves all waiters; returns them in the order of service.
    fn order(queue: &mut FairQueue<u32>, steps: impl Fn(u32) -> u64) -> Vec<u32> {
        let mut served = Vec::new();
        while let Some((user, who)) = queue.pop() {
            queue.charge(user, steps(who));
            served.push(who);
        }
        served
    }

    #[test]
    fn a_network_of_many_sessions_gets_one_turn_for_each_of_anothers() {
        let ids = sessions(11);
        let mut queue = FairQueue::default();
        for round in 0..5 {
            for &id in &ids[..10] {
                let network = network(1);
                queue.push(User { network, id }, 100 + round);
            }
        }
        for n in 0..5 {
            let (network, id) = (network(2), ids[10]);
            queue.push(User { network, id }, n);
        }
        let served = order(&mut queue, |_| 1000);
        let honest: Vec<usize> = (0..served.len()).filter(|&at| served[at] < 100).collect();
        assert_eq!(served.len(), 55);
        assert!(
            honest.iter().enumerate().all(|(n, &at)| at <= 2 * n + 1),
            "{honest:?}"
        );
    }

    #[test]
    fn within_a_network_sessions_take_turns_by_work() {
        let ids = sessions(2);
        let mut queue = FairQueue::default();
        let network = network(1);
        for n in 0..10 {
            queue.push(
                User {
                    network,
                    id: ids[0],
                },
                100 + n,
            );
            queue.push(
                User {
                    network,
                    id: ids[1],
                },
                n,
            );
        }
        // The first session requests ten times as much work in each turn, so it gets a tenth of the
        // turns.
        let served = order(&mut queue, |who| if who >= 100 { 1000 } else { 100 });
        let last_light = served.iter().rposition(|&who| who < 100).unwrap();
        let heavy = served[..last_light].iter().filter(|&&who| who >= 100);
        assert!(heavy.count() <= 2, "{served:?}");
    }

    #[test]
    fn who_comes_late_is_next_and_has_no_credit_for_the_past() {
        let ids = sessions(2);
        let mut queue = FairQueue::default();
        let heavy = User {
            network: network(1),
            id: ids[0],
        };
        let late = User {
            network: network(2),
            id: ids[1],
        };
        for n in 0..20 {
            queue.push(heavy, 100 + n);
        }
        for _ in 0..10 {
            let (user, _) = queue.pop().unwrap();
            queue.charge(user, 1000);
        }
        for n in 0..5 {
            queue.push(late, n);
        }
        let served = order(&mut queue, |_| 1000);
        assert!(served[..2].contains(&0), "{served:?}");
        let in_turn = served[..10].iter().filter(|&&who| who < 100).count();
        assert_eq!(in_turn, 5, "{served:?}");
        assert!(served[2..5].iter().any(|&who| who >= 100), "{served:?}");
    }

    #[test]
    fn networks_that_have_left_are_forgotten() {
        let id = sessions(1)[0];
        let mut queue = FairQueue::default();
        let stays = User {
            network: network(0),
            id,
        };
        queue.push(stays, 0);
        for n in 0..10_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let network = Network::of([99 - a, b, c, 1].into());
            queue.push(User { network, id }, n);
            queue.push(stays, n);
            let (user, _) = queue.pop().unwrap();
            queue.charge(user, 100);
            let (user, _) = queue.pop().unwrap();
            queue.charge(user, 100);
        }
        assert!(queue.networks.len() < 1_000, "{}", queue.networks.len());
    }

    #[tokio::test]
    async fn who_does_not_wait_takes_no_turn_from_others() {
        let ids = sessions(2);
        let user = |n: usize| User {
            network: network(1),
            id: ids[n],
        };
        let turns = Turns::default();
        let first = turns.try_take(user(0)).unwrap();
        assert!(turns.try_take(user(0)).is_none(), "it is taken");
        let waits = tokio::spawn({
            let (turns, user) = (turns.clone(), user(1));
            async move { turns.take(user).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(turns.try_take(user(0)).is_none(), "it is the waiter's");
        drop(waits.await.unwrap().unwrap());
        assert!(turns.try_take(user(0)).is_some(), "nobody waits");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_does_not_keep_the_turn() {
        let ids = sessions(3);
        let user = |n: usize| User {
            network: network(1),
            id: ids[n],
        };
        let turns = Turns::default();
        let first = turns.take(user(0)).await.unwrap();
        let given_up = tokio::spawn({
            let (turns, user) = (turns.clone(), user(1));
            async move { turns.take(user).await.is_some() }
        });
        tokio::task::yield_now().await;
        let waits = tokio::spawn({
            let (turns, user) = (turns.clone(), user(2));
            async move { turns.take(user).await.is_some() }
        });
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.is_err());
        first.end(LONG_STEPS).await;
        assert!(waits.await.unwrap());
        assert!(turns.take(user(0)).await.is_some(), "it was passed on");
    }
}
