//! Two hosts on one machine, joined by a veth pair (MTU 1500), and commands on them.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use qshare_tests::binary;
use qshare_tests::lab::{Host, HostPlan, Lab, Link, isolation};
use qshare_tests::process::{Process, eventually};
use tempfile::TempDir;

use crate::server::Server;

const SERVER: &str = "server";
const CLIENT: &str = "client";
const TRACKER_PORT: u16 = 65000;

/// Two hosts, and a directory in memory that both see.
pub struct Pair {
    lab: Lab,
    dir: TempDir,
}

/// Runs a benchmark in private namespaces, or prints that they are unavailable.
pub fn inside(measure: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    if isolation::is_inside() {
        isolation::prepare()?;
        measure()?;
        return Ok(ExitCode::SUCCESS);
    }
    // Build the binary outside of the namespaces, where cargo has a network and its home.
    binary::path();
    let again: Vec<OsString> = std::env::args_os().skip(1).collect();
    match isolation::run_again(again) {
        Ok(status) if status.success() => Ok(ExitCode::SUCCESS),
        Ok(_) => Ok(ExitCode::FAILURE),
        Err(reason) => {
            println!("SKIPPED: {reason}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Pair {
    /// Makes two hosts without delay or rate limit. Call it within [`inside`] only.
    pub fn new() -> anyhow::Result<Pair> {
        Pair::linked(Link::default())
    }

    /// Makes two hosts, each with this link.
    pub fn linked(link: Link) -> anyhow::Result<Pair> {
        let lab = Lab::builder()
            .host(HostPlan::new(SERVER).link(link))
            .host(HostPlan::new(CLIENT).link(link))
            .build()?;
        let dir = tempfile::Builder::new()
            .prefix("qshare-bench")
            .tempdir_in("/dev/shm")
            .context("a directory in memory")?;
        Ok(Pair { lab, dir })
    }

    /// Returns the host that has the files.
    pub fn server(&self) -> &Host {
        self.lab.host(SERVER)
    }

    /// Returns the host that downloads them.
    pub fn client(&self) -> &Host {
        self.lab.host(CLIENT)
    }

    /// Returns the directory that both hosts see.
    pub fn home(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the directory that `node` shares. It does not exist at first.
    pub fn assets(&self) -> PathBuf {
        self.home().join("assets")
    }

    /// Returns a command of the binary on one of the hosts.
    pub fn qshare(&self, host: &Host, arguments: &[&str]) -> Command {
        let mut command = host.command(binary::path());
        binary::forget_surroundings(&mut command);
        command
            .env("HOME", self.home())
            .current_dir(self.home())
            .args(arguments);
        command
    }

    /// Returns the command that downloads all matches of a pattern into the directory `to`, with
    /// the identity in `certs`.
    pub fn get(&self, certs: &str, pattern: &str, to: &str) -> Command {
        let (tracker, to) = (self.tracker(), format!("{to}/"));
        let get = ["-q", "get", "--certs", certs, "--tracker", &tracker];
        let mut command = self.qshare(self.client(), &get);
        command.args([pattern, "-o", &to]);
        command
    }

    /// Starts a tracker and a node on the server that shares [`Pair::assets`]. Returns when all
    /// `files` files are listed.
    pub fn share(&self, files: usize) -> [Process; 2] {
        let servers = [self.start_tracker(), self.start_node()];
        self.until_listed("**", files);
        servers
    }

    /// A tracker on the server.
    pub fn start_tracker(&self) -> Process {
        self.start(&["tracker", "--certs", "tracker"])
    }

    /// A node on the server that shares [`Pair::assets`].
    pub fn start_node(&self) -> Process {
        let tracker = self.tracker();
        let certs = ["--certs", "node", "--tracker", &tracker];
        self.start(&[&["node", "--no-prompt"], &certs[..]].concat())
    }

    /// Waits until `files` files match a pattern.
    pub fn until_listed(&self, pattern: &str, files: usize) {
        let tracker = self.tracker();
        let ls = ["ls", "--json", "--certs", "client", "--tracker", &tracker];
        eventually("all files are announced", || {
            let listed = self.qshare(self.client(), &ls).arg(pattern).output().ok()?;
            let lines = listed.stdout.iter().filter(|&&byte| byte == b'\n').count();
            (lines == files).then_some(())
        });
    }

    fn tracker(&self) -> String {
        format!("{}:{TRACKER_PORT}", self.server().address())
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let mut command = self.qshare(self.server(), arguments);
        command.arg("--json");
        let process = Process::start(command);
        process.ready();
        process
    }

    /// Starts another program's server, and waits until it takes connections.
    pub fn serve(&self, command: &mut Command, port: u16) -> anyhow::Result<Server> {
        let at = (self.server().address(), port);
        Server::spawn(command, || {
            matches!(self.server().inside(|| TcpStream::connect(at)), Ok(Ok(_)))
        })
    }
}
