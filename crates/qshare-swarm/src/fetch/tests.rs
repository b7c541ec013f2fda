use std::time::Duration;

use super::*;
use crate::Span;

const KIB: u64 = 1024;
const CHUNK_BYTES: u64 = 128 * KIB;
const MILLISECOND: Duration = Duration::from_millis(1);

struct Bench {
    fetch: Fetch,
    now: Instant,
}

impl Bench {
    fn new(chunks: u64) -> Bench {
        Bench::with(chunks * CHUNK_BYTES, FetchConfig::default())
    }

    fn with(length: u64, config: FetchConfig) -> Bench {
        let chunks = Chunks::of_length(length);
        Bench {
            fetch: Fetch::new(chunks, Bitmap::new(chunks.count()), config, 1),
            now: Instant::now(),
        }
    }

    fn join(&mut self, peer: u64, held: &[u32]) -> PeerKey {
        let key = PeerKey(peer);
        self.fetch.handle_peer_joined(self.now, key);
        self.have(key, held);
        key
    }

    fn join_seed(&mut self, peer: u64) -> PeerKey {
        let all: Vec<u32> = (0..self.fetch.chunks.count()).collect();
        self.join(peer, &all)
    }

    fn have(&mut self, peer: PeerKey, held: &[u32]) {
        let held: Vec<_> = held.iter().copied().map(ChunkIndex).collect();
        self.fetch.handle_have(self.now, peer, &held, 0);
    }

    fn actions(&mut self) -> Vec<FetchAction> {
        std::iter::from_fn(|| self.fetch.poll_action(self.now)).collect()
    }

    fn requests(&mut self) -> Vec<(RequestId, PeerKey, Span)> {
        let requests = self.actions().into_iter().map(|action| match action {
            FetchAction::Request {
                request,
                peer,
                span,
            } => (request, peer, span),
            other => panic!("{other:?}"),
        });
        requests.collect()
    }

    /// Goes on until `done`, firing timers; the actions on the way.
    fn wait_until(&mut self, mut done: impl FnMut(&FetchAction) -> bool) -> Vec<FetchAction> {
        let mut seen = Vec::new();
        for _ in 0..100 {
            let actions = self.actions();
            let is_done = actions.iter().any(&mut done);
            seen.extend(actions);
            if is_done {
                return seen;
            }
            let (at, _) = self.fetch.poll_timeout().expect("something is under way");
            self.now = self.now.max(at);
            self.fetch.handle_timeout(self.now);
        }
        panic!("it never happens: {seen:?}");
    }

    fn verify(&mut self, request: RequestId) -> Option<ChunkIndex> {
        self.now += MILLISECOND;
        self.fetch.handle_started(self.now, request);
        self.now += MILLISECOND;
        self.fetch.handle_received(self.now, request);
        self.fetch.handle_verified(self.now, request)
    }
}

#[test]
fn one_source_has_several_requests_outstanding_and_delivers_everything() {
    let mut bench = Bench::new(50);
    bench.join_seed(1);
    let mut outstanding = bench.requests();
    assert_eq!(outstanding.len(), 4, "it has yet to prove itself");
    while let Some((request, _, span)) = outstanding.pop() {
        assert_eq!(bench.verify(request), Some(span.chunk));
        outstanding.extend(bench.requests());
        let missing = 50 - bench.fetch.verified().count() as usize;
        assert!(outstanding.len() >= missing.min(8));
    }
    assert!(bench.fetch.is_complete());
    assert_eq!(bench.fetch.poll_timeout(), None);
}

/// Fetches everything in the order of the requests; returns the chunks in that order.
fn order_of_requests(bench: &mut Bench) -> Vec<u32> {
    let mut waiting = VecDeque::from(bench.requests());
    let mut order = Vec::new();
    while let Some((request, _, span)) = waiting.pop_front() {
        order.push(span.chunk.0);
        bench.verify(request);
        waiting.extend(bench.requests());
    }
    assert!(bench.fetch.is_complete());
    order
}

