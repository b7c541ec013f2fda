//! Invariants of a fetch, for any actions of its peers and its caller in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use qshare_content::{Bitmap, ChunkIndex, Chunks};
use qshare_swarm::{Fetch, FetchAction, FetchConfig, PeerKey, Refusal, RequestId, Span};

const LENGTH: u64 = 24 * 128 * 1024 + 77_777;
const BUDGET_BYTES: u64 = 10 * 128 * 1024;
/// Most actions at one moment. A fetch that returns more is in an endless loop.
const ACTIONS_MAX: usize = 1000;

#[derive(Clone, Debug)]
enum Event {
    Join(u64),
    Leave(u64),
    HaveAll(u64, u32),
    Have(u64, Vec<u32>),
    /// The next step of the answer to the n-th live request, or to a request that never was.
    Answer(usize, Answer),
    Pass(u64),
    Timeout,
}

#[derive(Clone, Debug)]
enum Answer {
    Started,
    Progress(u64),
    Received,
    Verified,
    Corrupt,
    Refused(u8),
    Withdrawn,
    Failed,
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Started),
        4 => any::<u32>().prop_map(|bytes| Answer::Progress(bytes.into())),
        4 => Just(Answer::Received),
        8 => Just(Answer::Verified),
        1 => Just(Answer::Corrupt),
        2 => any::<u8>().prop_map(Answer::Refused),
        3 => Just(Answer::Withdrawn),
        2 => Just(Answer::Failed),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..8u64).prop_map(Event::Join),
        1 => (0..8u64).prop_map(Event::Leave),
        2 => (0..8u64, any::<u32>()).prop_map(|(peer, bits)| Event::HaveAll(peer, bits)),
        4 => (0..8u64, proptest::collection::vec(0..40u32, 0..6))
            .prop_map(|(peer, chunks)| Event::Have(peer, chunks)),
        20 => (0..12usize, answers()).prop_map(|(at, answer)| Event::Answer(at, answer)),
        3 => (0..3000u64).prop_map(Event::Pass),
        2 => Just(Event::Timeout),
    ]
}

/// A fetch, with the state that its invariants are checked against.
struct Watched {
    fetch: Fetch,
    chunks: Chunks,
    now: Instant,
    live: BTreeMap<RequestId, (PeerKey, Span)>,
    received: BTreeSet<RequestId>,
    withdrawn: BTreeSet<RequestId>,
    claims: BTreeMap<PeerKey, Bitmap>,
    verified_spans: BTreeSet<Span>,
}

