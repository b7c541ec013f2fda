//! A Redis server of a test's own, which can be killed, paused, filled and made read-only.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::eventually;

/// A running Redis that keeps nothing on disk. It ends when the value is dropped.
pub struct Redis {
    process: Child,
    address: SocketAddr,
    arguments: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server on a free port. None, with a message, where it is not installed.
    ///
    /// # Panics
    ///
    /// If it is not installed and `CI` is `true`.
    pub fn start() -> Option<Redis> {
        Redis::start_with(&[])
    }

    /// As [`Redis::start`], with further arguments of redis-server.
    ///
    /// # Panics
    ///
    /// If it is not installed and `CI` is `true`.
    pub fn start_with(arguments: &[String]) -> Option<Redis> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let Ok(process) = spawn(address, dir.path(), arguments) else {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "redis-server is not installed"
            );
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        };
        let redis = Redis {
            process,
            address,
            arguments: arguments.to_vec(),
            dir,
        };
        redis.until_ready();
        Some(redis)
    }

    /// Returns its address for `--registry`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again, empty, after [`Redis::kill`].
    pub fn restart(&mut self) {
        self.process = spawn(self.address, self.dir.path(), &self.arguments).unwrap();
        self.until_ready();
    }

    /// Stops it as a debugger does: it keeps its connections and answers nothing.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    /// Lets it go on after [`Redis::pause`].
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
    }

    /// Sends a command and returns the first line of the answer.
    ///
    /// # Panics
    ///
    /// If Redis does not answer, or with an error.
    pub fn command(&self, line: &str) -> String {
        let answer = self.try_command(line).unwrap();
        assert!(!answer.starts_with('-'), "{line}: {answer}");
        answer
    }

    fn try_command(&self, line: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        // The inline form: words between spaces.
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    fn until_ready(&self) {
        eventually("Redis answers", || {
            let answer = self.try_command("PING").ok()?;
            (answer == "+PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(address: SocketAddr, dir: &Path, arguments: &[String]) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
