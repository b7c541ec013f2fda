//! `lab long-get`: a whole download from one node far away, by the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use qshare_net::Congestion;
use qshare_tests::lab::{HostPlan, Lab, isolation};
use qshare_tests::networked::Networked;
use qshare_tests::process::peak_memory_bytes;
use serde::Serialize;

use super::path::{PathArgs, SINK};
use crate::flash_crowd::{machine_ticks, write_noise};
use crate::nat_matrix::program;

const HELP: &str = "\
Examples:
  lab long-get
  lab long-get --loss 0.1% --size 512
  lab long-get --rate 20mbit --rtt 300ms --queue 150ms --loss 2% --size 32
  lab long-get --congestion bbr3,cubic --every

Build both binaries optimised first: cargo build --release -p qshare -p qshare-tests.

A tracker, a node with the file at the far end, and `qshare get` behind the bottleneck; files are
in memory (or in --dir). Columns: `whole`, the file in Mbit/s of the whole command's time; `steady`, the same of
what came after start-up (--start-up) until 98 % were there, and its `share` of the rate; `up`, seconds until
half a second went at 80 % of the steady rate; `end`, seconds from 99 % until the command had
ended; `sent`, what the node sent over the file's bytes; `busy`, the share of the machine that was in use; `get` and
`node`, the most memory that either held, in MiB.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct LongGetArgs {
    #[command(flatten)]
    path: PathArgs,
    /// Size of the file in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    size: u64,
    /// Congestion control of the node, one after the other
    #[arg(long, value_delimiter = ',', default_value = "auto")]
    congestion: Vec<Congestion>,
    /// What of the time is start-up
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    start_up: f64,
    /// Repetitions
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Also print how fast bytes came in each 100 ms, in Mbit/s
    #[arg(long)]
    every: bool,
    /// The qshare to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    qshare: Option<PathBuf>,
    /// Keep what node and `get` log (-vvv) here
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Have the files in this directory instead of in memory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object a run instead of the table
    #[arg(long)]
    json: bool,
}

const FILE_NAME: &str = "far.bin";
const SOURCE: &str = "source";
const TRACKER: &str = "tracker";
const MIB: f64 = (1 << 20) as f64;
const SAMPLE: Duration = Duration::from_millis(100);
/// Deadline of a download.
const GIVE_UP: Duration = Duration::from_secs(600);

/// The result of a download; rates count the file's bytes, in Mbit/s.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    congestion: String,
    whole_mbit: f64,
    steady_mbit: f64,
    share: f64,
    up_seconds: Option<f64>,
    end_seconds: f64,
    sent: f64,
    busy: f64,
    get_peak_mib: f64,
    node_peak_mib: f64,
}

impl Outcome {
    const HEADER: &str =
        "congestion    whole  steady  share     up    end   sent   busy   get  node";

    fn line(&self) -> String {
        let up = self
            .up_seconds
            .map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        format!(
            "{:11} {:7.1} {:7.1} {:5.1}% {up:>6} {:6.2} {:6.2} {:5.0}% {:5.0} {:5.0}",
            self.congestion,
            self.whole_mbit,
            self.steady_mbit,
            self.share * 100.0,
            self.end_seconds,
            self.sent,
            self.busy * 100.0,
            self.get_peak_mib,
            self.node_peak_mib,
        )
    }
}

