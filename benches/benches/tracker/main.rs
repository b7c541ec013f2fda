//! What one tracker carries, in rows:
//!
//! - `lookups`: lookups per second over many QUIC connections beside a bare QUIC echo with the same
//!   endpoint, connections and message sizes, and beside announces of aquatic_udp, if that is
//!   installed; latency at half of that rate; answers with 30 holders
//! - `shared`: the same over Redis, of names that are cached, beside memory
//! - `pair`: two trackers over one Redis beside one, each with a part of a core (cgroups: as root)
//! - `idle`: memory and processor time of idle sessions
//! - `announcement`: a full announcement, in memory and over Redis
//!
//! `cargo bench -p qshare-benches --bench tracker -- --help`. Each server runs in a process of its
//! own on one thread; the generator runs in this one, on one thread, too. The budget of requests
//! per session is lifted: it would stop the generator, which is one machine.

mod aquatic;
mod asking;
mod limit;
mod rows;
mod serve;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, Subcommand, ValueEnum};
use qshare_benches::from_cargo::FromCargo;
use qshare_content::NodeId;

#[derive(Debug, Parser)]
struct Args {
    /// Rows to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "lookups,shared,pair,announcement,idle"
    )]
    rows: Vec<Row>,
    /// Connections that ask
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Lookups in flight on each
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Pairs of measurements, the one and the other in turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Names that are announced and looked up
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// Idle sessions; their processes need as many open files
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    #[command(flatten)]
    cargo: FromCargo,
    #[command(subcommand)]
    role: Option<Role>,
}

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    Lookups,
    Shared,
    Pair,
    Idle,
    Announcement,
}

/// The role of a benchmark that starts itself again.
#[derive(Debug, Clone, Subcommand)]
enum Role {
    /// Runs a tracker until it is killed
    #[command(hide = true)]
    Tracker {
        /// The shared registry
        #[arg(long)]
        registry: Option<String>,
    },
    /// Answers every stream with this many bytes until it is killed
    #[command(hide = true)]
    Echo {
        /// Bytes of an answer
        bytes: usize,
    },
    /// Holds idle sessions until it is killed
    #[command(hide = true)]
    Nodes {
        /// The tracker
        tracker: SocketAddr,
        /// Its id
        id: NodeId,
        /// Sessions
        count: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.role {
        Some(Role::Tracker { registry }) => {
            return block_on(serve::run_tracker(registry.as_deref()));
        }
        Some(Role::Echo { bytes }) => return block_on(serve::run_echo(bytes)),
        Some(Role::Nodes { tracker, id, count }) => {
            return block_on(serve::run_nodes(tracker, id, count));
        }
        None => {}
    }
    if !args.cargo.measures() {
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.names > 0 && args.connections > 0 && args.depth > 0 && args.runs > 0);
    block_on(report(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn report(args: &Args) -> anyhow::Result<()> {
    for row in &args.rows {
        println!("\n{row:?}");
        match row {
            Row::Lookups => rows::lookups(args).await?,
            Row::Shared => rows::shared(args).await?,
            Row::Pair => rows::pair(args).await?,
            Row::Idle => rows::idle(args).await?,
            Row::Announcement => rows::announcement(args).await?,
        }
    }
    Ok(())
}

/// Runs on this thread alone, as the program does.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
