//! The rows of the report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use qshare_benches::measure::{median, resident_bytes};
use qshare_content::AssetName;
use qshare_net::framed;
use qshare_tests::process::Process;
use qshare_tests::redis::Redis;
use qshare_wire::tracker::{Find, Found};
use tokio::time::sleep;

use crate::Args;
use crate::aquatic;
use crate::asking::{
    Askers, Load, Outcome, Paced, Served, Times, announce, name, pace, question, saturate, sizes,
};
use crate::limit::CpuLimit;

/// Holders of the content that many nodes hold.
const HOLDERS: usize = 30;
/// The name that all of them announce.
const POPULAR: &str = "popular.bin";
/// Names that are looked up over a shared registry: few enough that each is asked for many times a
/// second, as popular ones are.
const WARM_NAMES: usize = 200;
/// The part of a core that each of two trackers over one Redis gets.
const PART_OF_CORE: f64 = 0.25;
/// Processes that hold the idle sessions.
const IDLE_PROCESSES: usize = 4;
/// Time until idle sessions are only kept alive.
const SETTLE: Duration = Duration::from_secs(35);
/// Longest wait for a name to be found at another tracker.
const SPREAD_DEADLINE: Duration = Duration::from_secs(60);

fn print_heading() {
    println!(
        "{:36} {:>10} {:>10} {:>13} {:>9} {:>9} {:>9}",
        "", "per second", "server CPU", "generator CPU", "p50 ms", "p99 ms", "p99.9 ms"
    );
}

fn print_line(what: &str, outcome: &Outcome) {
    print!(
        "{what:36} {:10.0} {:10.2} {:13.2}",
        outcome.per_second, outcome.server_cpu, outcome.generator_cpu
    );
    print_times(&outcome.latencies);
}

fn print_times(times: &Times) {
    let [p50, p99, last] = [500, 990, 999].map(|permille| times.permille(permille));
    println!(" {p50:9.2} {p99:9.2} {last:9.2}");
}

/// Prints what was measured at a fixed rate, and the parts of its latencies.
fn print_paced(what: &str, paced: &Paced) {
    print_line(what, &paced.outcome);
    let parts = [
        ("  until the generator asks", &paced.late),
        ("  until there is a stream", &paced.opening),
        ("  until the answer is there", &paced.answering),
    ];
    for (part, times) in parts {
        print!("{part:36} {:35}", "");
        print_times(times);
    }
}

fn names(count: usize) -> anyhow::Result<Vec<AssetName>> {
    (0..count).map(name).collect()
}

fn questions(names: &[AssetName]) -> anyhow::Result<Vec<Find>> {
    names
        .iter()
        .map(|name| question(name.as_str(), 1))
        .collect()
}

fn seconds(args: &Args) -> Duration {
    Duration::from_secs(args.seconds)
}

/// Lookups in memory beside a bare echo, at half of that rate, and with many holders.
pub(crate) async fn lookups(args: &Args) -> anyhow::Result<()> {
    let tracker = Served::start(&["tracker"])?;
    let names = names(args.names)?;
    let mut owner = tracker.connect().await?;
    announce(&mut owner, &names, 1).await?;
    let popular = [AssetName::new(POPULAR)?];
    let mut holders = tracker.connect_many(HOLDERS).await?;
    for holder in &mut holders {
        announce(holder, &popular, 2).await?;
    }
    let sessions = tracker.connect_many(args.connections).await?;
    let askers = || Askers {
        server: &tracker,
        sessions: &sessions,
    };
    let one = questions(&names)?;
    let (request, answer) = sizes(&sessions[0], &one[0]).await?;
    println!(
        "a lookup takes {} bytes, its answer {answer} bytes; {} connections, {} in flight on each",
        request.len(),
        args.connections,
        args.depth
    );
    let lookups = Load::Lookups(Arc::new(one));
    let echo = Served::start(&["echo", &answer.to_string()])?;
    let echo_sessions = echo.connect_many(args.connections).await?;
    let echoing = || Askers {
        server: &echo,
        sessions: &echo_sessions,
    };
    let bare = Load::Echo(request, answer);
    print_heading();
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for run in 1..=args.runs {
        let looked = saturate(&[askers()], &lookups, args.depth, seconds(args)).await?;
        print_line(&format!("one holder, run {run}"), &looked);
        let echoed = saturate(&[echoing()], &bare, args.depth, seconds(args)).await?;
        print_line(&format!("bare QUIC echo, run {run}"), &echoed);
        aquatic::announces(args.names, seconds(args)).await?;
        ratios.push(looked.per_second / echoed.per_second);
        rates.push(looked.per_second);
    }
    let rate = median(rates.into_iter());
    for run in 1..=args.runs {
        let half = pace(askers(), &lookups, args.depth, rate / 2.0, seconds(args)).await?;
        print_paced(&format!("one holder, half of that, run {run}"), &half);
        let half = pace(echoing(), &bare, args.depth, rate / 2.0, seconds(args)).await?;
        print_paced(&format!("bare QUIC echo, same rate, run {run}"), &half);
    }
    let many = Load::Lookups(Arc::new(vec![question(POPULAR, 16)?]));
    let many = saturate(&[askers()], &many, args.depth, seconds(args)).await?;
    print_line("30 holders, 16 in an answer", &many);
    println!(
        "lookups: {rate:.0} a second, {:.2} of the bare echo (medians)",
        median(ratios.into_iter())
    );
    Ok(())
}

