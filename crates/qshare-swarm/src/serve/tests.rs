use super::*;
use qshare_content::{ContentInfo, tree};

const CHUNK_BYTES: u64 = 1000;

fn content(length: u64) -> ContentId {
    let root = tree::leaf_hash(&[]);
    ContentInfo { length, root }.id()
}

struct Bench {
    serve: Serve,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            serve: Serve::new(
                ServeConfig {
                    running_max: 1,
                    small_bytes: 0,
                    ..ServeConfig::default()
                },
                1,
            ),
            now: Instant::now(),
        }
    }

    fn ask(&mut self, client: u64, chunk: u32) -> Ticket {
        self.ask_of(client, 0, chunk)
    }

    fn ask_of(&mut self, client: u64, file: u64, chunk: u32) -> Ticket {
        self.serve
            .handle_request(
                self.now,
                PeerKey(client),
                content(file),
                ChunkIndex(chunk),
                CHUNK_BYTES,
            )
            .unwrap()
    }

    fn start(&mut self) -> Option<Ticket> {
        self.serve.poll_start(self.now)
    }

    fn finish(&mut self, ticket: Ticket) {
        self.serve.handle_finished(self.now, ticket, CHUNK_BYTES);
    }

    /// Serves a client the chunk that it asks for, while nobody else waits.
    fn serve_alone(&mut self, client: u64, chunk: u32) {
        let asked = self.ask(client, chunk);
        assert_eq!(self.start(), Some(asked));
        self.finish(asked);
    }
}

#[test]
fn small_responses_run_together_and_beside_one_large_one() {
    let mut bench = Bench::new();
    bench.serve.config.small_bytes = 10;
    bench.serve.config.small_active_max = 3;
    let mut ask = |file, bytes| {
        let (client, chunk) = (PeerKey(1), ChunkIndex(0));
        let serve = &mut bench.serve;
        serve
            .handle_request(bench.now, client, content(file), chunk, bytes)
            .unwrap()
    };
    let small: Vec<_> = (0..4).map(|file| ask(file, 10)).collect();
    let large = [ask(10, 11), ask(11, 11)];
    let started: Vec<_> = std::iter::from_fn(|| bench.start()).collect();
    let among = |tickets: &[Ticket]| tickets.iter().filter(|at| started.contains(at)).count();
    assert_eq!((among(&small), among(&large)), (3, 1));
    let of_small = small
        .iter()
        .find(|at| started.contains(at))
        .copied()
        .unwrap();
    bench.serve.handle_finished(bench.now, of_small, 10);
    assert!(bench.start().is_some_and(|next| small.contains(&next)));
    assert_eq!(bench.start(), None);
}

#[test]
fn one_response_runs_at_a_time() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ask(1, 0), bench.ask(1, 1));
    let first = bench.start().unwrap();
    assert_eq!(bench.start(), None);
    bench.finish(first);
    let second = bench.start().unwrap();
    assert_eq!(a.min(b), first.min(second));
    assert_ne!(first, second);
}

#[test]
fn others_start_while_a_response_is_blocked_but_not_more_to_its_client() {
    let mut bench = Bench::new();
    bench.ask(1, 0);
    let first = bench.start().unwrap();
    bench.serve.handle_blocked(bench.now, first);
    bench.ask(1, 1);
    assert_eq!(bench.start(), None);
    let other = bench.ask(2, 1);
    assert_eq!(bench.start(), Some(other));
    bench.finish(other);
    bench.serve.handle_unblocked(bench.now, first);
    assert_eq!(bench.start(), None, "the first one runs again");
}

#[test]
fn slow_clients_hold_up_others_for_two_seconds_at_most() {
    let mut bench = Bench::new();
    let places = u64::from(bench.serve.config.active_max);
    for client in 0..places {
        bench.ask(client, 0);
        let ticket = bench.start().unwrap();
        bench.serve.handle_blocked(bench.now, ticket);
    }
    let waiting = bench.ask(places, 0);
    assert_eq!(bench.start(), None);
    bench.now += PARKED_AFTER;
    assert_eq!(bench.start(), Some(waiting));
}

