//! The real binary in the crowd: a tracker, a node that has the file, and `get --seed`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use qshare_tests::lab::{Host, Lab};
use serde::Deserialize;

use super::FILE_NAME;
use super::outcome::Outcome;
use super::race::{Race, Running, Start, first_line, log, race};
use super::shape::{Crowd, SEED, TRACKER};

/// The part of what `node --json` says that is of use here.
#[derive(Deserialize)]
struct Ready {
    id: String,
}

/// The part of what `get --json` says.
#[derive(Deserialize)]
struct Downloaded {
    wasted_bytes: u64,
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    node: String,
    bytes: u64,
}

/// For hashing and announcing the file.
const INDEXED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn measure(lab: &Lab, crowd: &Crowd, binary: &Path) -> anyhow::Result<Outcome> {
    let dir = crowd.scratch.join("qshare");
    // What an earlier run left would be resumed.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let at = format!("{}:65000", lab.host(TRACKER).address());
    let on = |host: &Host, subcommand: &str| {
        let mut command = host.command(binary);
        command
            .arg(subcommand)
            .arg("--json")
            .arg("--certs")
            .arg(dir.join(format!("certs-{}", host.name())));
        command
    };

    let mut servers = Running::default();
    let mut tracker = on(lab.host(TRACKER), "tracker")
        .stdout(Stdio::piped())
        .stderr(log(crowd, TRACKER)?)
        .spawn()?;
    let ready = first_line(&mut tracker, "the tracker");
    servers.add(tracker);
    ready?;
    let mut seed = on(lab.host(SEED), "node")
        .args(["--no-prompt", "--tracker", &at])
        .arg("--downloads")
        .arg(dir.join("seed"))
        .arg("--assets")
        .arg(crowd.file.parent().context("the directory of the file")?)
        .stdout(Stdio::piped())
        .stderr(log(crowd, SEED)?)
        .spawn()?;
    let ready = first_line(&mut seed, "the seed");
    servers.add(seed);
    let seed_id = serde_json::from_str::<Ready>(&ready?)?.id;
    wait_until_listed(|| {
        let mut ls = on(lab.host(TRACKER), "ls");
        ls.args(["--tracker", &at, FILE_NAME]);
        ls
    })?;

    let race = race(lab, crowd, servers, Start::Cold, |_, host| {
        let output = dir.join(host.name());
        std::fs::create_dir_all(&output)?;
        let mut get = on(host, "get");
        get.args(["--seed", "--tracker", &at, FILE_NAME, "-o"])
            .arg(output.join(FILE_NAME));
        if crowd.logs.is_some() {
            get.arg("-vv");
        }
        Ok(get)
    })?;
    let downloads = parse(&race)?;
    for host in &lab.hosts()[2..] {
        check(crowd, &dir.join(host.name()).join(FILE_NAME))?;
    }
    let file = crowd.file_bytes as f64;
    let wasted: u64 = downloads.iter().map(|done| done.wasted_bytes).sum();
    let from_seed: u64 = downloads
        .iter()
        .flat_map(|done| &done.sources)
        .filter(|source| source.node == seed_id)
        .map(|source| source.bytes)
        .sum();
    let waste = wasted as f64 / (file * downloads.len().max(1) as f64);
    let seed_files = from_seed as f64 / file;
    Ok(Outcome::new(
        "qshare",
        crowd,
        &race,
        Some(waste),
        Some(seed_files),
    ))
}

fn parse(race: &Race) -> anyhow::Result<Vec<Downloaded>> {
    let parse = |line: &str| serde_json::from_str(line).with_context(|| line.to_owned());
    race.finishes
        .iter()
        .map(|finish| parse(&finish.line))
        .collect()
}

/// Every downloaded file has the right bytes.
fn check(crowd: &Crowd, copy: &Path) -> anyhow::Result<()> {
    match std::fs::read(copy) {
        Ok(bytes) => {
            let is_same = bytes == std::fs::read(&crowd.file)?;
            anyhow::ensure!(is_same, "{} differs from what was shared", copy.display());
            Ok(())
        }
        // Killed, or too slow.
        Err(_) => Ok(()),
    }
}

fn wait_until_listed(ls: impl Fn() -> Command) -> anyhow::Result<()> {
    let deadline = Instant::now() + INDEXED_WITHIN;
    loop {
        let output = ls().stderr(Stdio::null()).output()?;
        if output.stdout.contains(&b'{') {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the seed does not share the file"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
