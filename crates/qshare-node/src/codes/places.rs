//! Where a code is claimed: at one tracker of each registry.
//!
//! Trackers that share a registry have one set of mailboxes. The sharer claims at one of them, and
//! takes its mailbox back at another when that one is lost.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::trackers::{Registries, RegistryClaim};

/// The tokens of one code, and the registries at which it is claimed.
pub(super) struct Places {
    registries: Registries,
    tokens: Mutex<HashMap<Place, [u8; 32]>>,
}

/// What has mailboxes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Registry([u8; 16]),
    /// A tracker that shares its registry with none, by its position among the configured ones.
    Tracker(usize),
}

impl Places {
    pub(super) fn new() -> Places {
        Places {
            registries: Registries::new(),
            tokens: Mutex::default(),
        }
    }

    /// Returns the token for the tracker at this position.
    pub(super) fn token(&self, registry: Option<[u8; 16]>, position: usize) -> [u8; 32] {
        let place = registry.map_or(Place::Tracker(position), Place::Registry);
        let tokens = self.tokens.lock();
        let mut tokens = tokens.unwrap_or_else(PoisonError::into_inner);
        *tokens.entry(place).or_insert_with(rand::random)
    }

    /// Returns the right to claim at a tracker of this registry, if no other session has it.
    pub(super) fn try_turn(&self, registry: Option<[u8; 16]>) -> Option<RegistryClaim> {
        self.registries.try_claim(registry)
    }

    /// Waits until no other session claims at a tracker of this registry.
    pub(super) async fn turn(&self, registry: Option<[u8; 16]>) -> RegistryClaim {
        self.registries.claim(registry).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_of_one_registry_get_one_token_and_one_claim() {
        let places = Places::new();
        let (one, other) = (Some([1; 16]), Some([2; 16]));
        assert_eq!(places.token(one, 0), places.token(one, 1));
        assert_ne!(places.token(one, 0), places.token(other, 0));
        assert_ne!(places.token(None, 0), places.token(None, 1));
        assert_eq!(places.token(None, 1), places.token(None, 1));
        let turn = places.try_turn(one);
        assert!(turn.is_some() && places.try_turn(one).is_none());
        assert!(places.try_turn(other).is_some());
        assert!(places.try_turn(None).is_some() && places.try_turn(None).is_some());
        drop(turn);
        assert!(places.try_turn(one).is_some());
    }
}
