//! The same machine with aquatic_udp and its load generator: plaintext announces over UDP, without
//! connections or TLS. It shows how far encrypted lookups are from what the sockets could do.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

const TRACKER: &str = "aquatic_udp";
const GENERATOR: &str = "aquatic_udp_load_test";
/// The version whose configuration and report are used here.
const INSTALL: &str = "cargo install aquatic_udp aquatic_udp_load_test --version 0.9.0";
/// Time for the tracker to bind its socket.
const STARTING: Duration = Duration::from_millis(500);

/// Returns where a program lies.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.into_iter().find(|place| place.is_file())
}

/// A running tracker, killed when the value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures announces per second, one thread each for the tracker and the generator, and prints
/// them. Without the programs it says how to install them.
pub(crate) async fn announces(peers: usize, seconds: Duration) -> anyhow::Result<()> {
    let (Some(tracker), Some(generator)) = (on_path(TRACKER), on_path(GENERATOR)) else {
        println!("aquatic_udp: SKIPPED, not on PATH ({INSTALL})");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    drop(socket);
    let config = dir.path().join("tracker.toml");
    fs::write(&config, format!("[network]\naddress = \"{address}\"\n"))?;
    let mut running = Running(start(&tracker, &config)?);
    // It says nothing once it is ready, and answers no packet that is not of its protocol.
    tokio::time::sleep(STARTING).await;
    ensure!(running.0.try_wait()?.is_none(), "{TRACKER} has ended");
    let config = dir.path().join("load.toml");
    let load = format!(
        "server_address = \"{address}\"\nduration = {}\nextra_statistics = false\n[requests]\n\
         number_of_torrents = {peers}\nnumber_of_peers = {peers}\nannounce_peers_wanted = 1\n\
         weight_connect = 1\nweight_announce = 100\nweight_scrape = 0\n",
        seconds.as_secs()
    );
    fs::write(&config, load)?;
    let output = tokio::task::spawn_blocking(move || {
        let child = start(&generator, &config)?;
        child.wait_with_output()
    });
    let output = output.await??;
    ensure!(output.status.success(), "{GENERATOR}: {}", output.status);
    let report = String::from_utf8(output.stdout)?;
    let per_second = announces_per_second(&report).context("the report has no announces")?;
    println!(
        "{:36} {per_second:10.0}",
        "aquatic_udp, plaintext announces"
    );
    Ok(())
}

fn start(program: &Path, config: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("-c")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
}

/// Returns the mean of the whole run, which the last such line states.
fn announces_per_second(report: &str) -> Option<f64> {
    let lines = report.lines().rev();
    let mut found = lines.filter_map(|line| line.trim().strip_prefix("- Announce responses:"));
    found.next()?.trim().parse().ok()
}
