//! One source, far away: how much of the path does a flow use, and what does it leave to others?

mod flow;
mod get;
mod path;
mod queue;
mod quic;
mod tcp;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use qshare_tests::lab::Lab;
use serde::Serialize;

use flow::{Flow, Watch};
pub(crate) use get::{LongGetArgs, run as run_get};
use path::{PathArgs, SINK};

const HELP: &str = "\
Examples:
  lab long-pipe
  lab long-pipe --loss 0.1%
  lab long-pipe --rate 20mbit --rtt 300ms --loss 2% --seconds 30
  lab long-pipe --rate 100mbit --rtt 40ms --beside tcp-cubic --flow tcp-bbr,quic-bbr3,quic-cubic
  lab long-pipe --rate 100mbit --rtt 40ms --at-once 8 --flow quic-bbr3,quic-cubic

Build it optimised first: cargo build --release -p qshare-tests.

Flows are tcp-NAME (the kernel's TCP under that congestion control, with windows of up to 64 MiB),
and quic-cubic, quic-bbr, quic-bbr3: connections as qshare makes them, from memory to memory.
The bottleneck is in front of the receiver and drops the tail of its queue; each of the two
directions has half the round trip, and loses packets with the same probability.

Columns: `steady`, payload in Mbit/s after start-up (--start-up) and its `share` of the rate;
`all`, the same from the first dial on; `up`, seconds until half a second went at 80 % of the steady
rate; `queue`, what small packets on the same way wait (median and 95th percentile, in ms, after
start-up); `busy`, the share of the machine that was in use: near 100 % it is the machine that was
measured. With --at-once, the rates are those of all together, and `least` and `most` what one of them got
of an equal share. With --beside, that flow runs before and during the other, and `beside` is what it got.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct LongPipeArgs {
    #[command(flatten)]
    path: PathArgs,
    /// What to send with, one after the other
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tcp-cubic,tcp-bbr,quic-cubic,quic-bbr,quic-bbr3"
    )]
    flow: Vec<Flow>,
    /// Another flow that shares the bottleneck, from a host of its own
    #[arg(long, value_name = "FLOW")]
    beside: Option<Flow>,
    /// So many of each flow at once, from one host
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=64))]
    at_once: u64,
    /// How long each flow sends
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    seconds: u64,
    /// What of that is start-up
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    start_up: u64,
    /// Repetitions
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Print one JSON object a run instead of the table
    #[arg(long)]
    json: bool,
}

/// The flow that was there first is alone for so long.
const HEAD_START: Duration = Duration::from_secs(5);
const SAMPLE: Duration = Duration::from_millis(100);
/// What TCP may hold of a connection on either side: more than any path here.
const TCP_WINDOW: &str = "4096 1048576 67108864";

/// The result of a flow; rates count payload.
#[derive(Debug, Serialize)]
struct Outcome {
    flow: String,
    beside: Option<String>,
    steady_mbit: f64,
    share: f64,
    all_mbit: f64,
    up_seconds: Option<f64>,
    queue_ms: f64,
    queue_p95_ms: f64,
    beside_mbit: Option<f64>,
    /// Of an equal share.
    least: f64,
    most: f64,
    busy: f64,
}

impl Outcome {
    const HEADER: &str =
        "flow         steady  share     all     up   queue    p95    busy  least  most  beside";

    fn line(&self) -> String {
        let beside = match (&self.beside, self.beside_mbit) {
            (Some(name), Some(mbit)) => format!("{mbit:.1} {name}"),
            _ => String::new(),
        };
        let up = self
            .up_seconds
            .map_or("-".to_owned(), |seconds| format!("{seconds:.1}"));
        format!(
            "{:11} {:7.1} {:5.1}% {:7.1} {:>6} {:7.1} {:6.1} {:6.0}%  {:5.2} {:5.2}  {beside}",
            self.flow,
            self.steady_mbit,
            self.share * 100.0,
            self.all_mbit,
            up,
            self.queue_ms,
            self.queue_p95_ms,
            self.busy * 100.0,
            self.least,
            self.most
        )
    }
}