/// Counts the chunks that were requested right after the one before them in the file.
fn in_a_row(order: &[u32]) -> usize {
    let follows = |pair: &&[u32]| pair[1] == pair[0] + 1;
    order.windows(2).filter(follows).count()
}

#[test]
fn an_only_source_is_asked_for_chunks_in_a_row_and_several_are_not() {
    let mut bench = Bench::new(600);
    bench.join_seed(1);
    let order = order_of_requests(&mut bench);
    assert_eq!(
        in_a_row(&order),
        598,
        "one run, and the rest from the beginning: {order:?}"
    );
    let begins_at = |seed| {
        let chunks = Chunks::of_length(600 * CHUNK_BYTES);
        let config = FetchConfig::default();
        let fetch = Fetch::new(chunks, Bitmap::new(600), config, seed);
        let now = Instant::now();
        let mut bench = Bench { fetch, now };
        bench.join_seed(1);
        bench.requests()[0].2.chunk.0
    };
    let beginnings: BTreeSet<u32> = (0..20).map(begins_at).collect();
    assert_eq!(beginnings.len(), 20, "clients begin at the same chunk");

    let mut bench = Bench::new(600);
    bench.fetch.begin_run_at(ChunkIndex(0));
    bench.join_seed(1);
    let order = order_of_requests(&mut bench);
    assert!(order.is_sorted(), "{order:?}");

    let mut bench = Bench::new(600);
    bench.join_seed(1);
    bench.join_seed(2);
    let order = order_of_requests(&mut bench);
    assert!(in_a_row(&order) < 60, "{order:?}");
}

#[test]
fn an_allowance_bounds_what_is_requested_and_keeps_the_order() {
    let mut bench = Bench::new(50);
    bench.fetch.begin_run_at(ChunkIndex(0));
    bench.fetch.set_allowance(CHUNK_BYTES + 1);
    bench.join_seed(1);
    let first = bench.requests();
    assert_eq!(chunks_of(&first), [0, 1]);
    assert_eq!(bench.fetch.requested_bytes(), 2 * CHUNK_BYTES);
    for (request, ..) in first {
        bench.verify(request);
        assert_eq!(bench.requests(), []);
    }
    bench.fetch.set_allowance(1);
    assert_eq!(chunks_of(&bench.requests()), [2]);
    bench.fetch.set_allowance(u64::MAX);
    assert_eq!(bench.requests()[0].2.chunk, ChunkIndex(3));
}

#[test]
fn a_source_far_away_has_requests_left_though_answers_lack_their_ends_for_long() {
    let (half_trip, answer_time) = (50 * MILLISECOND, 200 * MILLISECOND);
    let mut bench = Bench::new(600);
    bench.join_seed(1);
    let start = bench.now;
    let mut arrivals = VecDeque::new();
    let mut answers = VecDeque::new();
    // What the source waited for since it was to know better.
    let mut waited = 0;
    for tick in 0..30_000 {
        bench.now = start + tick * MILLISECOND;
        bench.fetch.handle_timeout(bench.now);
        for &(began, request) in &answers {
            if began + half_trip == bench.now {
                bench.fetch.handle_started(bench.now, request);
            }
        }
        let ended = |&(began, _): &(Instant, _)| began + half_trip + answer_time <= bench.now;
        if let Some((_, request)) = answers.pop_front_if(|answer| ended(answer)) {
            bench.fetch.handle_received(bench.now, request);
            bench.fetch.handle_verified(bench.now, request).unwrap();
        }
        let asked = bench.requests().into_iter();
        arrivals.extend(asked.map(|(request, ..)| (bench.now + half_trip, request)));
        // A chunk takes ten.
        let is_free = tick % 10 == 0;
        if is_free {
            match arrivals.pop_front_if(|(arrival, _)| *arrival <= bench.now) {
                Some((_, request)) => answers.push_back((bench.now, request)),
                None if tick > 3000 => waited += 1,
                None => {}
            }
        }
        if bench.fetch.pool.len() == 0 {
            break;
        }
    }
    assert_eq!(bench.fetch.pool.len(), 0, "not asked for");
    assert_eq!(waited, 0, "times that the source had nothing to answer");
}

