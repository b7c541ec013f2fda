//! Trackers, nodes and downloads of the real program on hosts of the network lab.

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

/// Port of every tracker.
pub const TRACKER_PORT: u16 = 65000;

/// The directory of all hosts' files, removed when the value is dropped.
pub struct Networked {
    dir: TempDir,
    program: PathBuf,
    tracker_at: Option<IpAddr>,
}

impl Networked {
    /// Makes a directory in the temporary directory. `program` is what every host runs.
    pub fn new(program: PathBuf) -> Networked {
        Networked::within(&std::env::temp_dir(), program)
    }

    /// Makes a directory in `place`. `program` is what every host runs.
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

    /// Sets the address at which nodes reach trackers, in place of the tracker host's IPv4 address.
    pub fn tracker_at(mut self, address: IpAddr) -> Networked {
        self.tracker_at = Some(address);
        self
    }

    fn at(&self, tracker: &Host) -> String {
        let address = self.tracker_at.unwrap_or(tracker.address().into());
        SocketAddr::new(address, TRACKER_PORT).to_string()
    }

    /// Returns the directory of a host.
    pub fn dir(&self, host: &Host) -> PathBuf {
        let dir = self.dir.path().join(host.name());
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Returns a command of the program on a host.
    pub fn command(&self, host: &Host, subcommand: &str) -> Command {
        let dir = self.dir(host);
        let mut command = host.command(&self.program);
        binary::forget_surroundings(&mut command);
        command.env("HOME", &dir).current_dir(&dir);
        command.arg(subcommand);
        command
    }

    /// Starts a tracker on all addresses of a host.
    pub fn tracker(&self, host: &Host, more: &[&str]) -> Process {
        let mut command = self.command(host, "tracker");
        command.args(["--json", "--certs", "certs"]).args(more);
        let process = Process::start(command);
        process.ready();
        process
    }

    /// Starts a node that shares the files added by [`Networked::share`].
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

    /// Writes a file into the assets of a host.
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

    /// Starts `net --json` on a host.
    pub fn net(&self, host: &Host, tracker: &Host) -> Process {
        let mut command = self.command(host, "net");
        command.args(["--json", "--tracker", &self.at(tracker)]);
        let mut process = Process::start(command);
        process.end_input();
        process
    }

    /// Returns the command `get --json` on a host.
    pub fn get_command(&self, host: &Host, tracker: &Host, more: &[&str]) -> Command {
        let mut command = self.command(host, "get");
        command
            .args(["--json", "--force", "--tracker", &self.at(tracker)])
            .args(more);
        command
    }

    /// Starts `get --json` on a host.
    pub fn get(&self, host: &Host, tracker: &Host, more: &[&str]) -> Process {
        let mut process = Process::start(self.get_command(host, tracker, more));
        process.end_input();
        process
    }
}

/// Returns the kinds of path that a finished download used, most bytes first.
pub fn paths(report: &Value) -> Vec<String> {
    let sources = report["sources"].as_array().unwrap();
    let path = |source: &Value| source["path"].as_str().unwrap().to_owned();
    sources.iter().map(path).collect()
}
