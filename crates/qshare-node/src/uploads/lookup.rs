//! Answers lookups of neighbours, as a tracker does, from this node's own catalogue.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qshare_content::NodeId;
use qshare_net::TokenBucket;
use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::{Find, Found, Match, Readiness};
use qshare_wire::{Frame, Refusal, Refused};
use quinn::SendStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::pacing::PIECE_DEADLINE;
use super::refuse::busy;
use crate::neighbours::Neighbours;
use crate::peers::Peer;
use crate::shares::{Listing, ShareStore};

/// Burst of lookups from one address, and lookups per second afterwards. The limit is per address,
/// because identities are free.
const BURST: f64 = 400.0;
const PER_SECOND: f64 = 50.0;
/// Steps of work, about 4 ns each, that are charged like one lookup: 0.1 ms.
const STEPS_PER_LOOKUP: f64 = 25_000.0;
/// Limit on the addresses whose lookups are counted. An address that has its full allowance again
/// is evicted first.
const ASKERS_MAX: usize = 1024;
/// Retry time that is sent after too many lookups.
const RETRY_MS: u32 = 1_000;

/// Limit on the bytes of answers in memory that other nodes have not read yet.
const ANSWERS_MAX_BYTES: usize = 8 << 20;

/// Answers lookups.
pub(super) struct LookupAnswers {
    us: NodeId,
    shares: Arc<ShareStore>,
    neighbours: Arc<Neighbours>,
    askers: Askers,
    memory: Semaphore,
}

impl LookupAnswers {
    pub(super) fn new(
        us: NodeId,
        shares: Arc<ShareStore>,
        neighbours: Arc<Neighbours>,
    ) -> LookupAnswers {
        LookupAnswers {
            us,
            shares,
            neighbours,
            askers: Askers::new(),
            memory: Semaphore::new(ANSWERS_MAX_BYTES),
        }
    }

    /// Answers a lookup from a node on the local network.
    pub(super) async fn answer(
        &self,
        peer: &Peer,
        request: Find,
        send: &mut SendStream,
    ) -> Result<(), Refused> {
        // On other networks, trackers decide who may know the names.
        if !self.neighbours.is_on() || !self.neighbours.is_near(peer.address().ip()) {
            return Err(Refused::because(
                Refusal::NotAllowed,
                "names are told on the local network only",
            ));
        }
        let too_many = || busy("too many lookups", RETRY_MS);
        let address = peer.address().ip().to_canonical();
        if !self.askers.may_ask(address, Instant::now()) {
            return Err(too_many());
        }
        let limit = usize::from(request.limit).clamp(1, MATCHES_MAX);
        let after = request.after.as_deref();
        let listed = self.shares.list(self.us, &request.query, after, limit);
        let Listing {
            entries,
            more,
            steps,
        } = listed.map_err(|error| Refused::because(Refusal::Invalid, error.to_string()))?;
        self.askers.charge(address, Instant::now(), steps);
        let matches = entries.iter().map(|entry| Match {
            name: entry.asset.name.clone(),
            kind: entry.kind(),
            info: entry.asset.info,
            complete: u32::from(entry.complete),
            partial: u32::from(!entry.complete),
            holders: Vec::new(),
            metadata: entry.metadata().encode(),
        });
        let found = Found {
            readiness: Readiness::Ready,
            matches: matches.collect(),
            nodes: Vec::new(),
            more,
            near: Vec::new(),
            extensions: Vec::new(),
        };
        let bytes = Frame::encode(&found).map_err(|_| Refused::new(Refusal::Failed))?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let _memory = self
            .memory
            .try_acquire_many(length)
            .map_err(|_| too_many())?;
        let _ = timeout(PIECE_DEADLINE, send.write_chunk(bytes.into())).await;
        Ok(())
    }
}

/// The allowances of all addresses that made lookups.
struct Askers {
    buckets: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl Askers {
    fn new() -> Askers {
        Askers {
            buckets: Mutex::default(),
        }
    }

    /// Charges an address for one lookup. Returns false if its allowance is used up.
    fn may_ask(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.lock();
        if buckets.len() >= ASKERS_MAX && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
            if buckets.len() >= ASKERS_MAX {
                return false;
            }
        }
        let bucket = buckets.entry(address);
        let bucket = bucket.or_insert_with(|| TokenBucket::new(now, PER_SECOND, BURST));
        bucket.try_take(now, 1.0)
    }

    /// Charges the cost of a lookup. An address that exceeds its burst is refused for a while.
    fn charge(&self, address: IpAddr, now: Instant, steps: u64) {
        if let Some(bucket) = self.lock().get_mut(&address) {
            let lookups = steps as f64 / STEPS_PER_LOOKUP;
            // The debt is bounded by a burst.
            let most = bucket.available(now) + BURST;
            bucket.charge(now, lookups.min(most));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, TokenBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_that_asks_too_often_waits_and_others_do_not() {
        let (askers, now) = (Askers::new(), Instant::now());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let granted = (0..1_000).filter(|_| askers.may_ask(a, now)).count();
        assert_eq!(granted, BURST as usize);
        assert!(askers.may_ask(b, now));
        let later = now + Duration::from_secs(1);
        let granted = (0..1_000).filter(|_| askers.may_ask(a, later)).count();
        assert_eq!(granted, PER_SECOND as usize);
    }

    #[test]
    fn a_lookup_that_cost_much_counts_as_many() {
        let (askers, now) = (Askers::new(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        assert!(askers.may_ask(address, now));
        askers.charge(address, now, 100 * STEPS_PER_LOOKUP as u64);
        let granted = (0..1_000).filter(|_| askers.may_ask(address, now)).count();
        assert_eq!(granted, BURST as usize - 101);
    }

    #[test]
    fn askers_that_are_remembered_are_bounded() {
        let (askers, now) = (Askers::new(), Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..3 * ASKERS_MAX as u32 {
            askers.may_ask(address(number), now);
        }
        assert_eq!(askers.buckets.lock().unwrap().len(), ASKERS_MAX);
        // Addresses that have their full allowance again are evicted.
        assert!(askers.may_ask(address(9_999), now + Duration::from_secs(60)));
    }
}