pub(crate) fn run(args: &LongPipeArgs) -> anyhow::Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build; figures are only worth something with --release");
    }
    anyhow::ensure!(
        args.start_up < args.seconds,
        "--start-up leaves nothing of --seconds"
    );
    let lab = build(args)?;
    if !args.json {
        println!("{}", Outcome::HEADER);
    }
    for _ in 0..args.runs {
        for flow in &args.flow {
            let outcome = measure(&lab, args, flow)?;
            match args.json {
                true => println!("{}", serde_json::to_string(&outcome)?),
                false => println!("{}", outcome.line()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build(args: &LongPipeArgs) -> anyhow::Result<Lab> {
    let lab = Lab::builder()
        .host(args.path.sink())
        .host(args.path.far("source"))
        .host(args.path.far("other"))
        .build()?;
    for host in lab.hosts() {
        for name in ["tcp_rmem", "tcp_wmem"] {
            let path = format!("/proc/sys/net/ipv4/{name}");
            host.inside(|| std::fs::write(&path, TCP_WINDOW))
                .flatten()?;
        }
    }
    Ok(lab)
}

fn measure(lab: &Lab, args: &LongPipeArgs, flow: &Flow) -> anyhow::Result<Outcome> {
    let (sink, source, other) = (lab.host(SINK), lab.host("source"), lab.host("other"));
    let watches: Vec<_> = (0..args.at_once).map(|_| Arc::default()).collect();
    let beside = Arc::new(Watch::default());
    std::thread::scope(|scope| {
        let running_beside = args.beside.as_ref().map(|flow| {
            let running = scope.spawn(|| flow.run(other, sink, &beside));
            std::thread::sleep(HEAD_START);
            running
        });
        let trips = scope.spawn(|| queue::round_trips(source, sink, &watches[0]));
        let running: Vec<_> = watches
            .iter()
            .map(|watch| scope.spawn(move || flow.run(source, sink, watch)))
            .collect();
        let samples = sample(args, &watches, &beside);
        watches.iter().for_each(|watch| watch.end());
        beside.end();
        for thread in running.into_iter().chain(running_beside) {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a flow died"))??;
        }
        let trips = trips
            .join()
            .map_err(|_| anyhow::anyhow!("the probe died"))??;
        Ok(outcome(args, flow, &samples, &trips))
    })
}

/// Bytes received over time.
struct Sample {
    at: Instant,
    bytes: Vec<u64>,
    beside_bytes: u64,
    ticks: (u64, u64),
}

impl Sample {
    fn all(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

fn sample(args: &LongPipeArgs, watches: &[Arc<Watch>], beside: &Watch) -> Vec<Sample> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut samples = Vec::new();
    loop {
        samples.push(Sample {
            at: Instant::now(),
            bytes: watches.iter().map(|watch| watch.received_bytes()).collect(),
            beside_bytes: beside.received_bytes(),
            ticks: super::flash_crowd::machine_ticks(),
        });
        if Instant::now() >= end || watches.iter().any(|watch| watch.has_ended()) {
            return samples;
        }
        std::thread::sleep(SAMPLE);
    }
}

fn outcome(
    args: &LongPipeArgs,
    flow: &Flow,
    samples: &[Sample],
    trips: &[(Instant, Duration)],
) -> Outcome {
    let mbit = |bytes: u64, time: Duration| bytes as f64 * 8e-6 / time.as_secs_f64().max(1e-9);
    let began = samples[0].at;
    let steady_from = began + Duration::from_secs(args.start_up);
    let first = samples
        .iter()
        .find(|sample| sample.at >= steady_from)
        .unwrap_or(&samples[0]);
    let last = &samples[samples.len() - 1];
    let parts: Vec<_> = std::iter::zip(&last.bytes, &first.bytes)
        .map(|(last, first)| last - first)
        .collect();
    let together = parts.iter().sum();
    let steady = mbit(together, last.at - first.at);
    let of_equal = |bytes: Option<&u64>| {
        let equal = together as f64 / parts.len() as f64;
        bytes.map_or(f64::NAN, |bytes| *bytes as f64 / equal)
    };
    let up = samples.windows(6).find_map(|window| {
        let (from, to) = (&window[0], &window[5]);
        let is_up = mbit(to.all() - from.all(), to.at - from.at) >= 0.8 * steady;
        is_up.then(|| (from.at - began).as_secs_f64())
    });
    let mut waits: Vec<f64> = trips
        .iter()
        .filter(|(at, _)| *at >= steady_from)
        .map(|(_, trip)| trip.saturating_sub(args.path.rtt).as_secs_f64() * 1e3)
        .collect();
    waits.sort_by(f64::total_cmp);
    let part = |part: f64| {
        let at = (waits.len() as f64 * part) as usize;
        waits.get(at).copied().unwrap_or(f64::NAN)
    };
    let all = last.ticks.0 - first.ticks.0;
    let idle = last.ticks.1 - first.ticks.1;
    Outcome {
        flow: flow.to_string(),
        beside: args.beside.as_ref().map(Flow::to_string),
        steady_mbit: steady,
        share: steady * 1e6 / args.path.rate.bits_per_second() as f64,
        all_mbit: mbit(last.all(), last.at - began),
        up_seconds: up,
        queue_ms: part(0.5),
        queue_p95_ms: part(0.95),
        beside_mbit: args
            .beside
            .as_ref()
            .map(|_| mbit(last.beside_bytes - first.beside_bytes, last.at - first.at)),
        least: of_equal(parts.iter().min()),
        most: of_equal(parts.iter().max()),
        busy: 1.0 - idle as f64 / all.max(1) as f64,
    }
}
