//! The places of a server's connections, which networks share fairly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qshare_node::content::fair::{Claim, FairShares, Network, User};
use tokio_util::sync::CancellationToken;

/// Connections at once. A browser opens six; a connection costs at most some 100 KiB.
const CONNECTIONS_MAX: u64 = 256;

/// The connections, which networks share fairly.
pub(super) struct Places {
    state: Mutex<PlacesState>,
}

struct PlacesState {
    shares: FairShares<u64>,
    yielding: HashMap<u64, CancellationToken>,
    next: u64,
}

/// The place of a connection, given back when it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    user: User<u64>,
    /// Cancelled when the connection has to make room for another network's.
    pub(super) yielded: CancellationToken,
}

impl Places {
    pub(super) fn new() -> Places {
        Places {
            state: Mutex::new(PlacesState {
                shares: FairShares::new(CONNECTIONS_MAX),
                yielding: HashMap::new(),
                next: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PlacesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection; returns None if its network has its part of all places.
    pub(super) fn take(self: &Arc<Places>, from: IpAddr) -> Option<Place> {
        let mut state = self.lock();
        state.next += 1;
        let user = User {
            network: Network::of(from),
            id: state.next,
        };
        loop {
            match state.shares.claim(user, 1) {
                Claim::Granted => break,
                Claim::Refused => return None,
                Claim::Yields(other) => {
                    state.shares.forget(other);
                    if let Some(yielding) = state.yielding.remove(&other.id) {
                        yielding.cancel();
                    }
                }
            }
        }
        let yielded = CancellationToken::new();
        state.yielding.insert(user.id, yielded.clone());
        Some(Place {
            places: self.clone(),
            user,
            yielded,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.shares.forget(self.user);
        state.yielding.remove(&self.user.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        [203, 0, last, 1].into()
    }

    #[test]
    fn a_network_with_many_connections_yields_to_another() {
        let places = Arc::new(Places::new());
        let greedy: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| places.take(from(1)).unwrap())
            .collect();
        assert!(places.take(from(1)).is_none(), "its own network is full");
        let other = places.take(from(2));
        assert!(other.is_some());
        let yielded = greedy.iter().filter(|place| place.yielded.is_cancelled());
        assert_eq!(yielded.count(), 1);
        drop(greedy);
        assert!(places.take(from(1)).is_some());
        assert_eq!(places.lock().yielding.len(), 1);
    }
}
