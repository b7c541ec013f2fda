//! Answering neighbours who ask what we share: the same question that trackers answer, for our
//! own catalogue only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::{EntryKind, Find, Found, Match, Readiness};
use qshare_wire::{Frame, Refusal, Refused};
use quinn::SendStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::PIECE_DEADLINE;
use crate::node::Inner;
use crate::peers::Peer;
use crate::shares::catalogue::Listing;

/// Lookups that one address may make at once, and every second from then on. Counted by address,
/// because identities are free.
const BURST: f64 = 400.0;
const PER_SECOND: f64 = 50.0;
/// Steps of work, some 4 ns each, that cost as much as one lookup: 0.1 ms.
const STEPS_PER_LOOKUP: f64 = 25_000.0;
/// Addresses whose lookups are counted; one that has made none for a while is forgotten first.
const ASKERS_MAX: usize = 1024;
/// When to come back after too many questions.
const RETRY_MS: u32 = 1_000;

/// Bytes of answers that are in memory, and not yet taken by those who asked.
const ANSWERS_MAX_BYTES: usize = 8 << 20;

/// How many questions everybody has left, and how much room there is for answers.
pub(crate) struct Askers {
    left: Mutex<HashMap<IpAddr, (f64, Instant)>>,
    answers: Semaphore,
}

impl Default for Askers {
    fn default() -> Askers {
        Askers {
            left: Mutex::default(),
            answers: Semaphore::new(ANSWERS_MAX_BYTES),
        }
    }
}

impl Askers {
    fn may_ask(&self, address: IpAddr, now: Instant) -> bool {
        let mut askers = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(left, at): &(f64, Instant)| {
            let waited = now.saturating_duration_since(*at).as_secs_f64();
            (left + waited * PER_SECOND).min(BURST)
        };
        if askers.len() >= ASKERS_MAX && !askers.contains_key(&address) {
            askers.retain(|_, asker| left(asker) < BURST);
            if askers.len() >= ASKERS_MAX {
                return false;
            }
        }
        let asker = askers.entry(address).or_insert((BURST, now));
        let available = left(asker);
        let may = available >= 1.0;
        *asker = (available - f64::from(u8::from(may)), now);
        may
    }

    /// Charges what a lookup has cost. Beyond its burst an address waits before it may ask again.
    fn charge(&self, address: IpAddr, steps: u64) {
        let mut askers = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((left, _)) = askers.get_mut(&address) {
            *left = (*left - steps as f64 / STEPS_PER_LOOKUP).max(-BURST);
        }
    }
}

/// Answers a question of somebody on our own network.
pub(super) async fn answer(
    inner: &Inner,
    peer: &Peer,
    request: Find,
    send: &mut SendStream,
) -> Result<(), Refused> {
    // Elsewhere it is for trackers to say who may know what there is.
    if !inner.lan.is_on() || !inner.lan.is_near(peer.address().ip()) {
        return Err(Refused::because(
            Refusal::NotAllowed,
            "names are told on the local network only",
        ));
    }
    let busy = || {
        let mut refused = Refused::because(Refusal::Busy, "too many questions");
        refused.retry_after_ms = RETRY_MS;
        refused
    };
    let askers = &inner.uploads.askers;
    let address = peer.address().ip().to_canonical();
    if !askers.may_ask(address, Instant::now()) {
        return Err(busy());
    }
    let limit = usize::from(request.limit).clamp(1, MATCHES_MAX);
    let listed = inner.catalogue.list(
        inner.endpoint.id(),
        &request.query,
        request.after.as_deref(),
        limit,
    );
    let Listing {
        entries,
        more,
        steps,
    } = listed.map_err(|error| Refused::because(Refusal::Invalid, error.to_string()))?;
    askers.charge(address, steps);
    let matches = entries.iter().map(|entry| Match {
        name: entry.asset.name.clone(),
        kind: EntryKind::File,
        info: entry.asset.info,
        complete: u32::from(entry.complete),
        partial: u32::from(!entry.complete),
        holders: Vec::new(),
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
    let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let _room = askers.answers.try_acquire_many(room).map_err(|_| busy())?;
    let _ = timeout(PIECE_DEADLINE, send.write_chunk(bytes.into())).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_node_that_asks_and_asks_waits_and_others_do_not() {
        let (askers, now) = (Askers::default(), Instant::now());
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
        let (askers, now) = (Askers::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        assert!(askers.may_ask(address, now));
        askers.charge(address, 100 * STEPS_PER_LOOKUP as u64);
        let granted = (0..1_000).filter(|_| askers.may_ask(address, now)).count();
        assert_eq!(granted, BURST as usize - 101);
    }

    #[test]
    fn strangers_do_not_fill_memory() {
        let (askers, now) = (Askers::default(), Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..3 * ASKERS_MAX as u32 {
            askers.may_ask(address(number), now);
        }
        assert_eq!(askers.left.lock().unwrap().len(), ASKERS_MAX);
        // In time they are forgotten.
        assert!(askers.may_ask(address(9_999), now + Duration::from_secs(60)));
    }
}