#[test]
fn the_time_out_is_when_time_alone_lets_a_response_start() {
    let mut bench = Bench::new();
    let places = u64::from(bench.serve.config.active_max);
    let step = Duration::from_millis(100);
    for client in 0..places {
        bench.ask(client, 0);
        let ticket = bench.start().unwrap();
        bench.serve.handle_blocked(bench.now, ticket);
        bench.now += step;
    }
    assert_eq!(bench.serve.poll_timeout(), None, "nothing waits");
    let waiting = bench.ask(places, 0);
    assert_eq!(bench.start(), None);
    let (at, _) = bench.serve.poll_timeout().unwrap();
    // The first of them was blocked at the start, and is the first that is parked.
    assert_eq!(at, bench.now - step * places as u32 + PARKED_AFTER);
    bench.now = at;
    assert_eq!(bench.start(), Some(waiting));
}

#[test]
fn a_time_out_that_changes_nothing_is_followed_by_a_later_one() {
    let mut bench = Bench::new();
    let places = u64::from(bench.serve.config.active_max);
    for client in 0..places {
        bench.ask(client, 0);
        let ticket = bench.start().unwrap();
        bench.serve.handle_blocked(bench.now, ticket);
    }
    // A blocked client's next request cannot start, however long it waits.
    bench.ask(0, 1);
    let mut before = bench.now;
    for _ in 0..20 {
        assert_eq!(bench.start(), None);
        let Some((at, _)) = bench.serve.poll_timeout() else {
            return;
        };
        assert!(at > before);
        (before, bench.now) = (at, at);
    }
    panic!("the time-outs never end");
}

/// Clients that are always answered, and take what they are sent at their own pace.
struct Readers {
    bench: Bench,
    answers: Vec<Answer>,
    next_chunk: u32,
}

struct Answer {
    client: u64,
    ticket: Ticket,
    /// When the next piece will have been taken, once it is under way.
    piece_taken_at: Option<Instant>,
    pieces_left: u32,
}

/// The pieces of an answer, and what it takes to notice that one is not taken.
const PIECES: u32 = 8;
const STEP: Duration = Duration::from_millis(50);

impl Readers {
    fn new(clients: std::ops::Range<u64>) -> Readers {
        let mut readers = Readers {
            bench: Bench::new(),
            answers: Vec::new(),
            next_chunk: 0,
        };
        clients.for_each(|client| readers.ask(client));
        readers
    }

    fn ask(&mut self, client: u64) {
        self.next_chunk += 1;
        let ticket = self.bench.ask(client, self.next_chunk);
        self.answers.push(Answer {
            client,
            ticket,
            piece_taken_at: None,
            pieces_left: PIECES,
        });
    }

    /// One step: who takes a piece in time `pace(client)`, so that each answer ends after
    /// [`PIECES`] of them. Returns the clients whose answers have ended.
    fn step(&mut self, pace: impl Fn(u64) -> Duration) -> Vec<u64> {
        let now = self.bench.now;
        let serve = &mut self.bench.serve;
        while let Some(ticket) = serve.poll_start(now) {
            let mut answers = self.answers.iter_mut();
            let answer = answers.find(|answer| answer.ticket == ticket).unwrap();
            answer.piece_taken_at = Some(now + pace(answer.client));
        }
        self.bench.now += STEP;
        let now = self.bench.now;
        let mut ended = Vec::new();
        for answer in &mut self.answers {
            let Some(at) = answer.piece_taken_at else {
                continue;
            };
            if at > now {
                serve.handle_blocked(now, answer.ticket);
                continue;
            }
            serve.handle_unblocked(now, answer.ticket);
            answer.piece_taken_at = Some(now + pace(answer.client));
            answer.pieces_left -= 1;
            if answer.pieces_left == 0 {
                serve.handle_finished(now, answer.ticket, CHUNK_BYTES);
                ended.push(answer.client);
            }
        }
        self.answers.retain(|answer| answer.pieces_left > 0);
        ended.iter().for_each(|&client| self.ask(client));
        ended
    }

