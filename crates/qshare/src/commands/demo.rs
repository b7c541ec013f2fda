//! `qshare demo`: a swarm of separate processes of this very binary, on this machine.
//!
//! A tracker and a node that shares everything; two `get --seed`s that were interrupted and so
//! hold only a part; a fourth node that downloads everything from all of them, while the only one
//! that was complete is killed. All on loopback, on ports of the system's choice, in a temporary
//! directory that is gone afterwards.

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
use crate::output;

/// A partial holder is interrupted once it has this much. Less, and two of them together would
/// hardly ever have everything, since each fetches in an order of its own.
const INTERRUPT_AT: f64 = 0.96;
/// Attempts to interrupt a download between that and its end.
const ATTEMPTS: usize = 12;
/// The complete holder is killed once the last node has this much.
const KILL_AT: f64 = 0.25;
/// No step takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn run(args: &DemoArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|stop| async move {
        tokio::select! {
            result = play(args, console) => result,
            () = stop.cancelled() => Err(Failure::new(Exit::Interrupted, "the demo was stopped")),
        }
    })
}

async fn play(args: &DemoArgs, console: &Console) -> Result<(), Failure> {
    let stage = Stage::set(args.size_mib << 20)?;
    console.note(&format!(
        "1. files      {} from {}, and {GENERATED} with {} of noise",
        output::count(stage.assets as u64, "file"),
        stage.assets_from,
        output::bytes(stage.size_bytes),
    ));
    let cast = Cast::new(&stage)?;
    let tracker = cast.tracker().await?;
    let mut first = cast.node(&tracker).await?;
    cast.wait_until_shared(&tracker).await?;
    console.note(&format!(
        "2. tracker    at {}; the first node shares all of it",
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
        "4. fourth     downloads everything; the first node is killed when {:.0} % are there",
        killed_at * 100.0
    ));
    let reports = fourth.reports(DEADLINE).await?;
    let elapsed = begun.elapsed();

    let checked = check(&stage, &stage.dir("fourth"))?;
    console.note(&format!(
        "5. checked    {} by hash: all as they should be",
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

/// Interrupts two `get --seed`s so that each lacks something and both together lack nothing.
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
                 \x20             each of its {} chunks is on two nodes at least",
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
        format!("{ATTEMPTS} interrupted downloads left the same chunks out; run the demo again"),
    ))
}

/// A `get --seed` that was interrupted shortly before its end, and the chunks that it has.
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
        // It was faster than the signal.
        stage.clear(name)?;
    }
    Err(Failure::new(
        Exit::Failed,
        format!("the {name} download could not be interrupted in time; try a larger --size"),
    ))
}

/// Hashes what arrived beside what was shared; the number of files.
fn check(stage: &Stage, arrived: &Path) -> Result<usize, Failure> {
    let names = stage.names()?;
    for name in &names {
        let options = Default::default();
        let shared = hash_file(&stage.dir("first/assets").join(name), &options)?;
        let copy = hash_file(&arrived.join(name), &options)?;
        if shared.info != copy.info {
            let message = format!("{} is not what was shared", name.display());
            return Err(Failure::new(Exit::Unverified, message));
        }
    }
    Ok(names.len())
}

/// Who sent how much, and how fast it went.
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
        "{:<16} got  {:>9}  in {:.1} s ({}/s), {} in vain, every chunk verified",
        "fourth",
        output::bytes(total),
        elapsed.as_secs_f64(),
        output::bytes(rate),
        output::bytes(wasted),
    ))
}
