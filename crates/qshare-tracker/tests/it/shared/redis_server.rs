//! A Redis server of a test's own, on a free port.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server. It ends when this is dropped.
pub(super) struct RedisServer {
    pub(super) port: u16,
    dir: TempDir,
    process: Child,
    arguments: Vec<String>,
}

/// Returns a port that is free now.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Whether a program is installed. Without it the test is skipped, but not where nothing may be.
pub(super) fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{program} is not installed"
        );
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk. None, with a message, where there is none.
    pub(super) fn start() -> Option<RedisServer> {
        RedisServer::start_with(&[])
    }

    pub(super) fn start_with(arguments: &[&str]) -> Option<RedisServer> {
        is_installed("redis-server").then(|| {
            // Another process may take the port between the choice and the start.
            (0..5)
                .find_map(|_| {
                    let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
                    RedisServer::start_on(free_port(), arguments)
                })
                .expect("redis-server does not start")
        })
    }

    /// Starts a server for a cluster. Its second port is 10,000 above the first.
    pub(super) fn start_in_cluster() -> Option<RedisServer> {
        is_installed("redis-server").then(|| {
            (0..20)
                .find_map(|_| {
                    let port = free_port() % 20_000 + 20_000;
                    let arguments = ["--cluster-enabled", "yes"];
                    RedisServer::start_on(port, arguments.map(str::to_owned).to_vec())
                })
                .expect("redis-server does not start")
        })
    }

    fn start_on(port: u16, arguments: Vec<String>) -> Option<RedisServer> {
        let dir = tempfile::tempdir().unwrap();
        let process = spawn(port, dir.path(), &arguments);
        let mut server = RedisServer {
            port,
            dir,
            process,
            arguments,
        };
        server.answers().then_some(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it answers. False if it has ended.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_command(&["PING"]).is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn try_command(&self, arguments: &[&str]) -> Option<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().ok()?;
        let mut command = redis::Cmd::new();
        command.arg(arguments);
        command.query(&mut connection).ok()
    }

    /// Sends a command.
    pub(super) fn command(&self, arguments: &[&str]) -> redis::Value {
        self.try_command(arguments)
            .unwrap_or_else(|| panic!("{arguments:?} failed"))
    }

    /// Kills it at once.
    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, empty, after [`RedisServer::kill`].
    pub(super) fn restart(&mut self) {
        self.process = spawn(self.port, self.dir.path(), &self.arguments);
        assert!(self.answers(), "redis-server does not start again");
    }

    /// Stops it as a debugger does: it keeps its connections and answers nothing.
    pub(super) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(super) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, dir: &Path, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