#[test]
fn the_rarest_chunk_is_asked_for_first() {
    let mut bench = Bench::new(6);
    bench.join(2, &[0, 1, 2, 4, 5]);
    // Peer 2 is busy, so that peer 1 chooses first.
    bench.fetch.handle_have(bench.now, PeerKey(2), &[], 1 << 40);
    bench.join(1, &[0, 1, 2, 3, 4, 5]);
    let (_, peer, span) = bench.requests()[0];
    assert_eq!((peer, span.chunk), (PeerKey(1), ChunkIndex(3)));
}

#[test]
fn the_least_loaded_holder_is_asked() {
    let mut bench = Bench::new(1);
    for (peer, queue_bytes) in [(1, 500), (2, 100), (3, 900)] {
        let peer = bench.join(peer, &[0]);
        bench.fetch.handle_have(bench.now, peer, &[], queue_bytes);
    }
    assert_eq!(bench.requests()[0].1, PeerKey(2));
}

#[test]
fn what_waits_at_a_seed_moves_to_an_idle_peer_once_the_seed_confirms() {
    let mut bench = Bench::new(2);
    bench.join_seed(1);
    let requests = bench.requests();
    let idle = bench.join(2, &[0]);
    let (waiting, _, span) = *requests
        .iter()
        .find(|(_, _, span)| span.chunk == ChunkIndex(0))
        .unwrap();
    assert_eq!(
        bench.actions(),
        [FetchAction::Withdraw { request: waiting }],
        "nothing is asked of the other before the seed confirms"
    );
    bench.fetch.handle_withdrawn(bench.now, waiting);
    let moved = bench.requests();
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].1, moved[0].2), (idle, span));
}

#[test]
fn a_withdrawal_that_comes_too_late_changes_nothing() {
    let mut bench = Bench::new(1);
    bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    bench.join_seed(2);
    let withdraw = FetchAction::Withdraw { request };
    bench.wait_until(|action| *action == withdraw);
    bench.fetch.handle_started(bench.now, request);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.verify(request), Some(ChunkIndex(0)));
    assert!(bench.fetch.is_complete());
}

#[test]
fn what_waits_at_a_silent_peer_is_taken_from_it_within_a_second() {
    let mut bench = Bench::new(1);
    let silent = bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    let asked_at = bench.now;
    bench.join_seed(2);
    let seen = bench.wait_until(|action| matches!(action, FetchAction::Request { .. }));
    assert!(seen.contains(&FetchAction::Withdraw { request }));
    assert!(seen.contains(&FetchAction::Abandon { request }));
    assert!(bench.now - asked_at <= Duration::from_secs(1));
    let status = bench.fetch.status();
    assert!(status.peers[0].peer == silent && status.peers[0].backing_off_until.is_some());
}

#[test]
fn a_stalled_chunk_goes_to_others_in_spans_and_verified_spans_are_not_asked_for_again() {
    let mut bench = Bench::with(1024 * 1024 * KIB, FetchConfig::default());
    let chunk_bytes = bench.fetch.chunks.chunk_bytes();
    bench.join(1, &[7]);
    let (stalled, ..) = bench.requests()[0];
    bench.fetch.handle_started(bench.now, stalled);
    bench
        .fetch
        .handle_progress(bench.now, stalled, chunk_bytes / 2);
    bench.join(2, &[7]);
    bench.join(3, &[7]);
    let seen = bench.wait_until(|action| matches!(action, FetchAction::Request { .. }));
    assert!(seen.contains(&FetchAction::Abandon { request: stalled }));
    let spans: Vec<_> = seen
        .iter()
        .filter_map(|action| match action {
            FetchAction::Request { request, span, .. } => Some((*request, *span)),
            _ => None,
        })
        .collect();
    assert_eq!(spans.len(), 2);
    let bytes: u64 = spans
        .iter()
        .map(|(_, span)| span.size(&bench.fetch.chunks))
        .sum();
    assert_eq!(bytes, chunk_bytes);
    assert_eq!(bench.verify(spans[0].0), None);
    bench.fetch.handle_failed(bench.now, spans[1].0);
    let again = bench.wait_until(|action| matches!(action, FetchAction::Request { .. }));
    let FetchAction::Request { request, span, .. } = again[again.len() - 1] else {
        panic!("{again:?}");
    };
    assert_eq!(span, spans[1].1);
    assert_eq!(bench.verify(request), Some(ChunkIndex(7)));
}

