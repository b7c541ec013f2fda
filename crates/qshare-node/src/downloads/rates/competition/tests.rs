//! The division of a limit, with a line, sources and a clock that are simulated.

use std::collections::VecDeque;

use super::*;

const CHUNK: u64 = 128 << 10;
const LIMIT: u64 = 400_000;
const STEP: Duration = Duration::from_millis(10);
/// The bytes that a download has under way at most, as under a limit.
const IN_FLIGHT_MAX: u64 = LIMIT * 3 / 2;
/// Silence after which the limit counts as unused.
const SILENCE: Duration = Duration::from_millis(150);

/// A download from a source of its own.
struct Simulated {
    id: u64,
    /// What its source sends per second.
    source: u64,
    requested: u64,
    received: u64,
    allowance: u64,
    begins: Duration,
    ends: Duration,
}

/// All downloads of a node; their answers share one line, first come, first served, as a source
/// sends them: the one that was requested first is sent first.
struct World {
    competition: Competition,
    start: Instant,
    time: Duration,
    downloads: Vec<Simulated>,
    /// Requests in the order in which they were made: the download, and bytes that are left.
    line: VecDeque<(usize, u64)>,
    last_used: Duration,
    /// Bytes that the line carried.
    carried: u64,
}

impl World {
    fn new() -> World {
        World {
            competition: Competition::default(),
            start: Instant::now(),
            time: Duration::ZERO,
            downloads: Vec::new(),
            line: VecDeque::new(),
            last_used: Duration::ZERO,
            carried: 0,
        }
    }

    fn add(&mut self, priority: Priority, source: u64) -> usize {
        let id = self.competition.join(priority);
        self.downloads.push(Simulated {
            id,
            source,
            requested: 0,
            received: 0,
            allowance: 0,
            begins: self.time,
            ends: Duration::MAX,
        });
        self.downloads.len() - 1
    }

    fn in_flight(&self, at: usize) -> u64 {
        self.downloads[at].requested - self.downloads[at].received
    }

    fn step(&mut self) {
        let now = self.start + self.time;
        for at in 0..self.downloads.len() {
            let in_flight_bytes = self.in_flight(at);
            let time = self.time;
            let download = &mut self.downloads[at];
            if !(download.begins..download.ends).contains(&time) {
                continue;
            }
            // Each reports at another moment, ten times a second.
            if time.as_millis() / 10 % 10 == at as u128 % 10 {
                let demand = Demand {
                    requested_bytes: download.requested,
                    in_flight_bytes,
                    chunk_bytes: CHUNK,
                };
                let limit = Limit {
                    bytes_per_second: Some(LIMIT),
                    is_unused: time.saturating_sub(self.last_used) > SILENCE,
                };
                download.allowance = self.competition.allow(now, download.id, demand, limit);
            }
            while download.allowance > 0
                && download.requested + CHUNK - download.received <= IN_FLIGHT_MAX
            {
                download.requested += CHUNK;
                download.allowance = download.allowance.saturating_sub(CHUNK);
                self.line.push_back((at, CHUNK));
            }
        }
        // What each source may send in this step, and the limit.
        let per_step = |rate: u64| rate * STEP.as_millis() as u64 / 1000;
        let mut sources: Vec<u64> = self
            .downloads
            .iter()
            .map(|download| per_step(download.source))
            .collect();
        let mut left = per_step(LIMIT);
        let mut sent = 0;
        for (at, bytes) in &mut self.line {
            let now = (*bytes).min(sources[*at]).min(left);
            *bytes -= now;
            sources[*at] -= now;
            left -= now;
            sent += now;
            self.downloads[*at].received += now;
        }
        self.line.retain(|(_, bytes)| *bytes > 0);
        self.carried += sent;
        self.time += STEP;
        // A trickle leaves the limit unused.
        if sent * 2 > per_step(LIMIT) {
            self.last_used = self.time;
        }
    }

    /// Lets time pass; returns the bytes that each download received, and the part of the limit
    /// that was used.
    fn run(&mut self, time: Duration) -> (Vec<f64>, f64) {
        let before: Vec<u64> = self.downloads.iter().map(|one| one.received).collect();
        let (carried, end) = (self.carried, self.time + time);
        while self.time < end {
            self.step();
        }
        let received = self.downloads.iter().zip(before);
        let received = received.map(|(one, before)| (one.received - before) as f64);
        let used = (self.carried - carried) as f64 / (LIMIT as f64 * time.as_secs_f64());
        (received.collect(), used)
    }

    fn end(&mut self, at: usize) {
        self.downloads[at].ends = self.time;
        self.competition.leave(self.downloads[at].id);
        self.line.retain(|(of, _)| *of != at);
    }
}

