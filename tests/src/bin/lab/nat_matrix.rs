//! `lab nat-matrix`: which way two nodes find to each other behind every pair of routers, and how
//! long it takes; `lab nat-moves`: how long a transfer stands still when their networks change.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{HostPlan, Lab, Link, NatKind, parse_duration};
use qshare_tests::moves::{self, Move};
use qshare_tests::networked::{Networked, paths};
use serde_json::Value;

const FILE: &str = "file.bin";
/// One chunk: the first verified byte is there when all of it is.
const FILE_BYTES: usize = 64 * 1024;
/// What takes some seconds through the relay, so that there is time to leave it.
const LARGE: &str = "large.bin";
const LARGE_BYTES: usize = 20_000_000;

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// Downloads for each pair
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only what is shared behind these routers: open, cone, symmetric, double
    #[arg(long, value_delimiter = ',')]
    from: Vec<NatKind>,
    /// Only what is downloaded behind these
    #[arg(long, value_delimiter = ',')]
    to: Vec<NatKind>,
    /// Only pairs behind one router
    #[arg(long, conflicts_with = "to")]
    same_router: bool,
    /// Time that a packet takes to a host; a round trip takes two of them
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    delay: Duration,
    /// Over IPv6, where routers filter and do not translate
    #[arg(long)]
    ipv6: bool,
    /// Have both nodes probe many ports (--punch-hard), and see whether a larger file, too, begins
    /// or goes on directly
    #[arg(long)]
    punch_hard: bool,
    /// Options for `qshare node` and `qshare get`
    #[arg(long = "with", value_name = "OPTION", allow_hyphen_values = true)]
    with: Vec<String>,
    /// The program; beside this one by default
    #[arg(long, value_name = "FILE")]
    qshare: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MovesArgs {
    /// Transfers for each
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only these, by their number in the table, from 1
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
    /// The program; beside this one by default
    #[arg(long, value_name = "FILE")]
    qshare: Option<PathBuf>,
}

/// Who is where.
#[derive(Clone, Copy)]
enum Pair {
    Apart(NatKind, NatKind),
    /// Both behind one router of this kind.
    Together(NatKind),
}

/// What one download was like.
struct Run {
    path: String,
    first_byte: Duration,
    relayed_bytes: u64,
    /// The ways on which a larger file came.
    large: Vec<String>,
}