    /// How many answers to `client` ended within this time.
    fn count(&mut self, client: u64, time: Duration, pace: impl Fn(u64) -> Duration) -> usize {
        let steps = time.as_millis() / STEP.as_millis();
        let ended = (0..steps).flat_map(|_| self.step(&pace));
        ended.filter(|&ended| ended == client).count()
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Just before an answer would be parked.
const SIP: Duration = Duration::from_millis(1900);

#[test]
fn those_who_take_a_piece_now_and_then_do_not_keep_the_places_of_others() {
    let mut readers = Readers::new(0..40);
    let pace = |client| if client == 0 { STEP } else { SIP };
    let _ = readers.count(0, MINUTE / 2, pace);
    let answered = readers.count(0, MINUTE, pace);
    // Alone, it would be answered 150 times.
    assert!(answered > 100, "{answered} answers");
}

#[test]
fn small_answers_that_nobody_takes_hold_up_others_for_two_seconds_at_most() {
    let mut bench = Bench::new();
    bench.serve.config.small_bytes = CHUNK_BYTES;
    let places = bench.serve.config.small_active_max;
    for chunk in 0..places {
        bench.ask(1, chunk);
    }
    let started: Vec<_> = std::iter::from_fn(|| bench.start()).collect();
    assert_eq!(started.len(), places as usize);
    for ticket in started {
        bench.serve.handle_blocked(bench.now, ticket);
    }
    let waiting = bench.ask(2, 0);
    assert_eq!(bench.start(), None);
    bench.now += PARKED_AFTER;
    assert_eq!(bench.start(), Some(waiting));
}

#[test]
fn who_is_ten_times_slower_is_answered_among_those_who_are_slower_still() {
    let mut readers = Readers::new(0..40);
    let pace = |client| match client {
        0 => 10 * STEP,
        1..10 => STEP,
        _ => SIP,
    };
    let _ = readers.count(0, MINUTE / 2, pace);
    let answered = readers.count(0, MINUTE, pace);
    // Alone, it would be answered 15 times.
    assert!(answered >= 5, "{answered} answers");
}

/// How many of 20 slow clients are answered at once, beside others who take nothing at all.
fn slow_at_once(who_take_nothing: u64) -> f64 {
    let mut readers = Readers::new(0..20 + who_take_nothing);
    let pace = |client| if client < 20 { 20 * STEP } else { 60 * MINUTE };
    let seconds_each = (20 * STEP * PIECES).as_secs_f64();
    for _ in 0..MINUTE.as_millis() / STEP.as_millis() {
        readers.step(pace);
    }
    let ended: usize = (0..MINUTE.as_millis() / STEP.as_millis())
        .map(|_| readers.step(pace).len())
        .sum();
    ended as f64 * seconds_each / MINUTE.as_secs_f64()
}

#[test]
fn where_all_are_slow_as_many_are_answered_at_once_as_where_none_is() {
    let at_once = slow_at_once(0);
    assert!((5.0..12.0).contains(&at_once), "{at_once} at once");
}

#[test]
fn those_who_take_nothing_keep_no_places_of_the_slow() {
    let at_once = slow_at_once(40);
    assert!(at_once > 5.0, "{at_once} at once");
}

#[test]
fn who_was_slow_and_is_not_any_more_is_answered_like_all_others_soon() {
    let mut readers = Readers::new(0..10);
    let _ = readers.count(0, MINUTE, |client| if client == 0 { SIP } else { STEP });
    assert!(
        !readers
            .bench
            .serve
            .slow_clients(readers.bench.now)
            .is_empty()
    );
    let _ = readers.count(0, MINUTE, |_| STEP);
    assert!(
        readers
            .bench
            .serve
            .slow_clients(readers.bench.now)
            .is_empty()
    );
    let client = PeerKey(0);
    readers
        .bench
        .serve
        .handle_client_left(readers.bench.now, client);
    assert!(!readers.bench.serve.clients.contains_key(&client));
}

#[test]
fn the_least_served_chunk_goes_first() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.serve_alone(1, 0);
    }
    bench.ask(1, 0);
    let fresh = bench.ask(2, 1);
    assert_eq!(bench.start(), Some(fresh));
}