const FAST: u64 = 10 * LIMIT;
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn downloads_have_their_shares_of_a_limit_that_is_used_up() {
    for (one, two, ratio) in [
        (Priority::High, Priority::Low, 16.0),
        (Priority::Normal, Priority::Low, 4.0),
        (Priority::High, Priority::Normal, 4.0),
        (Priority::Normal, Priority::Normal, 1.0),
    ] {
        let mut world = World::new();
        world.add(two, FAST);
        world.run(Duration::from_secs(5));
        world.add(one, FAST);
        world.run(Duration::from_secs(10));
        let (received, used) = world.run(5 * MINUTE);
        let measured = received[1] / received[0];
        assert!(
            (0.85..1.15).contains(&(measured / ratio)),
            "{one:?}:{two:?} {measured}"
        );
        assert!(used > 0.98, "{used}");
    }
}

#[test]
fn several_downloads_share_by_weight() {
    let mut world = World::new();
    for priority in [
        Priority::Low,
        Priority::Normal,
        Priority::Normal,
        Priority::High,
    ] {
        world.add(priority, FAST);
    }
    world.run(Duration::from_secs(10));
    let (received, used) = world.run(10 * MINUTE);
    let all: f64 = received.iter().sum();
    for (received, weight) in received.iter().zip([1.0, 4.0, 4.0, 16.0]) {
        let ratio = received / all / (weight / 25.0);
        assert!((0.8..1.2).contains(&ratio), "{weight}: {ratio}");
    }
    assert!(used > 0.98, "{used}");
}

#[test]
fn what_a_slow_source_leaves_is_used_by_others() {
    for part in [0.0, 0.05, 0.4] {
        let mut world = World::new();
        world.add(Priority::High, (LIMIT as f64 * part) as u64);
        world.add(Priority::Low, FAST);
        world.run(Duration::from_secs(10));
        let (received, used) = world.run(5 * MINUTE);
        assert!(used > 0.9, "{part}: {used}");
        let own = received[0] / (LIMIT as f64 * part * 300.0);
        assert!(part == 0.0 || own > 0.9, "{part}: {own}");
    }
}

#[test]
fn a_source_that_becomes_faster_is_noticed() {
    let mut world = World::new();
    world.add(Priority::High, LIMIT / 20);
    world.add(Priority::Low, FAST);
    world.run(MINUTE);
    world.downloads[0].source = FAST;
    world.run(FORFEIT_MAX + Duration::from_secs(5));
    let (received, _) = world.run(5 * MINUTE);
    let ratio = received[0] / received[1];
    assert!((13.0..19.0).contains(&ratio), "{ratio}");
}

#[test]
fn an_interrupted_path_does_not_make_all_downloads_equal() {
    let mut world = World::new();
    world.add(Priority::High, FAST);
    world.add(Priority::Low, FAST);
    world.run(Duration::from_secs(10));
    let mut all = [0.0, 0.0];
    for _ in 0..30 {
        for source in [0, FAST] {
            world
                .downloads
                .iter_mut()
                .for_each(|one| one.source = source);
            let time = if source == 0 { 900 } else { 6000 };
            let (received, _) = world.run(Duration::from_millis(time));
            all = [all[0] + received[0], all[1] + received[1]];
        }
    }
    let ratio = all[0] / all[1];
    assert!(ratio > 2.0, "{ratio}");
}

#[test]
fn nobody_waits_for_a_download_that_ended() {
    let mut world = World::new();
    let high = world.add(Priority::High, FAST);
    world.add(Priority::Low, FAST);
    world.run(MINUTE);
    world.end(high);
    let (received, used) = world.run(Duration::from_secs(5));
    assert!(used > 0.95 && received[1] > 0.0, "{used}");
}

#[test]
fn a_newcomer_is_not_owed_what_others_had_before() {
    let mut world = World::new();
    world.add(Priority::Normal, FAST);
    world.run(10 * MINUTE);
    world.add(Priority::Normal, FAST);
    let (received, _) = world.run(MINUTE);
    let ratio = received[0] / received[1];
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
}

#[test]
fn without_a_limit_nobody_is_held_back() {
    let competition = Competition::default();
    let (low, high) = (
        competition.join(Priority::Low),
        competition.join(Priority::High),
    );
    let now = Instant::now();
    let demand = Demand {
        requested_bytes: 1 << 30,
        in_flight_bytes: 1 << 20,
        chunk_bytes: CHUNK,
    };
    let none = Limit {
        bytes_per_second: None,
        is_unused: true,
    };
    assert_eq!(competition.allow(now, high, demand, none), u64::MAX);
    assert_eq!(competition.allow(now, low, demand, none), u64::MAX);
    assert!(competition.is_any_above(Priority::Low));
    competition.leave(high);
    assert!(!competition.is_any_above(Priority::Low));
}