/// Lookups over Redis beside lookups in memory, of names that a node of another tracker has.
pub(crate) async fn shared(args: &Args) -> anyhow::Result<()> {
    let redis = Redis::start().context("redis-server is not installed")?;
    let url = redis.url();
    let memory = Served::start(&["tracker"])?;
    let here = Served::start(&["tracker", "--registry", &url])?;
    let there = Served::start(&["tracker", "--registry", &url])?;
    let names = names(WARM_NAMES.min(args.names))?;
    let mut owners = [memory.connect().await?, there.connect().await?];
    for owner in &mut owners {
        announce(owner, &names, 1).await?;
    }
    let in_memory = memory.connect_many(args.connections).await?;
    let over_redis = here.connect_many(args.connections).await?;
    until_found(&over_redis[0].session.connection, &names).await?;
    let load = Load::Lookups(Arc::new(questions(&names)?));
    print_heading();
    let mut ratios = Vec::new();
    for run in 1..=args.runs {
        let askers = [Askers {
            server: &memory,
            sessions: &in_memory,
        }];
        let alone = saturate(&askers, &load, args.depth, seconds(args)).await?;
        print_line(&format!("in memory, run {run}"), &alone);
        let askers = [Askers {
            server: &here,
            sessions: &over_redis,
        }];
        let shared = saturate(&askers, &load, args.depth, seconds(args)).await?;
        print_line(&format!("over Redis, cached, run {run}"), &shared);
        ratios.push(shared.per_second / alone.per_second);
    }
    println!(
        "over Redis: {:.2} of memory (median)",
        median(ratios.into_iter())
    );
    Ok(())
}

/// One tracker and two over one Redis, each with the same part of a core.
pub(crate) async fn pair(args: &Args) -> anyhow::Result<()> {
    let redis = Redis::start().context("redis-server is not installed")?;
    let url = redis.url();
    let trackers = [
        Served::start(&["tracker", "--registry", &url])?,
        Served::start(&["tracker", "--registry", &url])?,
    ];
    let names = names(WARM_NAMES.min(args.names))?;
    let half = names.len() / 2;
    // Half of the names are with each.
    let mut owners = [trackers[0].connect().await?, trackers[1].connect().await?];
    announce(&mut owners[0], &names[..half], 1).await?;
    announce(&mut owners[1], &names[half..], 1).await?;
    let sessions = [
        trackers[0].connect_many(args.connections).await?,
        trackers[1].connect_many(args.connections).await?,
    ];
    for sessions in &sessions {
        until_found(&sessions[0].session.connection, &names).await?;
    }
    let limits = [
        CpuLimit::new("a", PART_OF_CORE)?,
        CpuLimit::new("b", PART_OF_CORE)?,
    ];
    for (limit, tracker) in limits.iter().zip(&trackers) {
        limit.add(tracker.process.id())?;
    }
    let load = Load::Lookups(Arc::new(questions(&names)?));
    let askers = |at: usize| Askers {
        server: &trackers[at],
        sessions: &sessions[at],
    };
    print_heading();
    let mut ratios = Vec::new();
    for run in 1..=args.runs {
        let one = saturate(&[askers(0)], &load, args.depth, seconds(args)).await?;
        print_line(&format!("one tracker, run {run}"), &one);
        let two = saturate(&[askers(0), askers(1)], &load, args.depth, seconds(args)).await?;
        print_line(&format!("two trackers, run {run}"), &two);
        ratios.push(two.per_second / one.per_second);
    }
    println!(
        "two trackers with {PART_OF_CORE} of a core each: {:.2} of one (median)",
        median(ratios.into_iter())
    );
    drop(trackers);
    drop(limits);
    Ok(())
}

