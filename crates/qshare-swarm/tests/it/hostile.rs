//! Hostile peers. Honest leechers fetch a file from honest peers even if most peers are hostile.

use std::time::Duration;

use crate::sim::{Behaviour, MBIT, MIB, Swarm};
use qshare_swarm::Refusal;

const SEEDS: std::ops::Range<u64> = 0..8;

/// Returns a swarm of an honest seed, two honest leechers, and other nodes that behave as
/// `hostile`.
fn among(seed: u64, hostile: Behaviour, count: usize) -> Swarm {
    let mut swarm = Swarm::equal(seed, 8 * MIB, 2 + count, 100 * MBIT);
    for node in swarm.nodes.iter_mut().skip(3) {
        node.2 = hostile;
    }
    swarm.deadline = Duration::from_secs(600);
    swarm
}

/// Asserts that all honest leechers finish within `seconds` after the bound.
fn assert_ends_within(hostile: Behaviour, count: usize, seconds: f64) {
    for seed in SEEDS {
        let outcome = among(seed, hostile, count).run();
        let late = outcome.last_seconds() - outcome.bound_seconds;
        assert!(
            late < seconds,
            "seed {seed}, {count} of {hostile:?}: {late} s late, {outcome:#?}"
        );
    }
}

#[test]
fn mute_peers_cost_little() {
    assert_ends_within(Behaviour::Mute, 1, 1.0);
    assert_ends_within(Behaviour::Mute, 30, 5.0);
}

#[test]
fn liars_are_dropped_and_cost_little() {
    for count in [1, 30] {
        assert_ends_within(Behaviour::Corrupt, count, 2.0);
        for seed in SEEDS {
            let outcome = among(seed, Behaviour::Corrupt, count).run();
            let dropped = &outcome.dropped_corrupt;
            assert!(
                !dropped.is_empty() && dropped.iter().all(|&node| node >= 3),
                "{outcome:?}"
            );
        }
    }
}

#[test]
fn refusals_in_a_loop_cost_little() {
    let busy = Refusal::Busy {
        retry_after: Duration::ZERO,
    };
    for refusal in [
        Refusal::NotHere,
        Refusal::NotYet,
        Refusal::Changed,
        Refusal::NotAllowed,
        busy,
    ] {
        assert_ends_within(Behaviour::Refuses(refusal), 1, 0.5);
        assert_ends_within(Behaviour::Refuses(refusal), 30, 1.0);
    }
}

#[test]
fn refusals_do_not_spin() {
    for refusal in [Refusal::NotHere, Refusal::NotYet] {
        for seed in SEEDS {
            let outcome = among(seed, Behaviour::Refuses(refusal), 30).run();
            assert!(outcome.requests < 1500, "seed {seed}: {outcome:?}");
        }
    }
}

#[test]
fn tricklers_cost_little() {
    for pause in [Duration::from_millis(100), Duration::from_secs(1)] {
        assert_ends_within(Behaviour::Trickles(pause), 1, 2.0);
        assert_ends_within(Behaviour::Trickles(pause), 30, 8.0);
    }
}

#[test]
fn resets_cost_little() {
    assert_ends_within(Behaviour::Resets, 1, 0.5);
    assert_ends_within(Behaviour::Resets, 30, 2.0);
}

#[test]
fn a_peer_that_stalls_near_the_end_costs_at_most_a_second() {
    for seed in SEEDS {
        for share in [0.5, 0.9, 0.99] {
            let mut swarm = Swarm::equal(seed, 16 * MIB, 8, 100 * MBIT);
            let all = Duration::from_secs_f64(16.0 * MIB as f64 / (100 * MBIT) as f64);
            swarm.nodes[4].2 = Behaviour::StallsAt(all.mul_f64(share));
            let outcome = swarm.run();
            let late = outcome.last_seconds() - outcome.bound_seconds;
            assert!(
                late < 1.0,
                "seed {seed}, share {share}: {late} s late, {outcome:#?}"
            );
            assert!(
                outcome.waste < 0.01,
                "seed {seed}, share {share}: {outcome:#?}"
            );
        }
    }
}
