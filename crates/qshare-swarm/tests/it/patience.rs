//! The scheduler derives each peer's time-out from that peer's earlier answers, rather than using
//! one constant. It fetches few bytes twice because a peer was slow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, Chunks};
use qshare_swarm::{Fetch, FetchAction, FetchConfig, PeerKey, RequestId};

const CHUNK_BYTES: u64 = 128 * 1024;
const FAR: Duration = Duration::from_secs(1);

struct Bench {
    fetch: Fetch,
    now: Instant,
}

impl Bench {
    fn new(chunks: u32) -> Bench {
        let length = u64::from(chunks) * CHUNK_BYTES;
        let none = Bitmap::new(chunks);
        let fetch = Fetch::new(Chunks::of_length(length), none, FetchConfig::default(), 1);
        let now = Instant::now();
        Bench { fetch, now }
    }

    /// Creates a fetch of `CHUNKS` chunks, all requested from one peer.
    fn asked_of_one<const CHUNKS: usize>() -> (Bench, [RequestId; CHUNKS]) {
        let mut bench = Bench::new(CHUNKS as u32);
        bench.join_seed(1);
        let asked: Vec<_> = std::iter::from_fn(|| bench.fetch.poll_action(bench.now))
            .map(|action| match action {
                FetchAction::Request { request, .. } => request,
                other => panic!("{other:?}"),
            })
            .collect();
        (bench, asked.try_into().expect("all"))
    }

    fn join_seed(&mut self, peer: u64) {
        let key = PeerKey(peer);
        let all = Bitmap::full(self.fetch.verified().len());
        self.fetch.handle_peer_joined(self.now, key);
        self.fetch.handle_have_all(self.now, key, all, 0);
    }

    fn deliver(&mut self, request: RequestId) {
        self.fetch.handle_started(self.now, request);
        self.fetch.handle_received(self.now, request);
        self.fetch.handle_verified(self.now, request);
    }

    /// Advances the clock until the fetch returns `wanted`. Returns the time that passed.
    fn time_until(&mut self, wanted: &FetchAction) -> Duration {
        let since = self.now;
        for _ in 0..100 {
            while let Some(action) = self.fetch.poll_action(self.now) {
                if action == *wanted {
                    return self.now - since;
                }
            }
            let (at, _) = self.fetch.poll_timeout().expect("something is under way");
            self.now = self.now.max(at);
            self.fetch.handle_timeout(self.now);
        }
        panic!("never: {wanted:?}");
    }
}

#[test]
fn an_answer_that_pauses_is_given_up_later_the_longer_its_peer_takes_to_answer() {
    for latency in [Duration::from_millis(1), FAR] {
        let (mut bench, [first, second]) = Bench::asked_of_one();
        bench.now += latency;
        bench.deliver(first);
        bench.fetch.handle_started(bench.now, second);
        bench.join_seed(2);
        let silent = bench.time_until(&FetchAction::Abandon { request: second });
        let config = FetchConfig::default();
        assert_eq!(silent, config.stall_min.max(latency * config.stall_factor));
    }
}

#[test]
fn an_answer_may_pause_for_as_long_as_answers_take_up_to_twice_the_configured_silence() {
    let least = FetchConfig::default().stall_min;
    for (usual, allowed) in [
        (least / 2, least),
        (least * 3 / 2, least * 3 / 2),
        (least * 6, least * 2),
    ] {
        let (mut bench, [first, second]) = Bench::asked_of_one();
        bench.fetch.handle_started(bench.now, first);
        bench.now += usual;
        bench.deliver(first);
        bench.fetch.handle_started(bench.now, second);
        bench.join_seed(2);
        let silent = bench.time_until(&FetchAction::Abandon { request: second });
        assert_eq!(silent, allowed, "where answers take {usual:?}");
    }
}

#[test]
fn a_withdrawal_is_waited_for_longer_the_longer_its_peer_takes_to_answer() {
    for latency in [Duration::from_millis(1), FAR] {
        let (mut bench, [first, second]) = Bench::asked_of_one();
        bench.now += latency;
        bench.deliver(first);
        bench.join_seed(2);
        bench.time_until(&FetchAction::Withdraw { request: second });
        let waited = bench.time_until(&FetchAction::Abandon { request: second });
        let config = FetchConfig::default();
        let least = config.stall_min * 4 / 5;
        assert_eq!(waited, least.max(latency * config.stall_factor));
    }
}

#[test]
fn one_that_was_silent_for_long_and_went_on_may_be_silent_for_twice_as_long() {
    let silence_max = FetchConfig::default().silence_max;
    for (before, allowed) in [
        (FAR, silence_max),
        (silence_max * 3 / 4, silence_max * 3 / 2),
    ] {
        let (mut bench, [first, second, third]) = Bench::asked_of_one();
        bench.deliver(first);
        bench.now += before;
        bench.deliver(second);
        let silent = bench.time_until(&FetchAction::Abandon { request: third });
        assert_eq!(silent, allowed, "after a silence of {before:?}");
    }
}

#[test]
fn what_is_thrown_away_because_it_was_slow_is_less_than_a_hundredth() {
    const CHUNKS: u32 = 1000;
    const STEP: Duration = Duration::from_millis(100);
    let (usual, helper) = (PeerKey(1), PeerKey(2));
    let mut bench = Bench::new(CHUNKS);
    bench.join_seed(usual.0);
    bench.fetch.handle_peer_joined(bench.now, helper);
    let mut asked = VecDeque::new();
    let (mut turn, mut slow, mut taken_over) = (0, 0, 0);
    while !bench.fetch.is_complete() {
        while let Some(action) = bench.fetch.poll_action(bench.now) {
            let FetchAction::Request { request, span, .. } = action else {
                panic!("{action:?}");
            };
            asked.push_back((request, span.chunk));
        }
        let Some((request, chunk)) = asked.pop_front() else {
            let (at, _) = bench.fetch.poll_timeout().expect("it goes on");
            bench.now = bench.now.max(at);
            bench.fetch.handle_timeout(bench.now);
            continue;
        };
        turn += 1;
        if turn % 10 != 0 {
            bench.now += STEP / 10;
            bench.deliver(request);
            continue;
        }
        // Every tenth answer is slow, and another peer has its chunk, too.
        slow += 1;
        bench.fetch.handle_started(bench.now, request);
        bench.fetch.handle_have(bench.now, helper, &[chunk], 0);
        let mut is_abandoned = false;
        for _ in 0..30 {
            bench.now += STEP;
            bench
                .fetch
                .handle_progress(bench.now, request, CHUNK_BYTES / 32);
            bench.fetch.handle_timeout(bench.now);
            while let Some(action) = bench.fetch.poll_action(bench.now) {
                match action {
                    FetchAction::Request { request, span, .. } => {
                        asked.push_back((request, span.chunk));
                    }
                    FetchAction::Abandon { .. } => is_abandoned = true,
                    other => panic!("{other:?}"),
                }
            }
            if is_abandoned {
                break;
            }
        }
        match is_abandoned {
            true => taken_over += 1,
            false => bench.deliver(request),
        }
    }
    let wasted = bench.fetch.status().wasted_bytes;
    println!("{slow} were slow, {taken_over} were taken over, {wasted} bytes wasted");
    assert!(taken_over > 0, "nobody helps");
    assert!(
        wasted * 100 < u64::from(CHUNKS) * CHUNK_BYTES,
        "{wasted} bytes"
    );
}
