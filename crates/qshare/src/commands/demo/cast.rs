//! The processes of the demo.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use qshare_node::content::PART_SUFFIX;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use super::stage::{GENERATED, NO_CONFIGURATION, Stage};
use crate::exit::{Exit, Failure};
use crate::neutral::shown;

/// Interval of checks of a download's progress; a few megabytes arrive in between.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Interval of lookups that check whether all files are announced.
const ASK_EVERY: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(60);

/// Starts processes of this program.
pub(super) struct Cast<'a> {
    stage: &'a Stage,
    program: PathBuf,
}

/// A process, killed when dropped.
pub(super) struct Actor {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The address that it listens on.
    pub(super) address: String,
    log: PathBuf,
}

/// What `tracker --json` and `node --json` print when they are ready.
#[derive(Deserialize)]
struct Ready {
    listen: String,
}

/// What `ls --json` prints.
#[derive(Deserialize)]
struct Listed {
    complete: u32,
}

/// What `get --json` prints for each file.
#[derive(Deserialize)]
pub(super) struct FileReport {
    pub(super) size: u64,
    pub(super) wasted_bytes: u64,
    pub(super) sources: Vec<SourceReport>,
}

#[derive(Deserialize)]
pub(super) struct SourceReport {
    pub(super) address: String,
    pub(super) bytes: u64,
}

impl<'a> Cast<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Cast<'a>, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| failed(format!("cannot find this program: {error}")))?;
        Ok(Cast { stage, program })
    }

    pub(super) async fn tracker(&self) -> Result<Actor, Failure> {
        let mut command = self.command("tracker");
        command.args(["--listen", "127.0.0.1:0", "--json"]);
        self.start("tracker", command, String::new())?.ready().await
    }

    /// Starts a node that shares all files.
    pub(super) async fn node(&self, tracker: &Actor) -> Result<Actor, Failure> {
        let mut command = self.command("node");
        command.args(["--listen", "127.0.0.1:0", "--tracker", &tracker.address]);
        command.args(["--no-prompt", "--json"]);
        command.arg("--assets").arg(self.stage.dir("first/assets"));
        command
            .arg("--downloads")
            .arg(self.stage.dir("first/downloads"));
        self.start("first", command, String::new())?.ready().await
    }

    /// Waits until the generated file is hashed and announced; small files are ready before it.
    pub(super) async fn wait_until_shared(&self, tracker: &Actor) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let mut command = self.command("ls");
            command.args(["--json", GENERATED, "--tracker", &tracker.address]);
            let output = command.output().await;
            let output = output.map_err(|error| failed(format!("cannot start ls: {error}")))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let listed = text.lines().next().map(serde_json::from_str::<Listed>);
            if let Some(Ok(listed)) = listed
                && listed.complete > 0
            {
                return Ok(());
            }
            sleep(ASK_EVERY).await;
        }
        Err(failed("the first node did not announce its files in time"))
    }

    /// Starts a `get` of all files into a directory of its own.
    pub(super) fn getter(
        &self,
        name: &'static str,
        seed: bool,
        tracker: &Actor,
    ) -> Result<Actor, Failure> {
        let address = free_address()?;
        let mut command = self.command("get");
        command.args([
            "**",
            "--json",
            "--tracker",
            &tracker.address,
            "--listen",
            &address,
        ]);
        let mut output = self.stage.dir(name).into_os_string();
        output.push("/");
        command.arg("--output").arg(output);
        if seed {
            command.arg("--seed");
        }
        self.start(name, command, address)
    }

    /// Runs an interrupted `get --seed` again.
    pub(super) fn resume(&self, stopped: Actor, tracker: &Actor) -> Result<Actor, Failure> {
        self.getter(stopped.name, true, tracker)
    }

    /// Returns a command of this program that ignores the user's qshare variables and
    /// configuration.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        for (key, _) in std::env::vars_os() {
            if key.as_encoded_bytes().starts_with(b"QSHARE_") {
                command.env_remove(key);
            }
        }
        let certs = self.stage.dir("certs");
        command
            .arg(subcommand)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.arg("--certs").arg(certs);
        command.env("QSHARE_NO_LAN", "true");
        command.env("QSHARE_CONFIG", self.stage.dir(NO_CONFIGURATION));
        command
    }

    fn start(
        &self,
        name: &'static str,
        mut command: Command,
        address: String,
    ) -> Result<Actor, Failure> {
        let log = self.stage.dir(&format!("{name}.log"));
        let stderr = File::create(&log)
            .map_err(|error| failed(format!("cannot write {}: {error}", shown(&log))))?;
        let started = command.stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut child =
            started.map_err(|error| failed(format!("cannot start the {name} process: {error}")))?;
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| failed(format!("no output from {name}")))?;
        Ok(Actor {
            name,
            child,
            lines: BufReader::new(stdout).lines(),
            address,
            log,
        })
    }
}

