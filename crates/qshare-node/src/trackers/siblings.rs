//! Siblings of a tracker: other trackers of its registry, to which its nodes go when it is lost.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qshare_content::TrackerAddress;
use qshare_wire::Candidate;
use qshare_wire::CandidateKind;
use qshare_wire::siblings::Sibling;
use rand::seq::IndexedRandom;

use super::candidates::resolve_candidates;

/// The siblings of one configured tracker. They are kept in memory only.
#[derive(Default)]
pub(super) struct Siblings {
    known: Mutex<Vec<TrackerAddress>>,
}

impl Siblings {
    fn lock(&self) -> MutexGuard<'_, Vec<TrackerAddress>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the siblings by those that the tracker at `teller` sent. The configured trackers
    /// are none: what the user said of them counts.
    pub(super) fn set(&self, told: &[Sibling], teller: SocketAddr, configured: &[TrackerAddress]) {
        let addresses = told.iter().filter_map(|sibling| {
            let candidate = Candidate {
                kind: CandidateKind::Observed,
                address: sibling.address,
            };
            let at = *resolve_candidates(std::iter::once(&candidate), teller).first()?;
            Some(TrackerAddress {
                id: Some(sibling.tracker),
                host: at.ip().to_string(),
                port: at.port(),
            })
        });
        let is_configured = |at: &TrackerAddress| {
            let mut configured = configured.iter();
            configured.any(|other| other.host == at.host && other.port == at.port)
        };
        *self.lock() = addresses.filter(|at| !is_configured(at)).collect();
    }

    /// Returns a random sibling that is not `except`, so that nodes spread over them.
    pub(super) fn choose(&self, except: Option<&TrackerAddress>) -> Option<TrackerAddress> {
        let known = self.lock();
        let others: Vec<&TrackerAddress> = known.iter().filter(|at| Some(*at) != except).collect();
        others.choose(&mut rand::rng()).map(|&at| at.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use qshare_content::NodeId;
    use qshare_wire::Address;

    use super::*;

    fn sibling(id: u8, address: Address) -> Sibling {
        Sibling {
            tracker: NodeId([id; 32]),
            address,
        }
    }

    #[test]
    fn siblings_are_pinned_and_chosen_at_random() {
        let siblings = Siblings::default();
        assert_eq!(siblings.choose(None), None);
        let told = [
            sibling(1, Address::Socket(([192, 0, 2, 1], 65000).into())),
            sibling(2, Address::TrackerHost { port: 7000 }),
            sibling(3, Address::Socket(([192, 0, 2, 3], 65000).into())),
            sibling(4, Address::Socket(([0, 0, 0, 0], 65000).into())),
        ];
        let configured = ["192.0.2.3:65000".parse().unwrap()];
        siblings.set(&told, ([192, 0, 2, 9], 65000).into(), &configured);
        let chosen: HashSet<String> = (0..100)
            .map(|_| siblings.choose(None).unwrap().to_string())
            .collect();
        let expected = [
            format!("{}@192.0.2.1:65000", NodeId([1; 32])),
            format!("{}@192.0.2.9:7000", NodeId([2; 32])),
        ];
        assert_eq!(chosen, HashSet::from(expected.clone()));
        let other = siblings.choose(Some(&expected[0].parse().unwrap()));
        assert_eq!(other.unwrap().to_string(), expected[1]);
        siblings.set(&[], ([192, 0, 2, 9], 65000).into(), &configured);
        assert_eq!(siblings.choose(None), None);
    }
}
