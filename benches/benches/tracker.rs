//! What one tracker carries: lookups per second over many QUIC connections, their latency at half
//! of that rate, answers with 30 holders, and a full announcement. Beside it a bare QUIC echo with
//! the same endpoint, the same connections, and messages of the same size.
//!
//! `cargo bench -p qshare-benches --bench tracker -- --help`. The tracker and the echo each run in
//! a process of their own on one thread; the generator runs in this one, on one thread, too. The
//! budget of requests per session is lifted: it would stop the generator, which is one machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use qshare_benches::measure::{cpu_time, median};
use qshare_content::{AssetName, ContentInfo, Hash};
use qshare_net::{
    DialTarget, Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept,
    dial, framed,
};
use qshare_tests::process::Process;
use qshare_tracker::{Tracker, TrackerConfig};
use qshare_wire::hello::Role as Participant;
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind, Find, Found};
use qshare_wire::{ALPN_PEER, Frame, Message};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

const DIAL_DEADLINE: Duration = Duration::from_secs(20);
/// Deadline of a lookup, after which the run has failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Entries of one batch, the most that the protocol allows.
const BATCH: usize = 2048;
/// Holders of the content that many nodes hold.
const HOLDERS: usize = 30;
/// The name that all of them announce.
const POPULAR: &str = "popular.bin";

#[derive(Debug, Parser)]
struct Args {
    /// Connections that ask
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Lookups in flight on each
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Pairs of measurements, tracker and echo in turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Names that are announced and looked up
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The role of a benchmark that starts itself again.
#[derive(Debug, Clone, Subcommand)]
enum Role {
    /// Runs a tracker until it is killed
    #[command(hide = true)]
    Tracker,
    /// Answers every stream with this many bytes until it is killed
    #[command(hide = true)]
    Echo {
        /// Bytes of an answer
        bytes: usize,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.role {
        Some(Role::Tracker) => return block_on(run_tracker()),
        Some(Role::Echo { bytes }) => return block_on(run_echo(bytes)),
        None => {}
    }
    if !args.bench {
        println!("nothing to test here; `cargo bench` measures");
        return Ok(ExitCode::SUCCESS);
    }
    block_on(compare(&args))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs on this thread alone, as the program does.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn greeting() -> Greeting {
    Greeting {
        role: Participant::Node,
        group: None,
        candidates: Vec::new(),
        features: 0,
        extensions: Vec::new(),
    }
}

fn endpoint() -> anyhow::Result<Endpoint> {
    let config = EndpointConfig {
        listen: loopback(),
        accept_alpn: ALPN_PEER,
        transport: TransportConfig::default(),
    };
    Ok(Endpoint::bind(&Identity::ephemeral()?, &config)?)
}

fn say_ready(listen: SocketAddr, id: &str) {
    println!("{}", json!({ "listen": listen.to_string(), "id": id }));
}

async fn run_tracker() -> anyhow::Result<ExitCode> {
    let mut config = TrackerConfig::new(Identity::ephemeral()?);
    config.listen = loopback();
    config.limits.requests_per_second = u32::MAX;
    config.limits.requests_burst = u32::MAX;
    let tracker = Tracker::start(config)?;
    say_ready(tracker.listen(), &tracker.id().to_string());
    std::future::pending().await
}

/// Reads each stream to the end of one frame and answers with `bytes` bytes.
async fn run_echo(bytes: usize) -> anyhow::Result<ExitCode> {
    let endpoint = endpoint()?;
    say_ready(endpoint.local_addr()?, &endpoint.id().to_string());
    let answer = bytes::Bytes::from(vec![7; bytes]);
    while let Some(incoming) = endpoint.accept().await {
        let (us, answer) = (endpoint.id(), answer.clone());
        tokio::spawn(async move {
            let Ok(session) = accept(us, &greeting(), incoming).await else {
                return;
            };
            while let Ok((mut send, mut recv)) = session.connection.accept_bi().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    if framed::read_frame(&mut recv, 1 << 20).await.is_ok() {
                        let _ = send.write_chunk(answer).await;
                        let _ = send.finish();
                    }
                });
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// A server in a process of its own.
struct Served {
    process: Process,
    target: DialTarget,
    address: SocketAddr,
}

impl Served {
    fn start(role: &[&str]) -> anyhow::Result<Served> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role);
        let process = Process::start(command);
        let ready = process.ready();
        let text = |field: &str| ready[field].as_str().context("the server says no address");
        let id = text("id")?.parse().ok().context("that is no ID")?;
        Ok(Served {
            target: match role[0] {
                "tracker" => DialTarget::Tracker(Some(id)),
                _ => DialTarget::Node(id),
            },
            address: text("listen")?.parse()?,
            process,
        })
    }

    async fn connect(&self) -> anyhow::Result<Asking> {
        let (endpoint, greeting) = (endpoint()?, greeting());
        let session = dial(
            &endpoint,
            &greeting,
            self.target,
            self.address,
            DIAL_DEADLINE,
        );
        Ok(Asking {
            session: session.await?,
            _endpoint: endpoint,
        })
    }

    async fn connect_many(&self, count: usize) -> anyhow::Result<Vec<Asking>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.connect().await?);
        }
        Ok(all)
    }
}