impl Actor {
    /// Waits for the line with the address that it listens on.
    async fn ready(mut self) -> Result<Actor, Failure> {
        let line = timeout(DEADLINE, self.lines.next_line()).await;
        let ready = match line {
            Ok(Ok(Some(line))) => serde_json::from_str::<Ready>(&line).ok(),
            _ => None,
        };
        let ready = ready.ok_or_else(|| self.complain("did not start"))?;
        self.address = ready.listen;
        Ok(self)
    }

    /// Waits until this much of the generated file is written, and returns the amount.
    pub(super) async fn wait_for_bytes(
        &mut self,
        stage: &Stage,
        wanted_bytes: u64,
        deadline: Duration,
    ) -> Result<u64, Failure> {
        let dir = stage.dir(self.name);
        let (part, whole) = (
            dir.join(format!("{GENERATED}{PART_SUFFIX}")),
            dir.join(GENERATED),
        );
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            if whole.exists() {
                return Ok(stage.size_bytes);
            }
            let there = written_bytes(&part);
            if there >= wanted_bytes {
                return Ok(there);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.complain(&format!("ended early ({status})")));
            }
            sleep(LOOK_EVERY).await;
        }
        Err(self.complain("is too slow"))
    }

    /// Sends SIGINT and waits until the process has ended.
    pub(super) async fn interrupt(&mut self, deadline: Duration) -> Result<(), Failure> {
        let status = self.stop(Signal::INT, deadline).await?;
        // 130: interrupted; 0: the download was complete and the process only serving.
        match status.code() {
            Some(130 | 0) => Ok(()),
            _ => Err(self.complain(&format!("ended with {status} after Ctrl-C"))),
        }
    }

    /// Sends SIGTERM and expects success.
    pub(super) async fn terminate(mut self, deadline: Duration) -> Result<(), Failure> {
        let status = self.stop(Signal::TERM, deadline).await?;
        match status.success() {
            true => Ok(()),
            false => Err(self.complain(&format!("ended with {status}"))),
        }
    }

    /// Sends SIGKILL.
    pub(super) async fn kill(&mut self) {
        // This fails only if the process has ended.
        let _ = self.child.kill().await;
    }

    async fn stop(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus, Failure> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
        match timeout(deadline, self.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            _ => Err(self.complain("did not end in time")),
        }
    }

    /// Waits for the end of a `get --json` and returns its report of each file.
    pub(super) async fn reports(&mut self, deadline: Duration) -> Result<Vec<FileReport>, Failure> {
        let mut reports = Vec::new();
        let read = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                reports.extend(serde_json::from_str::<FileReport>(&line));
            }
            self.child.wait().await
        };
        match timeout(deadline, read).await {
            Ok(Ok(status)) if status.success() => Ok(reports),
            Ok(Ok(status)) => Err(self.complain(&format!("ended with {status}"))),
            _ => Err(self.complain("did not end in time")),
        }
    }

    /// Returns a failure with the last lines of the process's log.
    fn complain(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        failed(format!(
            "the {} process {what}; its last lines:\n  {}",
            self.name,
            last.join("\n  ")
        ))
    }
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, message)
}

/// Returns the number of allocated bytes of a sparse file.
fn written_bytes(part: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // st_blocks is in units of 512 bytes on every file system (stat(2)).
    fs::metadata(part).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Returns an unused address. A fixed address identifies a process in reports.
fn free_address() -> Result<String, Failure> {
    let bound = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = bound.map_err(|error| failed(format!("no free port: {error}")))?;
    Ok(address.to_string())
}