pub(crate) fn matrix(args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let program = program(args.qshare.as_ref())?;
    let (large, line) = match args.punch_hard {
        true => (" 20 MB came in the end |", "---|"),
        false => ("", ""),
    };
    println!(
        "| shared behind | downloaded behind | way | median | worst | through the tracker |{large}"
    );
    println!("|---|---|---|---:|---:|---:|{line}");
    for pair in pairs(args) {
        let runs = measure(args, &program, pair)?;
        println!("{}", row(pair, &runs));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn moves(args: &MovesArgs) -> anyhow::Result<ExitCode> {
    let program = program(args.qshare.as_ref())?;
    println!("| what happens | longest silence | ways | fetched twice |");
    println!("|---|---:|---|---:|");
    let wanted = |number: &usize| args.only.is_empty() || args.only.contains(number);
    for (_, what) in (1..).zip(Move::ALL).filter(|(number, _)| wanted(number)) {
        let mut gaps = Vec::new();
        let (mut ways, mut wasted) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let survived = moves::survive(&program, what);
            gaps.push(survived.gap);
            ways.extend(paths(&survived.report));
            wasted.push(survived.report["wasted_bytes"].as_u64().unwrap_or(0));
        }
        ways.sort_unstable();
        ways.dedup();
        let gaps: Vec<String> = gaps.iter().map(|gap| seconds(*gap)).collect();
        let most = wasted.into_iter().max().unwrap_or(0) / 1000;
        println!(
            "| {} | {} | {} | {most} kB |",
            what.describe(),
            gaps.join(", "),
            ways.join(", ")
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn program(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("qshare"),
    };
    std::fs::canonicalize(&program).with_context(|| {
        format!(
            "{}: build it first, cargo build -p qshare",
            program.display()
        )
    })
}

fn pairs(args: &MatrixArgs) -> Vec<Pair> {
    let all = [
        NatKind::Open,
        NatKind::Cone,
        NatKind::Symmetric,
        NatKind::Double,
    ];
    let from = all
        .into_iter()
        .filter(|kind| args.from.is_empty() || args.from.contains(kind));
    let mut pairs = Vec::new();
    for a in from {
        let to = all
            .into_iter()
            .filter(|_| !args.same_router)
            .filter(|kind| args.to.is_empty() || args.to.contains(kind));
        pairs.extend(to.map(|b| Pair::Apart(a, b)));
        if a != NatKind::Open && args.to.is_empty() {
            pairs.push(Pair::Together(a));
        }
    }
    pairs
}

fn measure(args: &MatrixArgs, program: &std::path::Path, pair: Pair) -> anyhow::Result<Vec<Run>> {
    let link = Link {
        delay: args.delay,
        ..Link::default()
    };
    let host = |name: &str, nat| {
        let plan = HostPlan::new(name).nat(nat).link(link);
        if args.ipv6 { plan.ipv6() } else { plan }
    };
    let (a, b) = match pair {
        Pair::Apart(a, b) => (host("a", a), host("b", b)),
        Pair::Together(nat) => (host("a", nat), HostPlan::new("b").sharing_router_of("a")),
    };
    let lab = Lab::builder()
        .host(HostPlan::new("tracker").link(link))
        .host(a)
        .host(b)
        .build()?;
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let mut world = Networked::new(program.to_owned());
    if args.ipv6 {
        let v6 = tracker.address_v6().context("an IPv6 address")?;
        world = world.tracker_at(IpAddr::V6(v6));
    }
    let bytes = noise(FILE_BYTES, 3);
    world.share(a, FILE, &bytes);
    let mut with: Vec<&str> = args.with.iter().map(String::as_str).collect();
    let large = noise(LARGE_BYTES, 4);
    if args.punch_hard {
        with.push("--punch-hard");
        world.share(a, LARGE, &large);
    }
    let _tracker = world.tracker(tracker, &[]);
    let _node = world.node(a, tracker, &with);
    world.wait_listed(tracker, FILE);
    if args.punch_hard {
        world.wait_listed(tracker, LARGE);
    }
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        let before = tracker.counters()?;
        let begun = Instant::now();
        let arguments = [&["--no-sync", FILE], with.as_slice()].concat();
        let get = world.get(b, tracker, &arguments);
        let report: Value = get.out_line(|line| serde_json::from_str(line).ok());
        let first_byte = begun.elapsed();
        get.end().well();
        assert_same(&world.dir(b).join(FILE), &bytes);
        let relayed_bytes = tracker.counters()?.since(before).received_bytes;
        std::fs::remove_file(world.dir(b).join(FILE))?;
        let mut ways_of_large = Vec::new();
        if args.punch_hard {
            let arguments = [&["--no-sync", LARGE], with.as_slice()].concat();
            let ended = world.get(b, tracker, &arguments).end().well();
            assert_same(&world.dir(b).join(LARGE), &large);
            ways_of_large = paths(&ended.json()[0]);
            std::fs::remove_file(world.dir(b).join(LARGE))?;
        }
        runs.push(Run {
            path: paths(&report).first().cloned().unwrap_or_default(),
            first_byte,
            relayed_bytes,
            large: ways_of_large,
        });
    }
    Ok(runs)
}

fn row(pair: Pair, runs: &[Run]) -> String {
    let (a, b) = match pair {
        Pair::Apart(a, b) => (a.to_string(), b.to_string()),
        Pair::Together(nat) => (nat.to_string(), "the same router".into()),
    };
    let mut ways: Vec<&str> = runs.iter().map(|run| run.path.as_str()).collect();
    ways.sort_unstable();
    ways.dedup();
    let ways: Vec<String> = ways
        .into_iter()
        .map(|way| {
            let count = runs.iter().filter(|run| run.path == way).count();
            match count == runs.len() {
                true => way.to_owned(),
                false => format!("{way} {count}/{}", runs.len()),
            }
        })
        .collect();
    let mut times: Vec<Duration> = runs.iter().map(|run| run.first_byte).collect();
    times.sort_unstable();
    let mut relayed: Vec<u64> = runs.iter().map(|run| run.relayed_bytes).collect();
    relayed.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let through = relayed.get(relayed.len() / 2).copied().unwrap_or(0) / 1000;
    let large = match runs.iter().any(|run| !run.large.is_empty()) {
        true => {
            let direct = |run: &&Run| !run.large.iter().all(|way| way == "relay");
            let count = runs.iter().filter(direct).count();
            format!(" directly {count}/{} |", runs.len())
        }
        false => String::new(),
    };
    format!(
        "| {a} | {b} | {} | {} | {} | {through} kB |{large}",
        ways.join(", "),
        seconds(median),
        seconds(worst)
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
