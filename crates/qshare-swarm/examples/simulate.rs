//! Prints how close simulated swarms come to the bound.
//!
//! `cargo run --release -p qshare-swarm --example simulate [SEEDS] [COLUMN]`

#[path = "../tests/it/sim/mod.rs"]
mod sim;

use std::time::{Duration, Instant};

use sim::{Behaviour, MBIT, MIB, Swarm};

fn columns(seed: u64) -> Vec<(&'static str, Swarm)> {
    let equal = |leechers| Swarm::equal(seed, 64 * MIB, leechers, 100 * MBIT);
    let slow = |leechers| Swarm::equal(seed, 64 * MIB, leechers, 20 * MBIT);
    // The protocol fixes the size of chunks. Fewer chunks of the same file are the same as a file
    // that is smaller by as much on links that are slower by as much.
    // So are then the blocks that a link sends, and the windows with them.
    let fewer_chunks = |leechers, factor: u64| {
        let mut swarm = Swarm::equal(seed, 64 * MIB / factor, leechers, 100 * MBIT / factor);
        swarm.block_bytes /= factor;
        swarm
    };
    let graph = |leechers, degree| Swarm {
        neighbours: Some(degree),
        ..slow(leechers)
    };
    let far = Swarm {
        latency: Duration::from_millis(50),
        ..equal(32)
    };
    let mut uneven = equal(32);
    for (at, node) in uneven.nodes.iter_mut().enumerate().skip(1) {
        // Ten times apart, evenly on a logarithmic scale.
        let share = 10f64.powf((at - 1) as f64 / 31.0 - 1.0);
        node.0 = (node.0 as f64 * share) as u64;
    }
    let mut slow_seed = equal(32);
    slow_seed.nodes[0].0 /= 4;
    let half = Duration::from_secs_f64(64.0 * MIB as f64 / (100 * MBIT) as f64 / 2.0);
    let mut one_leaves = equal(32);
    one_leaves.nodes[5].2 = Behaviour::LeavesAt(half);
    let mut one_stalls = equal(32);
    one_stalls.nodes[5].2 = Behaviour::StallsAt(half);
    let neighbours = |degree| Swarm {
        neighbours: Some(degree),
        ..equal(32)
    };
    vec![
        ("N 8", equal(8)),
        ("N 8, 512 MiB", Swarm::equal(seed, 512 * MIB, 8, 100 * MBIT)),
        ("N 32", equal(32)),
        ("N 32, 20 Mbit/s", slow(32)),
        ("50 ms each way", far),
        ("uplinks 10x apart", uneven),
        ("slow seed", slow_seed),
        ("one leaves", one_leaves),
        ("one stalls", one_stalls),
        ("8 neighbours", neighbours(8)),
        ("20 neighbours", neighbours(20)),
        ("N 8, 256 chunks", fewer_chunks(8, 2)),
        ("N 32, 256 chunks", fewer_chunks(32, 2)),
        ("N 32, 64 chunks", fewer_chunks(32, 8)),
        ("N 32, 16 chunks", fewer_chunks(32, 32)),
        (
            "N 32, blind",
            Swarm {
                sees_uplink: false,
                ..slow(32)
            },
        ),
        (
            "N 32, hides queue",
            Swarm {
                tells_queue: false,
                ..slow(32)
            },
        ),
        ("N 128", equal(128)),
        ("N 128, 256 chunks", fewer_chunks(128, 2)),
        ("N 128, 20 of them", graph(128, 20)),
        ("N 128, 40 of them", graph(128, 40)),
        ("N 256, 20 of them", graph(256, 20)),
        ("N 256, 40 of them", graph(256, 40)),
    ]
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(3);
    let only = args.next().unwrap_or_default();
    println!("seeds 0..{seeds}");
    println!(
        "column               ratio (worst)  waste   seed  withdrawn  abandoned  split  requests  unjust  real s"
    );
    for column in 0..columns(0).len() {
        let mut ratios = Vec::new();
        let began = Instant::now();
        let mut last = None;
        let mut name = "";
        for seed in 0..seeds {
            let (column_name, swarm) = columns(seed).swap_remove(column);
            name = column_name;
            if !name.contains(&only) {
                break;
            }
            let outcome = swarm.run();
            ratios.push(outcome.ratio());
            last = Some(outcome);
        }
        let Some(outcome) = last else { continue };
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "{name:20} {mean:.3} ({worst:.3})  {:6.3}%  {:.2}  {:9}  {:9}  {:5}  {:8}  {:6}  {:.1}",
            outcome.waste * 100.0,
            outcome.seed_files,
            outcome.withdrawals,
            outcome.abandoned,
            outcome.split_requests,
            outcome.requests,
            outcome.dropped_unjustly,
            began.elapsed().as_secs_f64(),
        );
    }
}
