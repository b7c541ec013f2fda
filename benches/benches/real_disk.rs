//! One large file on a real disk: `qshare get` from a node on loopback beside `cp` + `sync` of the
//! same file, and beside curl from nginx where both are installed.
//!
//! `cargo bench -p qshare-benches --bench real_disk -- --dir DIR` writes to the file system of DIR.
//! In each round every contestant runs once, after everything written before has reached the disk.
//! The source is in the page cache if memory allows. Read the ratios of the medians.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Parser;
use qshare_benches::from_cargo::FromCargo;
use qshare_benches::measure::{self, Trial, median};
use qshare_benches::server::{Server, is_installed, nginx_config};
use qshare_benches::size::Size;
use qshare_benches::stage::{Stage, Swarm};
use qshare_benches::table::Table;

const FILE: &str = "file.bin";
const COPY: &str = "cp + sync";
const GET: &str = "get";
const GET_NO_SYNC: &str = "get --no-sync";
const CURL: &str = "curl + sync, HTTPS";

#[derive(Debug, Parser)]
struct Args {
    /// Bytes of the file: a number, or one with KiB, MiB or GiB
    #[arg(long, default_value = "4GiB")]
    size: Size,
    /// Rounds, in each of which every contestant runs once
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Directory on the disk to measure; needs room for the file twice
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    cargo: FromCargo,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.cargo.measures() {
        return Ok(());
    }
    let stage = Stage::new(Some(&args.dir))?;
    println!(
        "in {}, {}",
        stage.path().display(),
        file_system(stage.path())
    );
    let bytes = args.size.0;
    let file = stage.noise_file(FILE, bytes)?;
    let swarm = Swarm::start(&stage, "swarm", &file, 1)?;
    let copy = Copy::to(&stage, &file);
    let web = Web::start(&stage)?;
    if web.is_none() {
        println!(
            "curl and nginx are not in PATH, and not measured: apt-get install curl nginx-light openssl"
        );
    }

    let mut table = Table::new(bytes);
    let mut trials: [(&str, Vec<Trial>); 4] =
        [COPY, GET, GET_NO_SYNC, CURL].map(|name| (name, Vec::new()));
    for _ in 0..args.runs {
        for (name, trials) in &mut trials {
            settle(stage.path())?;
            let trial = match (*name, &web) {
                (COPY, _) => copy.trial()?,
                (GET, _) => swarm.trial(&stage)?,
                (GET_NO_SYNC, _) => swarm.trial_with(&stage, &["--no-sync"])?,
                (_, Some(web)) => web.trial(bytes)?,
                (_, None) => continue,
            };
            trials.push(table.add(name, trial));
        }
    }
    println!();
    for (name, trials) in &trials {
        table.add_median(name, trials);
    }
    println!();
    let wall = |trials: &[Trial]| median(trials.iter().map(|trial| trial.wall.as_secs_f64()));
    let [(_, copied), others @ ..] = &trials;
    for (name, trials) in others.iter().filter(|(_, trials)| !trials.is_empty()) {
        println!(
            "{name} / {COPY}: {:.2} of its time",
            wall(trials) / wall(copied)
        );
    }
    Ok(())
}

/// Waits until everything written to the file system of `dir` is on the disk, so that no
/// contestant pays for the one before it.
fn settle(dir: &Path) -> anyhow::Result<()> {
    let synced = Command::new("sync").arg("-f").arg(dir).status()?;
    ensure!(synced.success(), "sync -f: {synced}");
    Ok(())
}

/// The type of the file system of `dir`, as `stat` calls it.
fn file_system(dir: &Path) -> String {
    let stat = Command::new("stat")
        .args(["-f", "-c", "%T"])
        .arg(dir)
        .output();
    stat.ok().map_or_else(String::new, |stat| {
        String::from_utf8_lossy(&stat.stdout).trim().into()
    })
}

/// A shell command that ends when the file `$2` is on the disk. `sync FILE` flushes as `get` does:
/// this file, and nothing that others wrote.
fn then_sync(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{command} && sync \"$2\""))
        .arg("sh");
    shell
}

/// `cp` of the file.
struct Copy {
    from: PathBuf,
    to: PathBuf,
}

impl Copy {
    fn to(stage: &Stage, file: &Path) -> Copy {
        Copy {
            from: file.to_owned(),
            to: stage.path().join("copy"),
        }
    }

    fn trial(&self) -> anyhow::Result<Trial> {
        let mut command = then_sync("cp --reflink=never \"$1\" \"$2\"");
        command.args([&self.from, &self.to]);
        let trial = measure::trial(command, &[])?;
        fs::remove_file(&self.to)?;
        Ok(trial)
    }
}

/// nginx on loopback.
struct Web {
    server: Server,
    url: String,
    to: PathBuf,
}

impl Web {
    /// Starts it on the stage's files; None without nginx or curl.
    fn start(stage: &Stage) -> anyhow::Result<Option<Web>> {
        if !is_installed("curl", "--version") || !is_installed("nginx", "-v") {
            return Ok(None);
        }
        // nginx takes no port of the system's choice; this one was free a moment ago.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let config = nginx_config(&stage.path().join("nginx"), stage.path(), port)?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-c").arg(config).stderr(Stdio::null());
        let is_ready = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        Ok(Some(Web {
            server: Server::spawn(&mut nginx, is_ready)?,
            url: format!("https://127.0.0.1:{port}/{FILE}"),
            to: stage.path().join("fetched"),
        }))
    }

    fn trial(&self, bytes: u64) -> anyhow::Result<Trial> {
        let mut command = then_sync("curl -sk -o \"$2\" \"$1\"");
        command.arg(&self.url).arg(&self.to);
        let trial = measure::trial(command, &[self.server.id()])?;
        let length = self.to.metadata().context("curl wrote no file")?.len();
        ensure!(length == bytes, "{length} bytes arrived");
        fs::remove_file(&self.to)?;
        Ok(trial)
    }
}