pub(crate) fn run(args: &LongGetArgs) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build; figures are only worth something with --release");
    }
    let lab = Lab::builder()
        .host(HostPlan::new(TRACKER))
        .host(args.path.far(SOURCE))
        .host(args.path.sink())
        .build()?;
    let place = match &args.dir {
        Some(dir) => std::fs::canonicalize(dir).with_context(|| format!("{}", dir.display()))?,
        None => isolation::scratch_dir()?,
    };
    let world = Networked::within(&place, program(args.qshare.as_ref())?);
    let shared = world.dir(lab.host(SOURCE)).join("assets").join(FILE_NAME);
    write_noise(&shared, args.size << 20)?;
    let _tracker = world.tracker(lab.host(TRACKER), &[]);
    if !args.json {
        println!("{}", Outcome::HEADER);
    }
    for _ in 0..args.runs {
        for &congestion in &args.congestion {
            let outcome = measure(&lab, &world, &shared, args, congestion)?;
            match args.json {
                true => println!("{}", serde_json::to_string(&outcome)?),
                false => println!("{}", outcome.line()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    lab: &Lab,
    world: &Networked,
    shared: &Path,
    args: &LongGetArgs,
    congestion: Congestion,
) -> anyhow::Result<Outcome> {
    let (source, sink, tracker) = (lab.host(SOURCE), lab.host(SINK), lab.host(TRACKER));
    let mut more = vec!["--congestion", congestion.name()];
    if args.logs.is_some() {
        more.push("-vvv");
    }
    let node = world.node(source, tracker, &more);
    world.wait_listed(tracker, FILE_NAME);
    let copy = world.dir(sink).join(FILE_NAME);
    let mut get = world.get_command(sink, tracker, &more);
    get.arg(FILE_NAME);
    let sent_before = source.counters()?;
    let (samples, wall) = watch(lab, args, get)?;
    let node_peak_bytes = node.peak_memory_bytes();
    let sent = source.counters()?.since(sent_before).sent_bytes;
    if let Some(logs) = &args.logs {
        std::fs::create_dir_all(logs)?;
        std::fs::write(logs.join("node"), node.err.text())?;
    }
    ensure!(
        std::fs::read(&copy)? == std::fs::read(shared)?,
        "{} differs from what was shared",
        copy.display()
    );
    std::fs::remove_file(&copy)?;
    if args.every {
        print_rates(&samples);
    }
    Ok(Outcome {
        congestion: congestion.to_string(),
        sent: sent as f64 / (args.size << 20) as f64,
        node_peak_mib: node_peak_bytes as f64 / MIB,
        ..outcome(args, &samples, wall)
    })
}

/// Bytes received over time, since the command started.
struct Sample {
    at: Duration,
    bytes: u64,
    ticks: (u64, u64),
    /// Memory of the command.
    peak_bytes: u64,
}

/// Runs the command to its end.
fn watch(
    lab: &Lab,
    args: &LongGetArgs,
    mut get: Command,
) -> anyhow::Result<(Vec<Sample>, Duration)> {
    let sink = lab.host(SINK);
    let log = match &args.logs {
        Some(logs) => {
            std::fs::create_dir_all(logs)?;
            std::fs::File::create(logs.join("get"))?.into()
        }
        None => Stdio::null(),
    };
    let before = sink.counters()?;
    let began = Instant::now();
    let mut get = get
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("start qshare get")?;
    let id = get.id();
    let end = std::thread::spawn(move || get.wait().map(|status| (status, began.elapsed())));
    let mut samples = Vec::new();
    loop {
        // Whether it had ended is asked before what had come in by then.
        let has_ended = end.is_finished();
        samples.push(Sample {
            at: began.elapsed(),
            bytes: sink.counters()?.since(before).received_bytes,
            ticks: machine_ticks(),
            peak_bytes: peak_memory_bytes(id).unwrap_or(0),
        });
        if has_ended {
            break;
        }
        ensure!(began.elapsed() < GIVE_UP, "not within {GIVE_UP:?}");
        std::thread::sleep(SAMPLE);
    }
    let (status, wall) = end
        .join()
        .map_err(|_| anyhow::anyhow!("nobody waited for qshare get"))??;
    ensure!(
        status.success(),
        "qshare get ended with {status} (--logs DIR keeps what it said)"
    );
    Ok((samples, wall))
}

fn print_rates(samples: &[Sample]) {
    for pair in samples.windows(2) {
        let mbit = (pair[1].bytes - pair[0].bytes) as f64 * 8e-6;
        let seconds = (pair[1].at - pair[0].at).as_secs_f64();
        println!(
            "{:6.2} s {:7.1}",
            pair[1].at.as_secs_f64(),
            mbit / seconds.max(1e-9)
        );
    }
}

fn outcome(args: &LongGetArgs, samples: &[Sample], wall: Duration) -> Outcome {
    let file_bytes = (args.size << 20) as f64;
    let all = samples.last().map_or(0, |last| last.bytes);
    // What an interface carries is a little more than the file.
    let payload = file_bytes / all.max(1) as f64;
    let mbit = |from: &Sample, to: &Sample| {
        let bytes = (to.bytes - from.bytes) as f64 * payload;
        bytes * 8e-6 / (to.at - from.at).as_secs_f64().max(1e-9)
    };
    let reached = |part: f64| {
        let at = samples.partition_point(|sample| (sample.bytes as f64) < all as f64 * part);
        &samples[at.min(samples.len() - 1)]
    };
    let late = reached(0.98);
    let first = samples
        .iter()
        .find(|sample| sample.at.as_secs_f64() >= args.start_up)
        .filter(|first| first.at < late.at)
        .unwrap_or(&samples[0]);
    let steady = mbit(first, late);
    let up = samples.windows(6).find_map(|window| {
        let is_up = mbit(&window[0], &window[5]) >= 0.8 * steady;
        is_up.then(|| window[0].at.as_secs_f64())
    });
    let ticks = late.ticks.0 - first.ticks.0;
    let idle = late.ticks.1 - first.ticks.1;
    Outcome {
        whole_mbit: file_bytes * 8e-6 / wall.as_secs_f64(),
        steady_mbit: steady,
        share: steady * 1e6 / args.path.rate.bits_per_second() as f64,
        up_seconds: up,
        end_seconds: wall.saturating_sub(reached(0.99).at).as_secs_f64(),
        busy: 1.0 - idle as f64 / ticks.max(1) as f64,
        get_peak_mib: samples
            .iter()
            .map(|sample| sample.peak_bytes)
            .max()
            .unwrap_or(0) as f64
            / MIB,
        ..Outcome::default()
    }
}