struct Asking {
    session: Session,
    _endpoint: Endpoint,
}

/// Announces names and waits until the tracker has acknowledged all of them.
async fn announce(asking: &mut Asking, names: &[AssetName], info: u8) -> anyhow::Result<()> {
    let mut batches: Vec<Announce> = names
        .chunks(BATCH)
        .map(|names| Announce {
            sequence: 0,
            stage: AnnounceStage::FullMore,
            entries: names
                .iter()
                .enumerate()
                .map(|(at, name)| entry(name, info, at))
                .collect(),
            removed: Vec::new(),
            extensions: Vec::new(),
        })
        .collect();
    batches.push(Announce {
        sequence: 0,
        stage: AnnounceStage::FullEnd,
        entries: Vec::new(),
        removed: Vec::new(),
        extensions: Vec::new(),
    });
    batches[0].stage = AnnounceStage::FullBegin;
    let Session {
        control_send,
        control_recv,
        ..
    } = &mut asking.session;
    let last = batches.len() as u64 - 1;
    let send = async {
        for (sequence, batch) in (0..).zip(&mut batches) {
            batch.sequence = sequence;
            framed::write(control_send, batch).await?;
        }
        anyhow::Ok(())
    };
    let acknowledged = async {
        loop {
            let ack: AnnounceAck = framed::read(control_recv).await?;
            ensure!(
                ack.refused == 0,
                "{} entries refused: {}",
                ack.refused,
                ack.reason
            );
            if ack.sequence == last {
                return anyhow::Ok(());
            }
        }
    };
    let (sent, acknowledged) = tokio::join!(send, acknowledged);
    sent?;
    acknowledged
}

fn entry(name: &AssetName, info: u8, at: usize) -> Entry {
    let mut root = [info; 32];
    root[..8].copy_from_slice(&(at as u64).to_le_bytes());
    root[8..16].copy_from_slice(&(name.as_str().len() as u64).to_le_bytes());
    Entry {
        name: name.clone(),
        kind: EntryKind::File,
        info: ContentInfo {
            length: 1 << 20,
            root: Hash(root),
        },
        complete: true,
        flags: 0,
        metadata: Vec::new(),
    }
}

fn name(number: usize) -> anyhow::Result<AssetName> {
    let text = format!("dataset/{:03}/sample-{number:07}.parquet", number % 500);
    Ok(AssetName::new(&text)?)
}

fn question(text: &str, holders: u8) -> anyhow::Result<Find> {
    Ok(Find {
        query: text.parse()?,
        after: None,
        limit: 1,
        holders,
        extensions: Vec::new(),
    })
}

/// What is asked on each stream.
#[derive(Clone)]
enum Load {
    /// Lookups of names, one after the other.
    Lookups(Arc<Vec<Find>>),
    /// The bytes of a request; the answer has as many bytes as the server was told.
    Echo(bytes::Bytes, usize),
}

impl Load {
    async fn ask(&self, connection: &quinn::Connection, turn: u64) -> anyhow::Result<()> {
        match self {
            Load::Lookups(questions) => {
                let question = &questions[(turn % questions.len() as u64) as usize];
                let (found, ..) = framed::ask::<Find, Found>(connection, question).await?;
                ensure!(found.matches.len() == 1, "{} matches", found.matches.len());
            }
            Load::Echo(request, bytes) => {
                let (mut send, mut recv) = connection.open_bi().await?;
                send.write_chunk(request.clone()).await?;
                let answer = recv.read_to_end(1 << 20).await?;
                ensure!(answer.len() == *bytes, "{} bytes", answer.len());
            }
        }
        Ok(())
    }
}

