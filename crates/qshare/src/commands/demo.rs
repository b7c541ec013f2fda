//! `qshare demo`: a swarm on this machine, in separate processes of this program.
//!
//! A tracker; a node that shares all files; two `get --seed`s that were interrupted and hold a part
//! each; a fourth node that downloads from all of them while the only complete holder is killed.
//! All run on loopback, on ports that the system picks, in a temporary directory that is removed.

mod cast;
mod stage;

use std::path::Path;
use std::time::{Duration, Instant};

use qshare_node::content::Bitmap;
use qshare_node::{Target, hash_file, unfinished_chunks};

use self::cast::{Actor, Cast};
use self::stage::{GENERATED, Stage};
use super::run_on_network;
use crate::args::DemoArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::neutral::shown;
use crate::output;

/// A partial holder is interrupted once it has this share of the file. With less, two of them would
/// hardly ever have all chunks together, because each fetches in an order of its own.
const INTERRUPT_AT: f64 = 0.96;
/// Attempts to interrupt a download between that point and its end.
const ATTEMPTS: usize = 12;
/// The complete holder is killed once the last node has this share of the file.
const KILL_AT: f64 = 0.25;
/// Deadline of each step.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn run(args: &DemoArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|stop| async move {
        tokio::select! {
            result = play(args, console) => result,
            () = stop.cancelled() => Err(Failure::new(Exit::Interrupted, "the demo was interrupted")),
        }
    })
}

async fn play(args: &DemoArgs, console: &Console) -> Result<(), Failure> {
    let stage = Stage::set(args.size_mib << 20)?;
    console.note(&format!(
        "1. files      {} from {}, and {GENERATED} with {} of random bytes",
        output::count(stage.assets as u64, "file"),
        stage.assets_from,
        output::bytes(stage.size_bytes),
    ));
    let cast = Cast::new(&stage)?;
    let tracker = cast.tracker().await?;
    let mut first = cast.node(&tracker).await?;
    cast.wait_until_shared(&tracker).await?;
    console.note(&format!(
        "2. tracker    at {}; the first node shares all files",
        tracker.address
    ));

    let (second, third) = two_partial_holders(&cast, &tracker, &stage, console).await?;

    let begun = Instant::now();
    let second = cast.resume(second, &tracker)?;
    let third = cast.resume(third, &tracker)?;
    let mut fourth = cast.getter("fourth", false, &tracker)?;
    let size_bytes = stage.size_bytes;
    let there = fourth
        .wait_for_bytes(&stage, (size_bytes as f64 * KILL_AT) as u64, DEADLINE)
        .await?;
    let killed_at = there as f64 / size_bytes as f64;
    first.kill().await;
    console.note(&format!(
        "4. fourth     downloads all files; the first node is killed at {:.0} %",
        killed_at * 100.0
    ));
    let reports = fourth.reports(DEADLINE).await?;
    let elapsed = begun.elapsed();

    let checked = check(&stage, &stage.dir("fourth"))?;
    console.note(&format!(
        "5. verified   {} by hash: identical to the originals",
        output::count(checked as u64, "file")
    ));
    tell(
        console,
        &reports,
        &[
            ("first (killed)", &first),
            ("second", &second),
            ("third", &third),
        ],
        elapsed,
    )?;
    for seed in [second, third] {
        seed.terminate(DEADLINE).await?;
    }
    tracker.terminate(DEADLINE).await
}

/// Interrupts two `get --seed`s so that each lacks some chunks and both together lack none.
async fn two_partial_holders(
    cast: &Cast<'_>,
    tracker: &Actor,
    stage: &Stage,
    console: &Console,
) -> Result<(Actor, Actor), Failure> {
    let second = interrupted(cast, "second", tracker, stage).await?;
    for _ in 0..ATTEMPTS {
        let third = interrupted(cast, "third", tracker, stage).await?;
        let missing = |chunk: &_| !second.1.contains(*chunk) && !third.1.contains(*chunk);
        let nowhere = second.1.missing().filter(missing).count();
        if nowhere == 0 {
            let percent = |have: &Bitmap| 100.0 * f64::from(have.count()) / f64::from(have.len());
            console.note(&format!(
                "3. second and third: interrupted downloads that hold {:.1} % and {:.1} % of {GENERATED};\n\
                 \x20             each of its {} chunks is on at least two nodes",
                percent(&second.1),
                percent(&third.1),
                second.1.len(),
            ));
            return Ok((second.0, third.0));
        }
        stage.clear("third")?;
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "cannot set up the demo: {ATTEMPTS} interrupted downloads lack the same chunks\nRun the demo \
             again"
        ),
    ))
}

/// Returns a `get --seed` that was interrupted shortly before its end, and its chunks.
async fn interrupted(
    cast: &Cast<'_>,
    name: &'static str,
    tracker: &Actor,
    stage: &Stage,
) -> Result<(Actor, Bitmap), Failure> {
    let enough = (stage.size_bytes as f64 * INTERRUPT_AT) as u64;
    for _ in 0..ATTEMPTS {
        let mut seed = cast.getter(name, true, tracker)?;
        seed.wait_for_bytes(stage, enough, DEADLINE).await?;
        seed.interrupt(DEADLINE).await?;
        let info = stage.generated;
        let target = Target::beneath(stage.dir(name), stage.generated_name()?);
        let have = unfinished_chunks(&target, info);
        if let Some(have) = have.filter(|have| !have.is_full() && !have.is_empty()) {
            return Ok((seed, have));
        }
        // The download completed before the signal arrived.
        stage.clear(name)?;
    }
    Err(Failure::new(
        Exit::Failed,
        format!("cannot interrupt the {name} download before it completes\nTry a larger --size"),
    ))
}

/// Compares the hashes of downloaded and shared files, and returns their number.
fn check(stage: &Stage, arrived: &Path) -> Result<usize, Failure> {
    let names = stage.names()?;
    for name in &names {
        let options = Default::default();
        let shared = hash_file(&stage.dir("first/assets").join(name), &options)?;
        let copy = hash_file(&arrived.join(name), &options)?;
        if shared.info != copy.info {
            let message = format!("the copy of {} differs from the original", shown(name));
            return Err(Failure::new(Exit::Unverified, message));
        }
    }
    Ok(names.len())
}

/// Prints how much each node sent, and the rate of the download.
fn tell(
    console: &Console,
    reports: &[cast::FileReport],
    holders: &[(&str, &Actor)],
    elapsed: Duration,
) -> Result<(), Failure> {
    let total: u64 = reports.iter().map(|report| report.size).sum();
    console.note("");
    for (label, actor) in holders {
        let sources = reports.iter().flat_map(|report| &report.sources);
        let sent: u64 = sources
            .filter(|source| source.address == actor.address)
            .map(|source| source.bytes)
            .sum();
        let percent = 100.0 * sent as f64 / total.max(1) as f64;
        console.result(&format!(
            "{label:<16} sent {:>9}  {percent:>5.1} %",
            output::bytes(sent)
        ))?;
    }
    let wasted: u64 = reports.iter().map(|report| report.wasted_bytes).sum();
    let rate = (total as f64 / elapsed.as_secs_f64()) as u64;
    console.result(&format!(
        "{:<16} got  {:>9}  in {:.1} s ({}/s), {} wasted, every chunk verified",
        "fourth",
        output::bytes(total),
        elapsed.as_secs_f64(),
        output::bytes(rate),
        output::bytes(wasted),
    ))
}