impl Watched {
    fn new(seed: u64) -> Watched {
        let chunks = Chunks::of_length(LENGTH);
        let mut verified = Bitmap::new(chunks.count());
        verified.insert(ChunkIndex(seed as u32 % chunks.count()));
        let config = FetchConfig {
            in_flight_max_bytes: BUDGET_BYTES,
            span_min_bytes: 16 * 1024,
            ..FetchConfig::default()
        };
        Watched {
            fetch: Fetch::new(chunks, verified, config, seed),
            chunks,
            now: Instant::now(),
            live: BTreeMap::new(),
            received: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            claims: BTreeMap::new(),
            verified_spans: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        let now = self.now;
        let count = self.chunks.count();
        match event {
            Event::Join(peer) => {
                self.fetch.handle_peer_joined(now, PeerKey(*peer));
                self.claims
                    .entry(PeerKey(*peer))
                    .or_insert_with(|| Bitmap::new(count));
            }
            Event::Leave(peer) => {
                self.fetch.handle_peer_left(now, PeerKey(*peer));
                self.claims.remove(&PeerKey(*peer));
                self.void(PeerKey(*peer));
            }
            Event::HaveAll(peer, bits) => {
                let mut held = Bitmap::new(count);
                for chunk in (0..count).filter(|chunk| bits >> (chunk % 32) & 1 == 1) {
                    held.insert(ChunkIndex(chunk));
                }
                if let Some(claims) = self.claims.get_mut(&PeerKey(*peer)) {
                    *claims = held.clone();
                }
                self.fetch
                    .handle_have_all(now, PeerKey(*peer), held, (*bits).into());
            }
            Event::Have(peer, chunks) => {
                let chunks: Vec<_> = chunks.iter().copied().map(ChunkIndex).collect();
                if let Some(claims) = self.claims.get_mut(&PeerKey(*peer)) {
                    for &chunk in &chunks {
                        claims.insert(chunk);
                    }
                }
                self.fetch
                    .handle_have(now, PeerKey(*peer), &chunks, u64::MAX);
            }
            Event::Answer(at, answer) => {
                let id = self.live.keys().nth(*at).copied();
                self.answer(id.unwrap_or(RequestId(u64::MAX)), answer);
            }
            Event::Pass(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Event::Timeout => {
                if let Some((at, _)) = self.fetch.poll_timeout() {
                    self.now = self.now.max(at);
                }
                self.fetch.handle_timeout(self.now);
                let next = self.fetch.poll_timeout();
                assert!(next.is_none_or(|(at, _)| at > self.now), "{next:?} spins");
            }
        }
        self.drain();
    }

    fn answer(&mut self, id: RequestId, answer: &Answer) {
        let now = self.now;
        let is_received = self.received.contains(&id);
        match answer {
            Answer::Started => self.fetch.handle_started(now, id),
            Answer::Progress(bytes) => self.fetch.handle_progress(now, id, *bytes),
            Answer::Received => {
                self.fetch.handle_received(now, id);
                if self.live.contains_key(&id) {
                    self.received.insert(id);
                }
            }
            Answer::Verified => {
                let whole = self.fetch.handle_verified(now, id);
                if let Some((_, span)) = self.live.remove(&id) {
                    self.verified_spans.insert(span);
                    assert_eq!(whole.is_some(), self.fetch.verified().contains(span.chunk));
                } else {
                    assert_eq!(whole, None);
                }
            }
            Answer::Corrupt => {
                self.fetch.handle_corrupt(now, id);
                self.live.remove(&id);
            }
            Answer::Refused(kind) => {
                let refusal = match kind % 5 {
                    0 => Refusal::NotHere,
                    1 => Refusal::NotYet,
                    2 => Refusal::Changed,
                    3 => Refusal::NotAllowed,
                    _ => Refusal::Busy {
                        retry_after: Duration::from_secs(u64::from(*kind) << 32),
                    },
                };
                self.fetch.handle_refused(now, id, refusal);
                if !is_received
                    && let Some((peer, span)) = self.live.remove(&id)
                    && refusal == Refusal::NotHere
                    && let Some(claims) = self.claims.get_mut(&peer)
                {
                    claims.remove(span.chunk);
                }
            }
            Answer::Withdrawn => {
                self.fetch.handle_withdrawn(now, id);
                if !is_received {
                    self.live.remove(&id);
                }
            }
            Answer::Failed => {
                self.fetch.handle_failed(now, id);
                self.live.remove(&id);
            }
        }
    }

    fn void(&mut self, peer: PeerKey) {
        let received = &self.received;
        self.live
            .retain(|id, (holder, _)| *holder != peer || received.contains(id));
    }

    fn drain(&mut self) {
        for turn in 0.. {
            assert!(turn < ACTIONS_MAX, "the fetch spins");
            let Some(action) = self.fetch.poll_action(self.now) else {
                break;
            };
            match action {
                FetchAction::Request {
                    request,
                    peer,
                    span,
                } => self.check_request(request, peer, span),
                FetchAction::Withdraw { request } => {
                    assert!(self.live.contains_key(&request), "withdraws a void request");
                    assert!(self.withdrawn.insert(request), "withdraws twice");
                }
                FetchAction::Abandon { request } => {
                    let was_live = self.live.remove(&request).is_some();
                    assert!(was_live, "gives up a void request");
                }
                FetchAction::DropPeer { peer, .. } => {
                    self.claims.remove(&peer);
                    self.void(peer);
                }
            }
        }
        self.check_status();
    }

    fn check_request(&mut self, request: RequestId, peer: PeerKey, span: Span) {
        let range = span.range(&self.chunks);
        assert!(!range.is_empty(), "{span:?} is empty");
        assert!(
            !self.fetch.verified().contains(span.chunk),
            "{span:?} is verified"
        );
        let claims = &self.claims[&peer];
        assert!(
            claims.contains(span.chunk),
            "{peer:?} never claimed {span:?}"
        );
        let others = self.live.values().map(|(_, other)| other);
        for other in others.chain(&self.verified_spans) {
            let other = other.range(&self.chunks);
            assert!(
                other.end <= range.start || range.end <= other.start,
                "{span:?} is asked for twice"
            );
        }
        assert!(
            self.live.insert(request, (peer, span)).is_none(),
            "an id is used twice"
        );
        let in_flight: u64 = self
            .live
            .values()
            .map(|(_, span)| span.size(&self.chunks))
            .sum();
        assert!(in_flight <= BUDGET_BYTES, "{in_flight} bytes in flight");
    }

    fn check_status(&self) {
        let status = self.fetch.status();
        let live: u64 = self
            .live
            .values()
            .map(|(_, span)| span.size(&self.chunks))
            .sum();
        assert_eq!(status.in_flight_bytes, live);
        let missing = u64::from(status.chunks - status.verified_chunks);
        assert!(u64::from(status.open_chunks) <= missing);
        let verified: u64 = self
            .fetch
            .verified()
            .iter()
            .map(|chunk| self.chunks.size(chunk))
            .sum();
        assert_eq!(status.verified_bytes, verified);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_asked_twice_or_in_vain_and_an_honest_peer_completes_it(
        seed in any::<u64>(),
        events in proptest::collection::vec(events(), 0..200),
    ) {
        let mut watched = Watched::new(seed);
        for event in &events {
            watched.apply(event);
        }
        // All pending verifications end. Then one honest peer joins, and all others are silent.
        for id in watched.received.clone() {
            watched.answer(id, &Answer::Verified);
        }
        let honest = PeerKey(99);
        watched.apply(&Event::Join(honest.0));
        watched.apply(&Event::HaveAll(honest.0, u32::MAX));
        for _ in 0..2000 {
            let of_honest: Vec<_> = watched
                .live
                .iter()
                .filter(|(_, (peer, _))| *peer == honest)
                .map(|(&id, _)| id)
                .collect();
            if of_honest.is_empty() {
                watched.apply(&Event::Timeout);
            }
            for id in of_honest {
                if watched.withdrawn.contains(&id) {
                    watched.answer(id, &Answer::Withdrawn);
                } else {
                    watched.answer(id, &Answer::Verified);
                }
                watched.drain();
            }
            if watched.fetch.is_complete() {
                break;
            }
        }
        prop_assert!(watched.fetch.is_complete(), "{:#?}", watched.fetch.status());
        prop_assert_eq!(watched.fetch.poll_action(watched.now), None);
        prop_assert!(watched.live.is_empty());
    }

    #[test]
    fn the_same_events_and_seed_give_the_same_actions(
        seed in any::<u64>(),
        events in proptest::collection::vec(events(), 0..60),
    ) {
        let start = Instant::now();
        let run = || {
            let mut watched = Watched::new(seed);
            watched.now = start;
            for event in &events {
                watched.apply(event);
            }
            watched.live
        };
        prop_assert_eq!(run(), run());
    }
}