/// The result of a measurement.
struct Outcome {
    per_second: f64,
    server_cpu: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Outcome {
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies
            .get(at)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Asks on all connections, `depth` at once on each, for a time.
async fn saturate(
    server: &Served,
    askers: &[Asking],
    load: &Load,
    args: &Args,
) -> anyhow::Result<Outcome> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let turn = Arc::new(AtomicU64::new(0));
    let cpu = cpu_time(server.process.id()).context("the server is gone")?;
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for asker in askers {
        for _ in 0..args.depth {
            let (connection, load) = (asker.session.connection.clone(), load.clone());
            let turn = Arc::clone(&turn);
            workers.spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    let turn = turn.fetch_add(1, Ordering::Relaxed);
                    timeout(ANSWER_DEADLINE, load.ask(&connection, turn)).await??;
                    latencies.push(asked.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
    }
    collect(server, workers, begun, cpu).await
}

/// Asks at a fixed rate, over all connections in turn.
async fn pace(
    server: &Served,
    askers: &[Asking],
    load: &Load,
    per_second: f64,
    args: &Args,
) -> anyhow::Result<Outcome> {
    // Ticks of a millisecond, each with its share of the questions.
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let cpu = cpu_time(server.process.id()).context("the server is gone")?;
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * per_second) as u64;
        while asked < due {
            let asker = &askers[(asked % askers.len() as u64) as usize];
            let (connection, load, turn) = (asker.session.connection.clone(), load.clone(), asked);
            workers.spawn(async move {
                let asked = Instant::now();
                timeout(ANSWER_DEADLINE, load.ask(&connection, turn)).await??;
                anyhow::Ok(vec![asked.elapsed()])
            });
            asked += 1;
        }
    }
    collect(server, workers, begun, cpu).await
}

async fn collect(
    server: &Served,
    mut workers: JoinSet<anyhow::Result<Vec<Duration>>>,
    begun: Instant,
    cpu: Duration,
) -> anyhow::Result<Outcome> {
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let spent = cpu_time(server.process.id()).context("the server is gone")? - cpu;
    latencies.sort_unstable();
    Ok(Outcome {
        per_second: latencies.len() as f64 / seconds,
        server_cpu: spent.as_secs_f64() / seconds,
        latencies,
    })
}

fn print_heading() {
    println!(
        "{:34} {:>10} {:>10} {:>9} {:>9} {:>9}",
        "", "per second", "server CPU", "p50 ms", "p99 ms", "p99.9 ms"
    );
}

fn print_line(what: &str, outcome: &Outcome) {
    let at = outcome.latencies.len() * 999 / 1000;
    let last = outcome
        .latencies
        .get(at.min(outcome.latencies.len().saturating_sub(1)));
    println!(
        "{what:34} {:10.0} {:10.2} {:9.2} {:9.2} {:9.2}",
        outcome.per_second,
        outcome.server_cpu,
        outcome.percentile(50),
        outcome.percentile(99),
        last.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3),
    );
}

async fn compare(args: &Args) -> anyhow::Result<()> {
    ensure!(args.names > 0 && args.connections > 0 && args.depth > 0 && args.runs > 0);
    let tracker = Served::start(&["tracker"])?;
    let names: Vec<AssetName> = (0..args.names).map(name).collect::<Result<_, _>>()?;
    let mut owner = tracker.connect().await?;
    let begun = Instant::now();
    announce(&mut owner, &names, 1).await?;
    println!(
        "full announcement of {} names: {:.2} s",
        args.names,
        begun.elapsed().as_secs_f64()
    );
    let popular = [AssetName::new(POPULAR)?];
    let mut holders = tracker.connect_many(HOLDERS).await?;
    for holder in &mut holders {
        announce(holder, &popular, 2).await?;
    }

    let askers = tracker.connect_many(args.connections).await?;
    let questions = names.iter().map(|name| question(name.as_str(), 1));
    let one: Vec<Find> = questions.collect::<Result<_, _>>()?;
    let (request, answer) = sizes(&askers[0], &one[0]).await?;
    println!(
        "a lookup takes {} bytes, its answer {} bytes; {} connections, {} in flight on each",
        request.len(),
        answer,
        args.connections,
        args.depth
    );
    let lookups = Load::Lookups(Arc::new(one));
    let echo = Served::start(&["echo", &answer.to_string()])?;
    let echoing = echo.connect_many(args.connections).await?;
    let bare = Load::Echo(request, answer);

    print_heading();
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for run in 1..=args.runs {
        let looked = saturate(&tracker, &askers, &lookups, args).await?;
        print_line(&format!("one holder, run {run}"), &looked);
        let echoed = saturate(&echo, &echoing, &bare, args).await?;
        print_line(&format!("bare QUIC echo, run {run}"), &echoed);
        ratios.push(looked.per_second / echoed.per_second);
        rates.push(looked.per_second);
    }
    let rate = median(rates.into_iter());
    let half = pace(&tracker, &askers, &lookups, rate / 2.0, args).await?;
    print_line("one holder, half of that rate", &half);
    let many = Load::Lookups(Arc::new(vec![question(POPULAR, 16)?]));
    print_line(
        "30 holders, 16 in an answer",
        &saturate(&tracker, &askers, &many, args).await?,
    );
    println!(
        "lookups: {rate:.0} a second, {:.2} of the bare echo (medians)",
        median(ratios.into_iter())
    );
    Ok(())
}

/// Returns the bytes of a request, and how many bytes its answer has.
async fn sizes(asker: &Asking, question: &Find) -> anyhow::Result<(bytes::Bytes, usize)> {
    let (found, ..) = framed::ask::<Find, Found>(&asker.session.connection, question).await?;
    ensure!(found.matches.len() == 1, "{} is not found", Find::NAME);
    let (request, answer) = (Frame::encode(question)?, Frame::encode(&found)?);
    Ok((request.into(), answer.len()))
}
