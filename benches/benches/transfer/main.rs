//! Whole commands: `qshare get` of one file on loopback, from one source and from several, beside
//! bare QUIC moving as many bytes from memory to memory in the same run.
//!
//! `cargo bench -p qshare-benches --bench transfer -- --help`. Read the ratios: absolute numbers
//! drift with the machine and with what else it does.

mod args;

use std::env;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Context;
use clap::Parser;
use qshare_benches::bare::{Bare, Setup};
use qshare_benches::measure::{self, Trial, median};
use qshare_benches::stage::{Stage, Swarm};
use qshare_benches::table::Table;

use args::Args;

/// Quinn with its defaults.
const STOCK: &str = "bare quinn";
/// Quinn with qshare's packet sizes, windows and socket.
const TUNED: &str = "bare quinn, tuned";
const ONE: &str = "get, 1 source";
/// What `get` and `node` may hold at most, whatever the file's size.
const MEMORY_MAX_BYTES: u64 = 150 << 20;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(role) = args.role {
        return role.run();
    }
    if !args.cargo.measures() {
        return Ok(());
    }
    let stage = Stage::new(args.dir.as_deref())?;
    println!("in {}", stage.path().display());
    if args.runs > 0 {
        throughput(&stage, &args)?;
    }
    if args.memory_size.0 > 0 {
        memory(&stage, args.memory_size.0)?;
    }
    Ok(())
}

/// Runs the contestants in turns, so that other load on the machine affects all of them.
fn throughput(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    let bytes = args.size.0;
    let file = stage.noise_file("file.bin", bytes)?;
    let program = env::current_exe()?;
    let again = || Command::new(&program);
    let start = |setup| Bare::start(setup, again(), Ipv4Addr::LOCALHOST.into());
    let (stock, tuned) = (start(Setup::Stock)?, start(Setup::Tuned)?);
    let bare = |bare: &Bare| measure::trial(bare.get(again(), bytes), &[bare.id()]);
    let one = Swarm::start(stage, "one", &file, 1)?;
    let many = match args.sources {
        0 | 1 => None,
        sources => Some(Swarm::start(stage, "many", &file, sources)?),
    };
    let several = format!("get, {} sources", args.sources);

    let mut table = Table::new(bytes);
    let (mut of_stock, mut of_tuned) = (Vec::new(), Vec::new());
    let (mut of_one, mut of_many) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        of_stock.push(table.add(STOCK, bare(&stock)?));
        of_tuned.push(table.add(TUNED, bare(&tuned)?));
        of_one.push(table.add(ONE, one.trial(stage)?));
        if let Some(many) = &many {
            of_many.push(table.add(&several, many.trial(stage)?));
        }
    }
    println!();
    table.add_median(STOCK, &of_stock);
    table.add_median(TUNED, &of_tuned);
    table.add_median(ONE, &of_one);
    table.add_median(&several, &of_many);
    println!();
    for (base, of_base) in [(STOCK, &of_stock), (TUNED, &of_tuned)] {
        compare(ONE, &of_one, base, of_base, bytes);
        compare(&several, &of_many, base, of_base, bytes);
    }
    compare(&several, &of_many, ONE, &of_one, bytes);
    Ok(())
}

/// Prints medians over the medians of the yardstick. Processor time is that of both sides, and
/// says something even while the machine does other things.
fn compare(what: &str, trials: &[Trial], base_name: &str, base: &[Trial], bytes: u64) {
    if trials.is_empty() {
        return;
    }
    let over =
        |of: &dyn Fn(&Trial) -> f64| median(trials.iter().map(of)) / median(base.iter().map(of));
    println!(
        "{what} / {base_name}: {:.2} of its speed, {:.2} times its processor time",
        over(&|trial| trial.speed(bytes)),
        over(&|trial| (trial.own_cpu + trial.others_cpu).as_secs_f64()),
    );
}

/// Measures the memory that a large file takes.
fn memory(stage: &Stage, bytes: u64) -> anyhow::Result<()> {
    println!();
    let file = stage.sparse_file("sparse.bin", bytes)?;
    let swarm = Swarm::start(stage, "memory", &file, 1)?;
    let mut table = Table::new(bytes);
    let trial = table.add("get, sparse file", swarm.trial(stage)?);
    let most = trial.own_peak_bytes.max(trial.others_peak_bytes);
    let verdict = if most <= MEMORY_MAX_BYTES {
        "within"
    } else {
        "MORE than"
    };
    println!(
        "peak {} MiB, {verdict} {} MiB",
        most >> 20,
        MEMORY_MAX_BYTES >> 20
    );
    std::fs::remove_file(&file).context("cannot remove the sparse file")
}
