//! Many nodes want one file from one seed at once: how close to the bound is the last of them?
//!
//! Nobody can finish before max(F/u_seed, F/d_min, N·F/(u_seed + Σu_i)): the seed must send every
//! byte once, each must receive every byte, and together they cannot send faster than they can.
//! The bound counts the file's bytes over the shaped rate, so that framing alone costs 5 %.

mod libtorrent;
mod outcome;
mod qshare;
mod race;
mod shape;

pub(crate) use race::machine_ticks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use qshare_tests::lab::{Lab, Rate, isolation, parse_duration};
use rand::{RngCore, SeedableRng};

use outcome::Outcome;
use shape::{Crowd, Shape};

const HELP: &str = "\
Examples:
  lab flash-crowd --leechers 8 --rate 100mbit
  lab flash-crowd --leechers 32 --rate 20mbit --runs 3
  lab flash-crowd --shape all --system qshare
  lab flash-crowd --size 512 --delay 50ms

Build both binaries optimised first: cargo build --release -p qshare -p qshare-tests.
libtorrent is Debian's python3-libtorrent; without it, it is left out.

Columns: `last` of the leechers to finish, in seconds; its `ratio` to the bound; `median`; `waste`,
file bytes received twice or in vain; `wire`, all that leechers' interfaces received over the files'
bytes; `seed`, how many files the seed sent, by its interface (and by what leechers report); `CPU`
seconds of all processes; `busy`, the share of the machine that was in use: near 100 % it is the
machine that was measured.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct FlashCrowdArgs {
    /// How many want the file
    #[arg(long, value_name = "N", default_value_t = 8)]
    leechers: usize,
    /// Rate of every link, both ways
    #[arg(long, default_value = "100mbit")]
    rate: Rate,
    /// Size of the file in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    size: u64,
    /// What is out of the ordinary; several, or all
    #[arg(long, value_enum, value_delimiter = ',', default_value = "equal")]
    shape: Vec<ShapeArg>,
    /// Time between arrivals with --shape staggered
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    stagger: Duration,
    /// Time that a packet takes from one host to another
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    delay: Duration,
    /// Length of the queue in front of each link
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    queue: Duration,
    /// Packets of one sender that may travel together, as they leave a network card; 1 has them
    /// travel one by one, which costs the machine several times as much
    #[arg(long, value_name = "PACKETS", default_value_t = 10)]
    bundle: u32,
    /// Repetitions
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Whom to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "qshare,libtorrent"
    )]
    system: Vec<System>,
    /// The qshare to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    qshare: Option<PathBuf>,
    /// Keep what the processes say on stderr here, one file each
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Print one JSON object a run instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum System {
    /// The real binary: tracker, node, `get --seed`
    Qshare,
    /// TCP, a v2 torrent, everybody knows everybody from the start
    Libtorrent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShapeArg {
    /// Everybody at once, all links equal
    Equal,
    /// One after the other
    Staggered,
    /// One leecher is killed half way
    KillOne,
    /// Leechers' uplinks are up to ten times apart
    UnequalUplinks,
    /// The seed has a quarter of the others' uplink
    SlowSeed,
    /// All of these
    All,
}

pub(crate) fn run(args: &FlashCrowdArgs) -> anyhow::Result<ExitCode> {
    let scratch = isolation::scratch_dir()?.join("crowd");
    std::fs::create_dir_all(&scratch)?;
    let file = scratch.join("assets").join(FILE_NAME);
    write_noise(&file, args.size << 20)?;
    if let Some(logs) = &args.logs {
        std::fs::create_dir_all(logs).with_context(|| format!("{}", logs.display()))?;
    }
    let qshare = qshare_binary(args)?;
    let mut systems = args.system.clone();
    if systems.contains(&System::Libtorrent) && !qshare_tests::libtorrent::is_there() {
        eprintln!(
            "libtorrent is left out: no python3 here imports it (apt-get install python3-libtorrent)"
        );
        systems.retain(|system| *system != System::Libtorrent);
    }
    if !args.json {
        println!("{}", Outcome::HEADER);
    }
    let mut all_finished = true;
    for shape in shapes(args) {
        let crowd = Crowd {
            shape,
            leechers: args.leechers,
            rate: args.rate,
            file_bytes: args.size << 20,
            delay: args.delay,
            queue: args.queue,
            bundle_packets: args.bundle,
            file: file.clone(),
            scratch: scratch.clone(),
            logs: args.logs.clone(),
        };
        let lab = Lab::builder().hosts(crowd.plans()).build()?;
        for _ in 0..args.runs {
            for system in &systems {
                let outcome = match system {
                    System::Qshare => qshare::measure(&lab, &crowd, &qshare)?,
                    System::Libtorrent => libtorrent::measure(&lab, &crowd)?,
                };
                all_finished &= outcome.finished == outcome.wanted;
                match args.json {
                    true => println!("{}", serde_json::to_string(&outcome)?),
                    false => println!("{}", outcome.line()),
                }
            }
        }
    }
    Ok(match all_finished {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What is fetched.
const FILE_NAME: &str = "crowd.bin";

fn shapes(args: &FlashCrowdArgs) -> Vec<Shape> {
    let staggered = Shape::Staggered(args.stagger);
    let one = |shape| match shape {
        ShapeArg::Equal => vec![Shape::Equal],
        ShapeArg::Staggered => vec![staggered],
        ShapeArg::KillOne => vec![Shape::KillOne],
        ShapeArg::UnequalUplinks => vec![Shape::UnequalUplinks],
        ShapeArg::SlowSeed => vec![Shape::SlowSeed],
        ShapeArg::All => vec![
            Shape::Equal,
            staggered,
            Shape::KillOne,
            Shape::UnequalUplinks,
            Shape::SlowSeed,
        ],
    };
    args.shape.iter().copied().flat_map(one).collect()
}

fn qshare_binary(args: &FlashCrowdArgs) -> anyhow::Result<PathBuf> {
    let path = match &args.qshare {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("qshare"),
    };
    let path = std::fs::canonicalize(&path).with_context(|| {
        format!(
            "{}: cargo build --release -p qshare, or say --qshare FILE",
            path.display()
        )
    })?;
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build; figures are only worth something with --release");
    }
    Ok(path)
}

/// A file that nothing compresses, the same each time.
pub(crate) fn write_noise(path: &std::path::Path, length: u64) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut noise = vec![0; usize::try_from(length)?];
    rand::rngs::SmallRng::seed_from_u64(length).fill_bytes(&mut noise);
    std::fs::write(path, noise).with_context(|| format!("{}", path.display()))
}