#[test]
fn a_liar_is_dropped_and_its_chunk_asked_of_another() {
    let mut bench = Bench::new(1);
    let liar = bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    bench.fetch.handle_received(bench.now, request);
    bench.fetch.handle_corrupt(bench.now, request);
    let reason = DropReason::Corrupt;
    assert_eq!(
        bench.actions(),
        [FetchAction::DropPeer { peer: liar, reason }]
    );
    assert_eq!(bench.fetch.status().peers[0].dropped, Some(reason));
    assert_eq!(bench.fetch.status().wasted_bytes, CHUNK_BYTES);
    bench.join_seed(2);
    assert_eq!(bench.requests()[0].1, PeerKey(2));
}

#[test]
fn bytes_that_are_all_there_count_even_if_their_peer_leaves_before_they_are_verified() {
    let mut bench = Bench::new(1);
    let peer = bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    bench.fetch.handle_received(bench.now, request);
    bench.fetch.handle_peer_left(bench.now, peer);
    bench.join_seed(2);
    assert_eq!(bench.actions(), []);
    assert_eq!(
        bench.fetch.handle_verified(bench.now, request),
        Some(ChunkIndex(0))
    );
}

#[test]
fn refusals_in_a_row_are_answered_with_ever_longer_pauses_and_then_a_drop() {
    let mut bench = Bench::new(1);
    bench.join_seed(1);
    let mut pause = Duration::ZERO;
    for _ in 0..FetchConfig::default().refusals_max {
        let (request, ..) = bench.requests()[0];
        let asked_at = bench.now;
        bench
            .fetch
            .handle_refused(bench.now, request, Refusal::NotYet);
        let Some((at, reason)) = bench.fetch.poll_timeout() else {
            break;
        };
        assert_eq!((bench.actions(), reason), (vec![], "back-off over"));
        assert!(at - asked_at >= pause);
        pause = at - asked_at;
        bench.now = at;
        bench.fetch.handle_timeout(at);
    }
    assert_eq!(pause, FetchConfig::default().backoff_max);
    assert!(matches!(
        bench.actions()[..],
        [FetchAction::DropPeer {
            reason: DropReason::Useless,
            ..
        }]
    ));
}

#[test]
fn a_time_named_by_a_busy_peer_is_kept_within_bounds() {
    let mut bench = Bench::new(1);
    bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    let retry_after = Duration::MAX;
    bench
        .fetch
        .handle_refused(bench.now, request, Refusal::Busy { retry_after });
    let (at, _) = bench.fetch.poll_timeout().unwrap();
    assert_eq!(at - bench.now, FetchConfig::default().backoff_max);
}

#[test]
fn a_failure_on_our_side_blames_nobody() {
    let mut bench = Bench::new(1);
    bench.join_seed(1);
    let (request, ..) = bench.requests()[0];
    bench.fetch.handle_received(bench.now, request);
    bench.fetch.handle_failed(bench.now, request);
    assert_eq!(bench.requests().len(), 1);
}

#[test]
fn an_empty_content_is_one_empty_request() {
    let mut bench = Bench::with(0, FetchConfig::default());
    bench.join_seed(1);
    let (request, _, span) = bench.requests()[0];
    assert_eq!(span.size(&bench.fetch.chunks), 0);
    assert_eq!(bench.verify(request), Some(ChunkIndex(0)));
    assert!(bench.fetch.is_complete());
}

