//! Processes on loopback in one directory: a tracker, nodes, downloads.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::binary;
use crate::files;
use crate::process::{Ended, Process, run};
use crate::tracker_client::TrackerClient;

/// The directory of all processes of a test, removed when the value is dropped.
pub struct World {
    dir: TempDir,
}

impl World {
    /// Makes an empty directory.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> World {
        World {
            dir: tempfile::Builder::new()
                .prefix("qshare-e2e")
                .tempdir()
                .unwrap(),
        }
    }

    /// Returns a path in the world's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates a directory in the world's directory, if missing, and returns its path.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Returns a command of the binary that runs in the directory `place` of the world.
    pub fn command<I: AsRef<OsStr>>(
        &self,
        place: &str,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = binary::command(&self.dir(place));
        command.args(arguments);
        command
    }

    /// Starts a tracker on a port of the system's choice.
    pub fn tracker(&self) -> Tracker {
        self.tracker_with("tracker", "127.0.0.1:0", &[])
    }

    /// Starts a tracker with its identity in the directory `place` and more arguments.
    pub fn tracker_with(&self, place: &str, listen: &str, more: &[&str]) -> Tracker {
        let mut command = self.command(place, ["tracker", "--json", "--certs", "certs"]);
        command.args(["--listen", listen]).args(more);
        let process = Process::start(command);
        let ready = process.ready();
        let address = ready["listen"].as_str().unwrap().parse().unwrap();
        let id = ready["id"].as_str().unwrap().to_owned();
        Tracker {
            process,
            address,
            id,
        }
    }

    /// Returns the command of a node without a prompt, with its directories in `place`, on a port
    /// of the system's choice.
    pub fn node_command(&self, place: &str, tracker: SocketAddr) -> Command {
        self.command(place, node_arguments(tracker).as_slice())
    }

    /// Returns the command of a node with a prompt, with its directories in `place`, on a port of
    /// the system's choice.
    pub fn prompt_command(&self, place: &str, tracker: SocketAddr) -> Command {
        let tracker = tracker.to_string();
        let mut command = self.command(place, ["node", "--certs", "certs"]);
        command.args(["--listen", "127.0.0.1:0", "--tracker", &tracker]);
        command
    }

    /// Starts a node with its assets, downloads and identity in `place`.
    pub fn node(&self, place: &str, tracker: SocketAddr) -> Node {
        self.node_with(place, tracker, &[])
    }

    /// Starts a node with more arguments.
    pub fn node_with(&self, place: &str, tracker: SocketAddr, more: &[&str]) -> Node {
        let mut command = self.node_command(place, tracker);
        command.args(more);
        Node::start(command)
    }

    /// Writes a file into the assets of the node `place`.
    pub fn put(&self, place: &str, name: &str, bytes: &[u8]) {
        files::put(&self.asset(place, name), bytes);
    }

    /// Returns the path of a file in the assets of the node `place`.
    pub fn asset(&self, place: &str, name: &str) -> PathBuf {
        self.path(place).join("assets").join(name)
    }

    /// Returns the command `get --json` in the directory `place`.
    pub fn get_command(&self, place: &str, tracker: SocketAddr, arguments: &[&str]) -> Command {
        let tracker = tracker.to_string();
        let mut command = self.command(place, ["get", "--json", "--tracker", &tracker]);
        command.args(arguments);
        command
    }

    /// Starts `get --json` in the directory `place`.
    pub fn start_get(&self, place: &str, tracker: SocketAddr, arguments: &[&str]) -> Process {
        let mut process = Process::start(self.get_command(place, tracker, arguments));
        process.end_input();
        process
    }

    /// Runs `get --json` in the directory `place` to its end.
    pub fn get(&self, place: &str, tracker: SocketAddr, arguments: &[&str]) -> Ended {
        run(self.get_command(place, tracker, arguments))
    }

    /// Runs a command of the binary in the directory `place` to its end.
    pub fn run(&self, place: &str, arguments: &[&str]) -> Ended {
        run(self.command(place, arguments))
    }

    /// Returns a shell command of a line that the binary printed, in the directory `place`.
    pub fn shell(&self, place: &str, line: &str) -> Command {
        let mut command = binary::isolated(Path::new("sh"), &self.dir(place));
        command.args(["-c", &format!("exec {line}")]);
        command
    }
}

/// Makes a world with `count` nodes that share the same bytes under the same name. Returns once the
/// tracker lists all of them.
pub fn swarm(count: usize, name: &str, bytes: &[u8]) -> (World, Tracker, Vec<Node>) {
    let world = World::new();
    let tracker = world.tracker();
    let share = |number: usize| {
        let place = format!("node-{number}");
        world.put(&place, name, bytes);
        world.node(&place, tracker.address)
    };
    let nodes = (0..count).map(share).collect();
    tracker.client().until_complete(name, count as u32);
    (world, tracker, nodes)
}

fn node_arguments(tracker: SocketAddr) -> [String; 9] {
    let tracker = tracker.to_string();
    let words = [
        "node",
        "--json",
        "--no-prompt",
        "--certs",
        "certs",
        "--listen",
        "127.0.0.1:0",
        "--tracker",
        &tracker,
    ];
    words.map(str::to_owned)
}

/// A running tracker.
pub struct Tracker {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
    /// Its id.
    pub id: String,
}

impl Tracker {
    /// Connects a client to it.
    pub fn client(&self) -> TrackerClient {
        TrackerClient::connect(self.address, None)
    }
}

/// A running node.
pub struct Node {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
    /// Its id.
    pub id: String,
}

impl Node {
    /// Starts a node by a command that contains `--json`, and waits until it is ready.
    pub fn start(command: Command) -> Node {
        let process = Process::start(command);
        let ready = process.ready();
        let address = ready["listen"].as_str().unwrap().parse().unwrap();
        let id = ready["id"].as_str().unwrap().to_owned();
        Node {
            process,
            address,
            id,
        }
    }
}
