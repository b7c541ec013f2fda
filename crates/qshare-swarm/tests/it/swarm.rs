//! How close simulated swarms come to the lower bound on the distribution time.
//!
//! The clock is virtual, so a ratio is exact: it depends on the seed only.

use std::time::Duration;

use crate::sim::{Behaviour, MBIT, MIB, Outcome, Swarm};

const SEEDS: std::ops::Range<u64> = 0..2;

fn assert_ratio(name: &str, most: f64, swarm: impl Fn(u64) -> Swarm) -> Vec<Outcome> {
    let run = |seed| {
        let outcome = swarm(seed).run();
        assert!(
            outcome.ratio() <= most,
            "{name}, seed {seed}: {:.3} times the bound, {most} allowed: {outcome:#?}",
            outcome.ratio()
        );
        assert!(outcome.waste < 0.01, "{name}, seed {seed}: {outcome:#?}");
        assert_eq!(
            outcome.dropped_unjustly, 0,
            "{name}, seed {seed}: {outcome:#?}"
        );
        outcome
    };
    SEEDS.map(run).collect()
}

#[test]
fn eight_leechers_end_near_the_bound() {
    for outcome in assert_ratio("N 8", 1.07, |seed| {
        Swarm::equal(seed, 64 * MIB, 8, 100 * MBIT)
    }) {
        assert!(outcome.seed_files < 1.2, "{outcome:#?}");
    }
}

#[test]
fn thirty_two_leechers_end_near_the_bound() {
    for outcome in assert_ratio("N 32", 1.10, |seed| {
        Swarm::equal(seed, 64 * MIB, 32, 20 * MBIT)
    }) {
        assert!(outcome.seed_files < 1.2, "{outcome:#?}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes a minute unoptimised")]
fn a_hundred_and_twenty_eight_leechers_end_near_the_bound() {
    assert_ratio("N 128", 1.12, |seed| Swarm {
        neighbours: Some(40),
        ..Swarm::equal(seed, 64 * MIB, 128, 20 * MBIT)
    });
}

#[test]
fn one_leecher_keeps_the_pipe_full_whatever_the_latency() {
    for (milliseconds, most) in [(1, 1.02), (20, 1.1), (100, 1.25)] {
        assert_ratio("one source", most, |seed| Swarm {
            latency: Duration::from_millis(milliseconds),
            ..Swarm::equal(seed, 256 * MIB, 1, 200 * MBIT)
        });
    }
}

#[test]
fn uplinks_ten_times_apart_are_used_for_what_they_are() {
    assert_ratio("uneven", 1.13, |seed| {
        let mut swarm = Swarm::equal(seed, 64 * MIB, 16, 100 * MBIT);
        for (at, node) in swarm.nodes.iter_mut().enumerate().skip(1) {
            node.0 = (node.0 as f64 * 10f64.powf(at as f64 / 16.0 - 1.0)) as u64;
        }
        swarm
    });
}

#[test]
fn a_slow_seed_sends_every_chunk_about_once() {
    let outcomes = assert_ratio("slow seed", 1.05, |seed| {
        let mut swarm = Swarm::equal(seed, 32 * MIB, 16, 100 * MBIT);
        swarm.nodes[0].0 /= 4;
        swarm
    });
    for outcome in outcomes {
        assert!(outcome.seed_files < 1.05, "{outcome:#?}");
    }
}

#[test]
fn a_leecher_who_leaves_holds_nobody_up() {
    assert_ratio("one leaves", 1.16, |seed| {
        let mut swarm = Swarm::equal(seed, 64 * MIB, 16, 100 * MBIT);
        swarm.nodes[5].2 = Behaviour::LeavesAt(Duration::from_secs(3));
        swarm
    });
}

#[test]
fn late_arrivals_finish_as_soon_as_they_can() {
    for seed in SEEDS {
        let stagger = Duration::from_secs(1);
        let swarm = Swarm {
            stagger,
            ..Swarm::equal(seed, 32 * MIB, 8, 100 * MBIT)
        };
        let outcome = swarm.run();
        assert!(outcome.all_finished(), "seed {seed}: {outcome:#?}");
        let alone = 32.0 * MIB as f64 / (100 * MBIT) as f64;
        let last_joined = 7.0 * stagger.as_secs_f64();
        assert!(
            outcome.last_seconds() < last_joined + alone * 1.2,
            "seed {seed}: {outcome:#?}"
        );
    }
}

#[test]
fn what_is_in_flight_stays_within_the_budget() {
    for seed in SEEDS {
        let mut swarm = Swarm::equal(seed, 16 * MIB, 8, 100 * MBIT);
        swarm.fetch.in_flight_max_bytes = MIB;
        let outcome = swarm.run();
        assert!(outcome.all_finished(), "seed {seed}: {outcome:#?}");
        assert!(
            outcome.in_flight_most_bytes <= MIB,
            "seed {seed}: {outcome:#?}"
        );
    }
}