#[test]
fn without_anything_to_ask_nothing_happens() {
    let mut bench = Bench::new(3);
    bench.join(1, &[]);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.fetch.poll_timeout(), None);
    assert_eq!(bench.fetch.status().unheld_chunks, 3);
}

fn focus(chunks: &[u32], is_exclusive: bool) -> Option<Focus> {
    Some(Focus {
        chunks: chunks.iter().copied().map(ChunkIndex).collect(),
        is_exclusive,
    })
}

fn chunks_of(requests: &[(RequestId, PeerKey, Span)]) -> Vec<u32> {
    requests.iter().map(|(_, _, span)| span.chunk.0).collect()
}

#[test]
fn chunks_in_the_focus_come_first_in_order_and_then_others() {
    let mut bench = Bench::new(50);
    bench.fetch.set_focus(bench.now, focus(&[7, 8, 3], false));
    bench.join_seed(1);
    let requests = bench.requests();
    assert_eq!(chunks_of(&requests)[..3], [7, 8, 3]);
    assert!(requests.len() > 3);
}

#[test]
fn with_an_exclusive_focus_nothing_else_is_requested_and_a_peer_without_it_idles() {
    let mut bench = Bench::new(50);
    bench.fetch.set_focus(bench.now, focus(&[7, 8], true));
    bench.join_seed(1);
    bench.join(2, &[1, 2, 3]);
    let requests = bench.requests();
    assert_eq!(chunks_of(&requests), [7, 8]);
    for (request, ..) in requests {
        bench.verify(request);
    }
    assert!(bench.requests().is_empty());
    assert!(bench.fetch.focus_is_held());
    bench.fetch.set_focus(bench.now, focus(&[9], true));
    assert_eq!(chunks_of(&bench.requests()), [9]);
}

#[test]
fn a_focus_that_moves_abandons_what_nobody_waits_for_and_can_come_back() {
    let mut bench = Bench::new(50);
    bench.fetch.set_focus(bench.now, focus(&[1, 2], true));
    bench.join_seed(1);
    let before = bench.requests();
    // All bytes of the first have arrived: it still counts.
    bench.fetch.handle_received(bench.now, before[0].0);
    bench.fetch.set_focus(bench.now, focus(&[30], true));
    let actions = bench.actions();
    assert!(actions.contains(&FetchAction::Abandon {
        request: before[1].0
    }));
    assert!(!actions.contains(&FetchAction::Abandon {
        request: before[0].0
    }));
    assert_eq!(
        bench.fetch.handle_verified(bench.now, before[0].0),
        Some(ChunkIndex(1))
    );
    assert_eq!(bench.fetch.handle_verified(bench.now, before[1].0), None);
    bench.fetch.set_focus(bench.now, focus(&[1, 2], true));
    // The request of chunk 30 is abandoned, too.
    let (requests, others): (Vec<_>, Vec<_>) = bench
        .actions()
        .into_iter()
        .partition(|action| matches!(action, FetchAction::Request { .. }));
    assert!(
        matches!(others[..], [FetchAction::Abandon { .. }]),
        "{others:?}"
    );
    let [FetchAction::Request { span, .. }] = requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(span.chunk, ChunkIndex(2));
    assert_eq!(bench.fetch.status().in_flight_bytes, CHUNK_BYTES);
}

#[test]
fn a_discarded_chunk_is_requested_again() {
    let mut bench = Bench::new(5);
    bench.fetch.set_focus(bench.now, focus(&[4], true));
    bench.join_seed(1);
    let requests = bench.requests();
    bench.verify(requests[0].0);
    bench.fetch.handle_discarded(ChunkIndex(4));
    bench.fetch.handle_discarded(ChunkIndex(3));
    assert_eq!(bench.fetch.status().verified_bytes, 0);
    assert_eq!(chunks_of(&bench.requests()), [4]);
    bench.fetch.set_focus(bench.now, focus(&[0], true));
    assert!(bench.fetch.focus_is_held());
    bench.fetch.handle_peer_left(bench.now, PeerKey(1));
    assert!(!bench.fetch.focus_is_held());
}
