//! Starts leechers when they arrive, and records when each finishes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use qshare_tests::lab::{Counters, Host, Lab};

use super::shape::{Crowd, SEED};

/// Deadline of a crowd, as a multiple of the bound.
const GIVE_UP: u32 = 12;

/// Processes that end with this.
#[derive(Debug, Default)]
pub(crate) struct Running(Vec<Child>);

impl Running {
    pub(crate) fn add(&mut self, child: Child) {
        self.0.push(child);
    }

    /// Processor time of all of them, in seconds.
    fn cpu_seconds(&self) -> f64 {
        self.0
            .iter()
            .filter_map(|child| cpu_seconds(child.id()))
            .sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A leecher that is done.
#[derive(Debug)]
pub(crate) struct Finish {
    /// Since the first one came.
    pub(crate) at: Duration,
    /// What it said.
    pub(crate) line: String,
}

/// The result of a race.
#[derive(Debug)]
pub(crate) struct Race {
    /// In order.
    pub(crate) finishes: Vec<Finish>,
    /// What leechers' interfaces carried.
    pub(crate) leechers: Counters,
    /// What the seed's carried.
    pub(crate) seed: Counters,
    pub(crate) cpu_seconds: f64,
    /// Share of all processors' time that anybody used.
    pub(crate) busy: f64,
}

/// When leechers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Their arrival is the start of the process.
    Cold,
    /// They say that they are ready, and wait for a line.
    Warm,
}

/// Runs the leechers: each a command whose next line of output says that it is done.
pub(crate) fn race(
    lab: &Lab,
    crowd: &Crowd,
    seed: Running,
    start: Start,
    command: impl Fn(usize, &Host) -> anyhow::Result<Command>,
) -> anyhow::Result<Race> {
    let hosts: Vec<_> = (0..crowd.leechers)
        .map(|at| lab.host(&Crowd::name(at)))
        .collect();
    let (sender, lines) = mpsc::channel();
    let spawn = |at: usize| -> anyhow::Result<Child> {
        let mut command = command(at, hosts[at])?;
        command
            .stdin(if start == Start::Warm {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(log(crowd, &Crowd::name(at))?);
        let mut child = command.spawn().context("start a leecher")?;
        let stdout = child.stdout.take().context("a leecher's output")?;
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send((at, Instant::now(), line));
            }
        });
        Ok(child)
    };

    let mut leechers = Running::default();
    if start == Start::Warm {
        for at in 0..crowd.leechers {
            leechers.add(spawn(at)?);
        }
        for _ in 0..crowd.leechers {
            lines
                .recv_timeout(Duration::from_secs(60))
                .context("leechers that get ready")?;
        }
    }
    let carried = |hosts: &[&Host]| -> anyhow::Result<Vec<Counters>> {
        hosts.iter().map(|host| Ok(host.counters()?)).collect()
    };
    let before = (
        carried(&hosts)?,
        lab.host(SEED).counters()?,
        machine_ticks(),
    );
    let began = Instant::now();
    let give_up = began + crowd.bound() * GIVE_UP + Duration::from_secs(10);
    let mut to_arrive = 0;
    let mut to_kill = crowd.killed();
    let mut finishes = Vec::new();
    while finishes.len() < crowd.wanted() {
        let mut next = give_up;
        if to_arrive < crowd.leechers {
            let arrival = began + crowd.arrival(to_arrive);
            if Instant::now() >= arrival {
                match start {
                    Start::Cold => leechers.add(spawn(to_arrive)?),
                    Start::Warm => tell(&mut leechers.0[to_arrive])?,
                }
                to_arrive += 1;
                continue;
            }
            next = next.min(arrival);
        }
        if let Some((victim, when)) = to_kill {
            if Instant::now() >= began + when {
                leechers.0[victim].kill()?;
                to_kill = None;
                continue;
            }
            next = next.min(began + when);
        }
        match lines.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok((_, when, line)) => finishes.push(Finish {
                at: when - began,
                line,
            }),
            Err(_) if Instant::now() >= give_up => break,
            Err(_) => {}
        }
    }
    let after = (
        carried(&hosts)?,
        lab.host(SEED).counters()?,
        machine_ticks(),
    );
    let mut sum = Counters::default();
    for (after, before) in after.0.iter().zip(&before.0) {
        let one = after.since(*before);
        sum.received_bytes += one.received_bytes;
        sum.received_packets += one.received_packets;
        sum.sent_bytes += one.sent_bytes;
        sum.sent_packets += one.sent_packets;
    }
    let (all, idle) = (after.2.0 - before.2.0, after.2.1 - before.2.1);
    Ok(Race {
        finishes,
        leechers: sum,
        seed: after.1.since(before.1),
        cpu_seconds: leechers.cpu_seconds() + seed.cpu_seconds(),
        busy: 1.0 - idle as f64 / all.max(1) as f64,
    })
}

/// Where a process's stderr goes.
pub(crate) fn log(crowd: &Crowd, name: &str) -> anyhow::Result<Stdio> {
    Ok(match &crowd.logs {
        Some(dir) => std::fs::File::create(dir.join(format!("{name}.log")))?.into(),
        None => Stdio::null(),
    })
}

/// The first line that a process says.
pub(crate) fn first_line(child: &mut Child, who: &str) -> anyhow::Result<String> {
    let stdout = child.stdout.take().context("a process's output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    anyhow::ensure!(
        !line.is_empty(),
        "{who} ended before it was ready (see --logs)"
    );
    Ok(line)
}

fn tell(child: &mut Child) -> anyhow::Result<()> {
    let stdin = child.stdin.as_mut().context("a leecher's input")?;
    Ok(stdin.write_all(b"go\n")?)
}

/// Fields 14 and 15 of /proc/PID/stat, in ticks; field 2 may contain anything up to its last `)`.
fn cpu_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields
        .split(' ')
        .skip(11)
        .map_while(|field| field.parse::<u64>().ok());
    let ticks = fields.next()? + fields.next()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// USER_HZ, which Linux has fixed for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ticks of all processors since they started: all, idle.
pub(crate) fn machine_ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().sum(), idle)
}