/// Memory and processor time of sessions that do nothing.
pub(crate) async fn idle(args: &Args) -> anyhow::Result<()> {
    let tracker = Served::start(&["tracker"])?;
    let id = tracker_id(&tracker)?;
    let before = resident_bytes(tracker.process.id()).context("the tracker is gone")?;
    let each = args.sessions / IDLE_PROCESSES;
    let begun = Instant::now();
    let mut nodes = Vec::new();
    for _ in 0..IDLE_PROCESSES {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let address = tracker.address.to_string();
        command.args(["nodes", &address, &id, &each.to_string()]);
        nodes.push(Process::start(command));
    }
    for node in &nodes {
        ensure!(node.ready()["sessions"] == each, "not all have connected");
    }
    println!(
        "{} sessions opened in {:.1} s",
        each * IDLE_PROCESSES,
        begun.elapsed().as_secs_f64()
    );
    sleep(SETTLE).await;
    let after = resident_bytes(tracker.process.id()).context("the tracker is gone")?;
    let (cpu, from) = (tracker.cpu()?, Instant::now());
    sleep(Duration::from_secs(60)).await;
    let spent = (tracker.cpu()? - cpu).as_secs_f64() / from.elapsed().as_secs_f64();
    println!(
        "idle session: {:.1} kB of the tracker's memory; all of them: {:.1} % of a core",
        (after - before) as f64 / (each * IDLE_PROCESSES) as f64 / 1e3,
        spent * 100.0
    );
    Ok(())
}

fn tracker_id(tracker: &Served) -> anyhow::Result<String> {
    let ready = tracker.process.ready();
    Ok(ready["id"].as_str().context("it says no id")?.to_owned())
}

/// A full announcement of many names, in memory and over Redis.
pub(crate) async fn announcement(args: &Args) -> anyhow::Result<()> {
    let names = names(args.names)?;
    let tracker = Served::start(&["tracker"])?;
    let mut owner = tracker.connect().await?;
    let begun = Instant::now();
    announce(&mut owner, &names, 1).await?;
    println!(
        "full announcement of {} names, memory: {:.2} s",
        names.len(),
        begun.elapsed().as_secs_f64()
    );
    let redis = Redis::start().context("redis-server is not installed")?;
    let url = redis.url();
    let here = Served::start(&["tracker", "--registry", &url])?;
    let there = Served::start(&["tracker", "--registry", &url])?;
    let mut owner = here.connect().await?;
    let asking = there.connect().await?;
    let begun = Instant::now();
    announce(&mut owner, &names, 1).await?;
    let acknowledged = begun.elapsed();
    let some: Vec<AssetName> = names
        .iter()
        .step_by(997)
        .chain(names.last())
        .cloned()
        .collect();
    until_found(&asking.session.connection, &some).await?;
    println!(
        "the same over Redis: acknowledged after {:.2} s, found at another tracker after {:.2} s",
        acknowledged.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until all names are found.
async fn until_found(connection: &quinn::Connection, names: &[AssetName]) -> anyhow::Result<()> {
    let deadline = Instant::now() + SPREAD_DEADLINE;
    // Those that come last come last here, too.
    for name in names.iter().rev() {
        let question = question(name.as_str(), 1)?;
        loop {
            let (found, ..) = framed::ask::<Find, Found>(connection, &question).await?;
            if !found.matches.is_empty() {
                break;
            }
            ensure!(Instant::now() < deadline, "{name} is not found");
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
