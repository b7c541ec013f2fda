//! Whole commands: `qshare get` of one file on loopback, from one source and from several, beside
//! bare QUIC moving as many bytes from memory to memory in the same run.
//!
//! `cargo bench -p qshare-benches --bench transfer -- --help`. Read the ratios: absolute numbers
//! drift with the machine and with what else it does.

mod args;
mod bare;
mod measure;
mod stage;
mod table;

use anyhow::Context;
use clap::Parser;

use args::{Args, Role};
use measure::{Trial, median};
use stage::{Stage, Swarm};
use table::Table;

/// What `get` and `node` may hold at most, whatever the file's size.
const MEMORY_MAX_BYTES: u64 = 150 << 20;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.role {
        Some(Role::BareServe) => return bare::serve(),
        Some(Role::BareFetch { at, id, bytes }) => return bare::fetch(at, id, bytes),
        None => {}
    }
    if !args.bench {
        println!("nothing to test here; `cargo bench` measures");
        return Ok(());
    }
    let stage = Stage::new(args.dir.as_deref())?;
    println!("in {}", stage.describe());
    if args.runs > 0 {
        throughput(&stage, &args)?;
    }
    if args.memory_size.0 > 0 {
        memory(&stage, args.memory_size.0)?;
    }
    Ok(())
}

/// The contestants in turns, so that whatever else the machine does meets all of them.
fn throughput(stage: &Stage, args: &Args) -> anyhow::Result<()> {
    let bytes = args.size.0;
    let file = stage.noise_file("file.bin", bytes)?;
    let bare = bare::Bare::start()?;
    let one = Swarm::start(stage, "one", &file, 1)?;
    let many = match args.sources {
        0 | 1 => None,
        sources => Some(Swarm::start(stage, "many", &file, sources)?),
    };
    let several = format!("get, {} sources", args.sources);

    let mut table = Table::new(bytes);
    let (mut of_bare, mut of_one, mut of_many) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        of_bare.push(table.add("bare quinn", bare.trial(bytes)?));
        of_one.push(table.add("get, 1 source", one.trial(stage)?));
        if let Some(many) = &many {
            of_many.push(table.add(&several, many.trial(stage)?));
        }
    }
    println!();
    table.add_median("bare quinn", &of_bare);
    table.add_median("get, 1 source", &of_one);
    table.add_median(&several, &of_many);
    println!();
    compare("get, 1 source", &of_one, &of_bare, bytes);
    compare(&several, &of_many, &of_bare, bytes);
    Ok(())
}

/// Prints medians over the medians of the yardstick. Processor time is that of both sides, and
/// says something even while the machine does other things.
fn compare(what: &str, trials: &[Trial], base: &[Trial], bytes: u64) {
    if trials.is_empty() {
        return;
    }
    let over =
        |of: &dyn Fn(&Trial) -> f64| median(trials.iter().map(of)) / median(base.iter().map(of));
    println!(
        "{what} / bare quinn: {:.2} of its speed, {:.2} times its processor time",
        over(&|trial| trial.speed(bytes)),
        over(&|trial| (trial.own_cpu + trial.others_cpu).as_secs_f64()),
    );
}

/// What a large file costs in memory.
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
