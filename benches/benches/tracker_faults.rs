//! Faults while nodes look files up: two trackers over one Redis and 200 nodes, each with a file of
//! its own. Every few seconds a tracker is killed and started again, or paused; then the same is
//! done to Redis. A lookup must find every file that a live node has, within a second, and must not
//! find what was withdrawn.
//!
//! `cargo bench -p qshare-benches --bench tracker_faults -- --help`. The trackers run in processes
//! of their own, all nodes in this one. Exits with code 1 if an answer was wrong or missing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use qshare_benches::from_cargo::FromCargo;
use qshare_content::NodeId;
use qshare_net::{Identity, IdentityRole};
use qshare_tests::fleet::{Audit, Fleet, Load, Outcome, find};
use qshare_tests::process::{Process, Signal};
use qshare_tests::redis::Redis;
use qshare_tracker::{SharedRegistryConfig, Tracker, TrackerConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Time for all files to be found again: a lease.
const HEALED_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a tracker that stops to say goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);
/// Nodes have a session with a sibling within this time after a goodbye.
const MOVED_DEADLINE: Duration = Duration::from_secs(1);
/// Files are looked for this long after a tracker alone was started again.
const ALONE_LOAD: Duration = Duration::from_secs(5);
/// Files that are withdrawn before the first fault.
const WITHDRAWN: usize = 10;

#[derive(Debug, Parser)]
struct Args {
    /// Nodes
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// Seconds of each series of faults
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds from one fault to the next; the first half of it is the fault
    #[arg(long, default_value_t = 6)]
    interval: u64,
    /// Lookups per second
    #[arg(long, default_value_t = 100)]
    per_second: u32,
    /// Seed of the random choices; random by default
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    cargo: FromCargo,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Clone, Subcommand)]
enum Role {
    /// Runs a tracker until it is killed
    #[command(hide = true)]
    Tracker {
        /// Directory of its identity
        certs: PathBuf,
        /// Its address
        listen: SocketAddr,
        /// The shared registry; none for one in memory
        #[arg(long)]
        registry: Option<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(Role::Tracker {
        certs,
        listen,
        registry,
    }) = &args.role
    {
        return runtime.block_on(run_tracker(certs, *listen, registry.as_deref()));
    }
    if !args.cargo.measures() {
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(report(&args))
}

async fn run_tracker(
    certs: &Path,
    listen: SocketAddr,
    registry: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let identity = Identity::load_or_create(certs, IdentityRole::Tracker)?;
    let mut config = TrackerConfig::new(identity);
    config.listen = listen;
    if let Some(url) = registry {
        config.shared = Some(SharedRegistryConfig {
            address: url.parse()?,
            password: None,
            certificate_authority: None,
            advertise: Some(listen),
        });
    }
    let tracker = Tracker::start(config)?;
    println!("{}", json!({ "id": tracker.id().to_string() }));
    signal(SignalKind::terminate())?.recv().await;
    tracker.shutdown(GOODBYE_DEADLINE).await;
    Ok(ExitCode::SUCCESS)
}

/// A tracker that can be started again with its identity, at its address.
struct Restartable {
    certs: PathBuf,
    listen: SocketAddr,
    registry: Option<String>,
    process: Process,
    id: NodeId,
}

impl Restartable {
    fn start(certs: PathBuf, registry: Option<String>) -> anyhow::Result<Restartable> {
        std::fs::create_dir_all(&certs)?;
        let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = spawn(&certs, listen, registry.as_deref())?;
        let ready = process.ready();
        let id = ready["id"].as_str().context("the tracker says no id")?;
        Ok(Restartable {
            id: id.parse().ok().context("that is no id")?,
            certs,
            listen,
            registry,
            process,
        })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.certs, self.listen, self.registry.as_deref())?;
        self.process.ready();
        Ok(())
    }
}

fn spawn(certs: &Path, listen: SocketAddr, registry: Option<&str>) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tracker").arg(certs).arg(listen.to_string());
    if let Some(url) = registry {
        command.args(["--registry", url]);
    }
    Ok(Process::start(command))
}

#[derive(Debug, Clone, Copy)]
enum RedisFault {
    Killed,
    Paused,
    Full,
    ReadOnly,
}

struct World {
    fleet: Fleet,
    gone: Vec<usize>,
    rng: SmallRng,
    per_second: u32,
    interval: Duration,
    time: Duration,
    is_right: bool,
}

