//! libtorrent in the crowd, through Debian's Python bindings.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use qshare_tests::lab::Lab;
use qshare_tests::libtorrent::{PYTHON, write_script};

use super::outcome::Outcome;
use super::race::{Running, Start, first_line, log, race};
use super::shape::{Crowd, SEED};

pub(crate) fn measure(lab: &Lab, crowd: &Crowd) -> anyhow::Result<Outcome> {
    let dir = crowd.scratch.join("libtorrent");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let script = write_script(&dir)?;
    let torrent: PathBuf = dir.join("crowd.torrent");
    let shared = crowd.file.parent().context("the directory of the file")?;

    let mut seed = lab
        .host(SEED)
        .command(PYTHON)
        .arg(&script)
        .arg("seed")
        .args([&torrent, &crowd.file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log(crowd, "seed-libtorrent")?)
        .current_dir(shared)
        .spawn()?;
    let ready = first_line(&mut seed, "libtorrent's seed");
    let mut servers = Running::default();
    servers.add(seed);
    ready?;

    // Nobody has to find anybody: all addresses are known, tracker and DHT take no time.
    let peers: Vec<_> = lab.hosts()[1..]
        .iter()
        .map(|host| host.address().to_string())
        .collect();
    let race = race(lab, crowd, servers, Start::Warm, |_, host| {
        let mut get = host.command(PYTHON);
        get.arg(&script)
            .arg("get")
            .arg(&torrent)
            .arg(dir.join(host.name()));
        let own = host.address().to_string();
        get.args(peers.iter().filter(|peer| **peer != own));
        Ok(get)
    })?;
    let wasted: u64 = race
        .finishes
        .iter()
        .filter_map(|finish| finish.line.parse::<u64>().ok())
        .sum();
    let waste = wasted as f64 / (crowd.file_bytes as f64 * race.finishes.len().max(1) as f64);
    Ok(Outcome::new("libtorrent", crowd, &race, Some(waste), None))
}
