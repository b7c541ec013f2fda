//! Small random swarms: random links, behaviours and sizes.
//!
//! `QSHARE_SWARMS=10000` runs that many swarms. `QSHARE_SWARM_SEED=7` runs the one with that seed
//! and prints it.

use std::time::Duration;

use crate::sim::{Behaviour, MBIT, MIB, Swarm};
use qshare_swarm::Refusal;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const SWARMS_DEFAULT: u64 = 150;

fn hostile(rng: &mut impl Rng) -> Behaviour {
    let retry_after = Duration::ZERO;
    match rng.random_range(0..10) {
        0 | 1 => Behaviour::Mute,
        2 | 3 => Behaviour::Corrupt,
        4 => Behaviour::Refuses(Refusal::NotHere),
        5 => Behaviour::Refuses(Refusal::NotYet),
        6 => Behaviour::Refuses(Refusal::Busy { retry_after }),
        7 => Behaviour::Refuses(Refusal::NotAllowed),
        8 => Behaviour::Trickles(Duration::from_millis(rng.random_range(10..2000))),
        _ => Behaviour::Resets,
    }
}

fn any_swarm(seed: u64) -> Swarm {
    let mut rng = SmallRng::seed_from_u64(seed);
    let length = match rng.random_range(0..4) {
        0 => rng.random_range(0..100_000),
        _ => rng.random_range(0..6 * MIB),
    };
    let leechers = rng.random_range(1..9);
    let enemies = rng.random_range(0..9);
    let mut swarm = Swarm::equal(seed, length, leechers + enemies, 0);
    let base = rng.random_range(1..100) * MBIT;
    for (at, node) in swarm.nodes.iter_mut().enumerate() {
        let behaviour = if at == 0 {
            Behaviour::Honest
        } else if at > leechers {
            hostile(&mut rng)
        } else {
            let when = Duration::from_millis(rng.random_range(0..3000));
            match rng.random_range(0..8) {
                0 => Behaviour::LeavesAt(when),
                1 => Behaviour::StallsAt(when),
                _ => Behaviour::Honest,
            }
        };
        *node = (
            base * rng.random_range(1..10),
            base * rng.random_range(1..10),
            behaviour,
        );
    }
    swarm.latency = Duration::from_micros(rng.random_range(50..100_000));
    swarm.stagger = Duration::from_millis(rng.random_range(0..500));
    swarm.neighbours = rng.random_bool(0.3).then(|| rng.random_range(1..5));
    swarm.tells_queue = rng.random_bool(0.5);
    swarm.deadline = Duration::from_secs(3600);
    swarm
}

/// Returns the seconds within which every honest leecher must finish. After the last join, these
/// are 4 times the bound, since the weakest links may be where they hurt most, and 30 s for the
/// cost of hostile nodes.
fn seconds_allowed(bound_seconds: f64, swarm: &Swarm) -> f64 {
    let last_join = swarm.stagger.as_secs_f64() * swarm.nodes.len() as f64;
    last_join + 4.0 * bound_seconds + 30.0
}

#[test]
fn every_honest_leecher_of_any_swarm_finishes() {
    let variable = |name| {
        let value = std::env::var(name).ok()?;
        value.parse::<u64>().ok()
    };
    let seeds = match variable("QSHARE_SWARM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("QSHARE_SWARMS").unwrap_or(SWARMS_DEFAULT),
    };
    let is_single = seeds.end - seeds.start == 1;
    println!("seeds {seeds:?}");
    for seed in seeds {
        let swarm = any_swarm(seed);
        let outcome = swarm.run();
        if is_single {
            println!("{swarm:#?}\n{outcome:#?}");
        }
        let allowed = seconds_allowed(outcome.bound_seconds, &swarm);
        assert!(
            outcome.last_seconds() <= allowed,
            "seed {seed}: {} s, {allowed} s allowed: {outcome:#?}",
            outcome.last_seconds(),
        );
        for &liar in &outcome.dropped_corrupt {
            assert_eq!(swarm.nodes[liar].2, Behaviour::Corrupt, "seed {seed}");
        }
    }
}
