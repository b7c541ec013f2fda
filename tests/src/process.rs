//! A process under test: its output and its exit.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;

/// Deadline of every wait. Far more than needed, since a machine that also builds is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Polling interval where no event can be waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Polls until `look` returns a value.
///
/// # Panics
///
/// When [`PATIENCE`] passes.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// The output of a process so far. Clones share it.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<Printed>, Condvar)>);

#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Reads `stream` to its end in a thread.
    pub fn collect(mut stream: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let shared = output.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                // Reading a closed pseudo-terminal fails; it has no end of file.
                let count = stream.read(&mut buffer).unwrap_or(0);
                let mut printed = shared.0.0.lock().unwrap();
                printed.bytes.extend_from_slice(&buffer[..count]);
                printed.ended = count == 0;
                shared.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Returns the text so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits until the stream has ended and returns the text.
    pub fn all(&self) -> String {
        let printed = self.0.0.lock().unwrap();
        let waited = self
            .0
            .1
            .wait_timeout_while(printed, PATIENCE, |printed| !printed.ended);
        String::from_utf8_lossy(&waited.unwrap().0.bytes).into_owned()
    }

    /// Waits until `look` finds something in the text. Returns None if the stream ends without it,
    /// or when [`PATIENCE`] passes.
    pub fn find<T>(&self, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut printed = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = look(&String::from_utf8_lossy(&printed.bytes)) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if printed.ended || left.is_zero() {
                return None;
            }
            printed = self.0.1.wait_timeout(printed, left).unwrap().0;
        }
    }
}

/// A running process, killed when the value is dropped.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    what: String,
    /// Its standard output.
    pub out: Output,
    /// Its standard error.
    pub err: Output,
}

impl Process {
    /// Starts a command. Its standard input is a pipe that stays open until [`Process::end_input`].
    pub fn start(mut command: Command) -> Process {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let out = Output::collect(child.stdout.take().unwrap());
        let err = Output::collect(child.stderr.take().unwrap());
        let input = child.stdin.take();
        Process {
            child,
            input,
            what,
            out,
            err,
        }
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the pipe to its standard input.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.input.as_mut().unwrap()
    }

    /// Closes its standard input.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits for the first JSON line on standard output.
    pub fn ready(&self) -> Value {
        self.out_line(|line| serde_json::from_str(line).ok())
    }

    /// Waits for a complete line of standard output for which `look` returns a value.
    pub fn out_line<T>(&self, look: impl FnMut(&str) -> Option<T>) -> T {
        self.line_of(&self.out, look)
    }

    /// Waits for a complete line of standard error for which `look` returns a value.
    pub fn err_line<T>(&self, look: impl FnMut(&str) -> Option<T>) -> T {
        self.line_of(&self.err, look)
    }

    /// Waits for `words` on standard error.
    pub fn says(&self, words: &str) {
        let said = self.err.find(|text| text.contains(words).then_some(()));
        assert!(
            said.is_some(),
            "{words:?} was not said\n{}",
            self.describe()
        );
    }

    fn line_of<T>(&self, output: &Output, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let found = output.find(|text| {
            let (whole, _) = text.rsplit_once('\n')?;
            whole.lines().find_map(&mut look)
        });
        found.unwrap_or_else(|| panic!("the line did not come\n{}", self.describe()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns its exit status if it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends.
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.has_ended() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end\n{}",
                self.describe()
            );
            thread::sleep(LOOK_AGAIN);
        };
        Ended {
            code: status.code(),
            out: self.out.all(),
            err: self.err.all(),
            what: self.what.clone(),
        }
    }

    /// Kills it, and returns what it said on standard error.
    pub fn end_of(mut process: Process) -> String {
        process.kill();
        process.err.all()
    }

    /// Returns its peak resident memory (VmHWM).
    pub fn peak_memory_bytes(&self) -> u64 {
        peak_memory_bytes(self.id()).unwrap()
    }

    /// Returns how many bytes it has read so far from files, pipes and sockets (rchar).
    pub fn read_bytes(&self) -> u64 {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap();
        let line = counts
            .lines()
            .find_map(|line| line.strip_prefix("rchar:"))
            .unwrap();
        line.trim().parse().unwrap()
    }

    /// Returns the name and the niceness of each of its threads.
    pub fn threads(&self) -> Vec<(String, i32)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let stat = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).ok();
        let read = |stat: String| {
            // "TID (NAME) STATE ...": see proc_pid_stat(5).
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
            Some((name.into(), rest.split_whitespace().nth(16)?.parse().ok()?))
        };
        tasks.filter_map(|task| read(stat(task.ok()?)?)).collect()
    }

    fn describe(&self) -> String {
        let (what, out, err) = (&self.what, self.out.text(), self.err.text());
        format!("{what}\n--- stdout\n{out}\n--- stderr\n{err}\n---")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.describe());
        }
    }
}

/// Returns the peak resident memory (VmHWM) of a process; None if it has ended.
pub fn peak_memory_bytes(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = peak.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The exit and the output of a process.
pub struct Ended {
    /// Its exit code; None after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    what: String,
}

impl Ended {
    /// Asserts the exit code.
    pub fn with(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Asserts exit code 0.
    pub fn well(self) -> Ended {
        self.with(0)
    }

    /// Asserts that standard error contains `words`.
    pub fn saying(self, words: &str) -> Ended {
        assert!(self.err.contains(words), "{words:?} was not said\n{self:?}");
        self
    }

    /// Parses each line of standard output as JSON.
    pub fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:?}"));
        self.out.lines().map(parse).collect()
    }
}

impl Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ended {
            code,
            out,
            err,
            what,
        } = self;
        write!(
            f,
            "{what}\nended with {code:?}\n--- stdout\n{out}\n--- stderr\n{err}\n---"
        )
    }
}

/// Runs a command with empty standard input to its end.
pub fn run(command: Command) -> Ended {
    let mut process = Process::start(command);
    process.end_input();
    process.end()
}