#[test]
fn equals_take_turns() {
    let mut bench = Bench::new();
    let mut of_client = std::collections::HashMap::new();
    for turn in 0..8 {
        for client in 0..5 {
            let ticket = bench.ask(client, (turn * 5 + client) as u32);
            of_client.insert(ticket, client);
        }
    }
    for _ in 0..8 {
        let mut served: Vec<_> = (0..5)
            .map(|_| {
                let ticket = bench.start().unwrap();
                bench.finish(ticket);
                of_client[&ticket]
            })
            .collect();
        served.sort_unstable();
        assert_eq!(served, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_response_cut_short_does_not_count_as_served() {
    let mut bench = Bench::new();
    bench.ask(1, 0);
    let ticket = bench.start().unwrap();
    bench.serve.handle_finished(bench.now, ticket, 10);
    bench.serve_alone(1, 1);
    bench.ask(1, 1);
    let again = bench.ask(1, 0);
    assert_eq!(bench.start(), Some(again));
}

#[test]
fn contents_take_turns() {
    let mut bench = Bench::new();
    for chunk in 0..10 {
        bench.ask_of(1, 0, chunk);
        let ticket = bench.start().unwrap();
        bench.finish(ticket);
    }
    // Every chunk of file 1 is fresh, yet file 0 is not starved by it.
    let mut of_file_0 = Vec::new();
    for chunk in 0..10 {
        bench.ask_of(2, 1, chunk);
        of_file_0.push(bench.ask_of(1, 0, chunk));
    }
    let mut served_of_0 = 0;
    for _ in 0..10 {
        let ticket = bench.start().unwrap();
        served_of_0 += u32::from(of_file_0.contains(&ticket));
        bench.finish(ticket);
    }
    assert_eq!(served_of_0, 5);
}

#[test]
fn a_client_who_only_wants_popular_chunks_is_not_starved() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        bench.serve_alone(1, 0);
    }
    let patient = bench.ask(2, 0);
    for turn in 1.. {
        assert!(turn < 20, "client 2 is starved");
        bench.ask(1, turn);
        bench.ask(1, turn + 100);
        let ticket = bench.start().unwrap();
        bench.finish(ticket);
        if ticket == patient {
            break;
        }
    }
}

#[test]
fn withdrawing_costs_nothing_before_the_start_and_does_nothing_after_it() {
    let mut bench = Bench::new();
    let ticket = bench.ask(1, 0);
    assert!(bench.serve.handle_withdraw(ticket));
    assert!(!bench.serve.handle_withdraw(ticket));
    assert_eq!(bench.serve.queue_bytes(), 0);
    assert_eq!(bench.start(), None);
    let ticket = bench.ask(1, 0);
    assert_eq!(bench.start(), Some(ticket));
    assert!(!bench.serve.handle_withdraw(ticket));
    assert_eq!(bench.serve.queue_bytes(), CHUNK_BYTES);
}

#[test]
fn who_asks_for_hundreds_gets_little_more_than_who_asks_for_a_few() {
    let mut bench = Bench::new();
    // Every other chunk is rare. Among hundreds there is always a rare one, among a few not.
    for chunk in (1..2000).step_by(2) {
        bench.serve_alone(3, chunk);
    }
    for chunk in 0..200 {
        bench.ask(1, chunk);
    }
    let mut of_modest: Vec<_> = (0..4).map(|at| bench.ask(2, 1001 + 2 * at)).collect();
    let mut served_modest = 0;
    for turn in 0..100 {
        let ticket = bench.start().unwrap();
        if of_modest.contains(&ticket) {
            served_modest += 1;
            of_modest.push(bench.ask(2, 1101 + 2 * turn));
        }
        bench.finish(ticket);
    }
    assert!(served_modest >= 25, "{served_modest} of 100");
}

#[test]
fn a_greedy_client_is_refused_and_others_are_not() {
    let mut bench = Bench::new();
    let max = ServeConfig::default().waiting_max_per_client;
    for chunk in 0..max {
        bench.ask(1, chunk);
    }
    let refused = bench.serve.handle_request(
        bench.now,
        PeerKey(1),
        content(0),
        ChunkIndex(0),
        CHUNK_BYTES,
    );
    assert!(refused.is_err());
    bench.ask(2, 0);
}

#[test]
fn however_many_are_greedy_a_newcomer_finds_room() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, client, chunk| {
        let (now, content) = (bench.now, content(0));
        let chunk = ChunkIndex(chunk);
        bench
            .serve
            .handle_request(now, PeerKey(client), content, chunk, CHUNK_BYTES)
    };
    for client in 0..100 {
        let mut chunk = 0;
        while ask(&mut bench, client, chunk).is_ok() {
            chunk += 1;
        }
        assert!(chunk > 0, "client {client}");
    }
    for chunk in 0..8 {
        assert!(ask(&mut bench, 100, chunk).is_ok(), "chunk {chunk}");
    }
}

#[test]
fn a_client_that_left_leaves_nothing_behind() {
    let mut bench = Bench::new();
    for chunk in 0..5 {
        bench.ask(1, chunk);
    }
    let ticket = bench.start().unwrap();
    bench.serve.handle_blocked(bench.now, ticket);
    bench.serve.handle_client_left(bench.now, PeerKey(1));
    assert_eq!(bench.serve.queue_bytes(), 0);
    assert!(bench.serve.clients.is_empty());
    bench.finish(ticket);
    bench.serve.handle_unblocked(bench.now, ticket);
    assert_eq!(bench.start(), None);
}