async fn report(args: &Args) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("--seed {seed}");
    let dir = std::env::temp_dir().join(format!("qshare-faults-{}", std::process::id()));
    let mut redis = Redis::start().context("redis-server is not installed")?;
    let mut trackers = [
        Restartable::start(dir.join("a"), Some(redis.url()))?,
        Restartable::start(dir.join("b"), Some(redis.url()))?,
    ];
    let places = [trackers[0].listen, trackers[1].listen];
    let begun = Instant::now();
    let fleet = Fleet::start(args.nodes, |number| places[number % 2]).await;
    let mut world = World {
        fleet,
        gone: Vec::new(),
        rng: SmallRng::seed_from_u64(seed),
        per_second: args.per_second,
        interval: Duration::from_secs(args.interval),
        time: Duration::from_secs(args.seconds),
        is_right: true,
    };
    world.until_found().await;
    println!(
        "{} nodes started and found after {:.1} s",
        args.nodes,
        begun.elapsed().as_secs_f64()
    );
    for node in 0..WITHDRAWN.min(args.nodes / 4) {
        world.fleet.members()[node].withdraw();
        world.gone.push(node);
    }
    sleep(Duration::from_secs(2)).await;
    heading();
    let audit = world.look_up(Duration::from_secs(5), true).await;
    world.print("no fault", &audit);

    trackers_fail(&mut world, &mut trackers).await?;
    redis_fails(&mut world, &mut redis).await?;
    goodbye_moves_nodes(&mut world, &mut trackers).await?;
    idle_nodes_move(&mut world, &mut trackers).await;
    drop(world.fleet);
    world.is_right &= alone(args, &dir, seed).await?;
    let _ = std::fs::remove_dir_all(&dir);
    Ok(match world.is_right {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// A random tracker is killed or paused, again and again.
async fn trackers_fail(world: &mut World, trackers: &mut [Restartable; 2]) -> anyhow::Result<()> {
    let (mut killed, mut paused) = (Audit::default(), Audit::default());
    let end = Instant::now() + world.time * 2;
    while Instant::now() < end {
        let tracker = &mut trackers[world.rng.random_range(0..2)];
        if world.rng.random() {
            tracker.process.kill();
            killed.merge(world.look_up(world.interval / 2, true).await);
            tracker.restart()?;
            killed.merge(world.look_up(world.interval / 2, true).await);
        } else {
            tracker.process.signal(Signal::STOP);
            paused.merge(world.look_up(world.interval / 2, true).await);
            tracker.process.signal(Signal::CONT);
            paused.merge(world.look_up(world.interval / 2, true).await);
        }
    }
    world.print("a tracker killed, started again", &killed);
    world.print("a tracker paused, going on", &paused);
    Ok(())
}

async fn redis_fails(world: &mut World, redis: &mut Redis) -> anyhow::Result<()> {
    let faults = [
        RedisFault::Killed,
        RedisFault::Paused,
        RedisFault::Full,
        RedisFault::ReadOnly,
    ];
    for fault in faults {
        let mut audit = Audit::default();
        let mut healed = Duration::ZERO;
        let end = Instant::now() + world.time / 4;
        while Instant::now() < end {
            match fault {
                RedisFault::Killed => redis.kill(),
                RedisFault::Paused => redis.pause(),
                RedisFault::Full => _ = redis.command("CONFIG SET maxmemory 1"),
                RedisFault::ReadOnly => _ = redis.command("REPLICAOF 127.0.0.1 1"),
            }
            audit.merge(world.look_up(world.interval / 2, false).await);
            match fault {
                RedisFault::Killed => redis.restart(),
                RedisFault::Paused => redis.resume(),
                RedisFault::Full => _ = redis.command("CONFIG SET maxmemory 0"),
                RedisFault::ReadOnly => _ = redis.command("REPLICAOF NO ONE"),
            }
            let well = Instant::now();
            world.until_found().await;
            healed = healed.max(well.elapsed());
        }
        world.print(&format!("Redis: {fault:?}"), &audit);
        println!(
            "    everything found again after {:.1} s at most",
            healed.as_secs_f64()
        );
        world.is_right &= healed < HEALED_DEADLINE;
    }
    Ok(())
}

/// A tracker stops: its nodes go to the other one.
async fn goodbye_moves_nodes(
    world: &mut World,
    trackers: &mut [Restartable; 2],
) -> anyhow::Result<()> {
    for stopping in 0..2 {
        let there = world.fleet.count_at(trackers[stopping].id);
        let sibling = trackers[1 - stopping].id;
        trackers[stopping].process.signal(Signal::TERM);
        let begun = Instant::now();
        let (mut half, mut all) = (None, None);
        while all.is_none() && begun.elapsed() < HEALED_DEADLINE {
            sleep(Duration::from_millis(5)).await;
            let left = world.fleet.members().len() - world.fleet.count_at(sibling);
            if left <= there / 2 {
                half.get_or_insert(begun.elapsed());
            }
            all = (left == 0).then(|| begun.elapsed());
        }
        let seconds = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
        println!(
            "{there} nodes of a tracker that says goodbye are at the other one after {:.2} s, half \
             of them after {:.2} s",
            seconds(all),
            seconds(half)
        );
        world.is_right &= all.is_some_and(|time| time < MOVED_DEADLINE);
        trackers[stopping].restart()?;
        world.until_found().await;
        // Siblings prove themselves to each other anew.
        sleep(Duration::from_secs(6)).await;
    }
    Ok(())
}

/// Nodes that look nothing up notice that their tracker is dead.
async fn idle_nodes_move(world: &mut World, trackers: &mut [Restartable; 2]) {
    let dead = match world.fleet.count_at(trackers[0].id) > 0 {
        true => 0,
        false => 1,
    };
    let id = trackers[dead].id;
    let there = world.fleet.count_at(id);
    trackers[dead].process.kill();
    let begun = Instant::now();
    let mut first = None;
    while world.fleet.count_at(id) > 0 && begun.elapsed() < Duration::from_secs(60) {
        if first.is_none() && world.fleet.count_at(id) < there {
            first = Some(begun.elapsed());
        }
        sleep(Duration::from_millis(50)).await;
    }
    let last = begun.elapsed();
    world.is_right &= last < Duration::from_secs(30);
    println!(
        "{there} idle nodes of a killed tracker left it after {:.1} s to {:.1} s",
        first.unwrap_or(last).as_secs_f64(),
        last.as_secs_f64()
    );
}

/// A single tracker, without Redis, is killed under load and started again at once. Returns whether
/// no answer was wrong and all files were found again.
async fn alone(args: &Args, dir: &Path, seed: u64) -> anyhow::Result<bool> {
    let mut tracker = Restartable::start(dir.join("alone"), None)?;
    let address = tracker.listen;
    let fleet = Fleet::start(args.nodes, |_| address).await;
    let world = World {
        fleet,
        gone: Vec::new(),
        rng: SmallRng::seed_from_u64(seed),
        per_second: args.per_second,
        interval: Duration::ZERO,
        time: Duration::ZERO,
        is_right: true,
    };
    world.until_found().await;
    tracker.process.kill();
    tracker.restart()?;
    let begun = Instant::now();
    let load = Load {
        per_second: args.per_second,
        gone: Vec::new(),
        asks_for_gone: true,
        seed,
    };
    let looking = world.fleet.look_up(&load, begun + ALONE_LOAD);
    let healing = async {
        let found = timeout(HEALED_DEADLINE, world.until_found()).await;
        found.ok().map(|()| begun.elapsed())
    };
    let (audit, healed) = tokio::join!(looking, healing);
    println!(
        "a tracker in memory, killed under load and started again: all files of {} nodes found \
         after {:.1} s; {} lookups meanwhile, {} without their file, {} later than a second",
        args.nodes,
        healed.map_or(f64::NAN, |time| time.as_secs_f64()),
        audit.latencies.len() + audit.missed.len() + audit.failed.len(),
        audit.missed.len() + audit.failed.len(),
        audit.late(),
    );
    let wrong = audit.missed.len() + audit.failed.len() + audit.wrong.len();
    Ok(wrong == 0 && healed.is_some())
}

fn heading() {
    println!(
        "{:34} {:>7} {:>7} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8} {:>6}",
        "", "found", "absent", "missed", "wrong", "failed", "p50 ms", "p99 ms", "max ms", "> 1 s"
    );
}

impl World {
    async fn look_up(&mut self, time: Duration, asks_for_gone: bool) -> Audit {
        let load = Load {
            per_second: self.per_second,
            gone: self.gone.clone(),
            asks_for_gone,
            seed: self.rng.random(),
        };
        self.fleet.look_up(&load, Instant::now() + time).await
    }

    fn print(&mut self, what: &str, audit: &Audit) {
        let ms = |percent| audit.percentile(percent).as_secs_f64() * 1e3;
        println!(
            "{what:34} {:7} {:7} {:6} {:6} {:6} {:8.1} {:8.1} {:8.1} {:6}",
            audit.latencies.len(),
            audit.rightly_missing,
            audit.missed.len(),
            audit.wrong.len(),
            audit.failed.len(),
            ms(50),
            ms(99),
            ms(100),
            audit.late()
        );
        let bad = audit.missed.iter().chain(&audit.wrong).chain(&audit.failed);
        for line in bad.clone().take(5) {
            println!("    {line}");
        }
        self.is_right &= bad.count() == 0;
    }

    /// Waits until a node of each tracker finds every file.
    async fn until_found(&self) {
        let members = self.fleet.members();
        for asker in &members[..2] {
            for (number, member) in members.iter().enumerate() {
                if self.gone.contains(&number) {
                    continue;
                }
                while find(&asker.node, &member.name, member.content).await != Outcome::Found {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}
