//! Siblings of a tracker: other trackers of its registry, to which its nodes go when it is lost.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use qshare_content::TrackerAddress;
use qshare_wire::Candidate;
use qshare_wire::CandidateKind;
use qshare_wire::siblings::Sibling;

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

    /// Returns all siblings but one.
    pub(super) fn all_but(&self, except: &TrackerAddress) -> Vec<TrackerAddress> {
        let known = self.lock();
        known.iter().filter(|&at| at != except).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
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
    fn siblings_are_pinned_and_configured_trackers_are_none() {
        let siblings = Siblings::default();
        let none: TrackerAddress = "192.0.2.9:65000".parse().unwrap();
        assert_eq!(siblings.all_but(&none), []);
        let told = [
            sibling(1, Address::Socket(([192, 0, 2, 1], 65000).into())),
            sibling(2, Address::TrackerHost { port: 7000 }),
            sibling(3, Address::Socket(([192, 0, 2, 3], 65000).into())),
            sibling(4, Address::Socket(([0, 0, 0, 0], 65000).into())),
        ];
        let configured = ["192.0.2.3:65000".parse().unwrap()];
        siblings.set(&told, ([192, 0, 2, 9], 65000).into(), &configured);
        let expected = [
            format!("{}@192.0.2.1:65000", NodeId([1; 32])),
            format!("{}@192.0.2.9:7000", NodeId([2; 32])),
        ]
        .map(|text| text.parse::<TrackerAddress>().unwrap());
        assert_eq!(siblings.all_but(&none), expected);
        assert_eq!(siblings.all_but(&expected[0]), expected[1..]);
        siblings.set(&[], ([192, 0, 2, 9], 65000).into(), &configured);
        assert_eq!(siblings.all_but(&none), []);
    }
}
