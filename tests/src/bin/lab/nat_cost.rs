//! `lab nat-relay`: how fast the relay of last resort is; `lab nat-idle`: whether a connection on
//! which nothing happens outlives a router's memory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{HostPlan, Lab, NatKind, parse_duration};
use qshare_tests::mappings;
use qshare_tests::networked::{Networked, paths};
use qshare_wire::limits::KEEP_ALIVE;

use crate::nat_matrix::program;

const FILE: &str = "file.bin";
const MEGABYTE: usize = 1_000_000;

#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Size of the file
    #[arg(long = "size", value_name = "MB", default_value_t = 200)]
    megabytes: usize,
    /// Mbit/s that the relay may carry, of one node and of all; what it does by default without
    #[arg(long, value_name = "MBIT")]
    mbit: Option<u32>,
    /// Downloads
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The program; beside this one by default
    #[arg(long, value_name = "FILE")]
    qshare: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// When the router forgets what is not used
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    mapping: Duration,
    /// How long nothing happens; a connection without keep-alives ends after 30 s
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = parse_duration)]
    idle: Duration,
}

/// Two behind symmetric routers.
pub(crate) fn relay(args: &RelayArgs) -> anyhow::Result<ExitCode> {
    let host = |name| HostPlan::new(name).nat(NatKind::Symmetric);
    let lab = Lab::builder()
        .host(HostPlan::new("tracker"))
        .host(host("a"))
        .host(host("b"))
        .build()?;
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let world = Networked::new(program(args.qshare.as_ref())?);
    let bytes = noise(args.megabytes * MEGABYTE, 5);
    world.share(a, FILE, &bytes);
    let mbit = args.mbit.map(|mbit| mbit.to_string());
    let limits = match &mbit {
        Some(mbit) => vec!["--relay-mbit", mbit, "--relay-client-mbit", mbit],
        None => Vec::new(),
    };
    let _tracker = world.tracker(tracker, &limits);
    let _node = world.node(a, tracker, &[]);
    world.wait_listed(tracker, FILE);
    for _ in 0..args.runs {
        let ended = world.get(b, tracker, &["--no-sync", FILE]).end().well();
        assert_same(&world.dir(b).join(FILE), &bytes);
        std::fs::remove_file(world.dir(b).join(FILE))?;
        let report = ended.json().remove(0);
        ensure!(paths(&report) == ["relay"], "it went another way: {report}");
        let seconds = report["seconds"].as_f64().unwrap_or(f64::NAN);
        println!(
            "{} MB through the relay in {seconds:.2} s: {:.1} MB/s",
            args.megabytes,
            args.megabytes as f64 / seconds
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A public address asks somebody behind a home router, after a pause.
pub(crate) fn idle(args: &IdleArgs) -> anyhow::Result<ExitCode> {
    let heard = mappings::is_heard_after(args.idle, args.mapping, KEEP_ALIVE);
    println!(
        "a router that forgets after {:?}, keep-alives every {KEEP_ALIVE:?}: after {:?} the node \
         behind it is {}",
        args.mapping,
        args.idle,
        if heard { "still reached" } else { "lost" }
    );
    Ok(if heard {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
