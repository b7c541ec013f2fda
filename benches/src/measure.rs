//! Costs of a process: wall time, processor time, memory.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Deadline of a command.
const DEADLINE: Duration = Duration::from_secs(600);
/// Polling interval, which is the error of the wall time.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Costs of one command and of the processes that served it.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Wall time of the command.
    pub wall: Duration,
    /// Processor time of the command.
    pub own_cpu: Duration,
    /// Processor time of the servers meanwhile.
    pub others_cpu: Duration,
    /// Peak resident memory of the command.
    pub own_peak_bytes: u64,
    /// Highest peak resident memory of a server.
    pub others_peak_bytes: u64,
}

impl Trial {
    /// Returns bytes per second.
    pub fn speed(&self, bytes: u64) -> f64 {
        bytes as f64 / self.wall.as_secs_f64()
    }
}

/// Runs a command to its end and measures its costs and those of the processes `others`.
pub fn trial(mut command: Command, others: &[u32]) -> anyhow::Result<Trial> {
    let all_cpu = || {
        others
            .iter()
            .map(|&pid| cpu_time(pid))
            .sum::<Option<Duration>>()
    };
    let cpu_before = all_cpu().context("a server is gone")?;
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let pid = Pid::from_child(&child);
    let mut own_peak_bytes = 0;
    // An unreaped process still reports its processor time.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(pid), options)?.is_none() {
        // The peak only rises, and vanishes with the process.
        own_peak_bytes = peak_bytes(child.id()).unwrap_or(0).max(own_peak_bytes);
        if begun.elapsed() > DEADLINE {
            child.kill()?;
            bail!("{command:?} did not end within {DEADLINE:?}");
        }
        thread::sleep(LOOK_AGAIN);
    }
    let wall = begun.elapsed();
    let own_cpu = cpu_time(child.id()).context("the command's processor time is not known")?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    let cpu_after = all_cpu().context("a server is gone")?;
    let peaks = others.iter().filter_map(|&pid| peak_bytes(pid));
    Ok(Trial {
        wall,
        own_cpu,
        others_cpu: cpu_after.saturating_sub(cpu_before),
        own_peak_bytes,
        others_peak_bytes: peaks.max().unwrap_or(0),
    })
}

/// Returns the processor time of a process and of its children that have ended, in user mode and
/// in the kernel.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything. utime, stime, cutime and cstime are fields 14 to
    // 17 of all: see proc_pid_stat(5).
    let (_, fields) = stat.rsplit_once(')')?;
    let times: Option<Vec<u64>> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|ticks| ticks.parse().ok())
        .collect();
    let ticks: u64 = times?.iter().sum();
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(
        ticks as f64 / ticks_per_second as f64,
    ))
}

/// Returns the peak resident memory of a process.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

/// Returns the resident memory of a process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the median; of an even number of values the lower of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}
