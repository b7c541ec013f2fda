//! The program on hosts of the lab: a tracker here, a node there, somebody who downloads.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::files;
use crate::lab::Host;
use crate::process::{Process, eventually, run};

/// Where every tracker listens.
pub const TRACKER_PORT: u16 = 65000;

/// A directory for all hosts, gone with the value.
pub struct Networked {
    dir: TempDir,
    program: PathBuf,
    tracker_at: Option<IpAddr>,
}

impl Networked {
    /// Empty directories, and this program on every host.
    pub fn new(program: PathBuf) -> Networked {
        Networked::within(&std::env::temp_dir(), program)
    }

    /// The same, with its directories in this one.
    pub fn within(place: &Path, program: PathBuf) -> Networked {
        let dir = tempfile::Builder::new()
            .prefix("qshare-net")
            .tempdir_in(place);
        Networked {
            dir: dir.unwrap(),
            program,
            tracker_at: None,
        }
    }

    /// Has trackers reached at this address, in place of their IPv4 one.
    pub fn tracker_at(mut self, address: IpAddr) -> Networked {
        self.tracker_at = Some(address);
        self
    }

    fn at(&self, tracker: &Host) -> String {
        let address = self.tracker_at.unwrap_or(tracker.address().into());
        SocketAddr::new(address, TRACKER_PORT).to_string()
    }

    /// The directory of a host.
    pub fn dir(&self, host: &Host) -> PathBuf {
        let dir = self.dir.path().join(host.name());
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A command of the program on a host.
    pub fn command(&self, host: &Host, subcommand: &str) -> Command {
        let dir = self.dir(host);
        let mut command = host.command(&self.program);
        binary::forget_surroundings(&mut command);
        command.env("HOME", &dir).current_dir(&dir);
        command.arg(subcommand);
        command
    }

    /// A tracker that listens on all addresses of a host.
    pub fn tracker(&self, host: &Host, more: &[&str]) -> Process {
        let mut command = self.command(host, "tracker");
        command.args(["--json", "--certs", "certs"]).args(more);
        let process = Process::start(command);
        process.ready();
        process
    }

    /// A node that shares the files of [`Networked::share`].
    pub fn node(&self, host: &Host, tracker: &Host, more: &[&str]) -> Process {
        let mut command = self.command(host, "node");
        command
            .args(["--json", "--no-prompt", "--certs", "certs"])
            .args(["--tracker", &self.at(tracker)])
            .args(more);
        let process = Process::start(command);
        process.ready();
        process
    }

    /// Puts a file among the assets of a host.
    pub fn share(&self, host: &Host, name: &str, bytes: &[u8]) {
        files::put(&self.dir(host).join("assets").join(name), bytes);
    }

    /// Waits until a tracker lists a name.
    pub fn wait_listed(&self, tracker: &Host, name: &str) {
        eventually("the file is listed", || {
            let mut command = self.command(tracker, "ls");
            command.args(["--json", "--tracker", &self.at(tracker), name]);
            let ended = run(command);
            (ended.code == Some(0) && !ended.out.is_empty()).then_some(())
        });
    }

    /// `net --json` on a host.
    pub fn net(&self, host: &Host, tracker: &Host) -> Process {
        let mut command = self.command(host, "net");
        command.args(["--json", "--tracker", &self.at(tracker)]);
        let mut process = Process::start(command);
        process.end_input();
        process
    }

    /// The command of [`Networked::get`].
    pub fn get_command(&self, host: &Host, tracker: &Host, more: &[&str]) -> Command {
        let mut command = self.command(host, "get");
        command
            .args(["--json", "--force", "--tracker", &self.at(tracker)])
            .args(more);
        command
    }

    /// `get --json` on a host.
    pub fn get(&self, host: &Host, tracker: &Host, more: &[&str]) -> Process {
        let mut process = Process::start(self.get_command(host, tracker, more));
        process.end_input();
        process
    }
}

/// The paths on which a finished download came, most bytes first.
pub fn paths(report: &Value) -> Vec<String> {
    let sources = report["sources"].as_array().unwrap();
    let path = |source: &Value| source["path"].as_str().unwrap().to_owned();
    sources.iter().map(path).collect()
}
