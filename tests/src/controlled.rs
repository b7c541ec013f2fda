//! Nodes of one user, and the commands that control them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::{Ended, eventually, run};
use crate::world::{Node, Tracker, World};

/// A tracker, a user, and nodes whose control sockets are in the runtime directory `run`.
pub struct Controlled {
    /// Its directories.
    pub world: World,
    /// Its tracker.
    pub tracker: Tracker,
}

impl Controlled {
    /// Makes a world with a tracker.
    pub fn new() -> Controlled {
        let world = World::new();
        let tracker = world.tracker();
        Controlled { world, tracker }
    }

    /// Returns the directory of the control sockets.
    pub fn runtime_dir(&self) -> PathBuf {
        self.world.dir("run")
    }

    /// Returns the command of a node without a prompt, with its directories in `place`.
    pub fn node_command(&self, place: &str) -> Command {
        let mut command = self.world.node_command(place, self.tracker.address);
        command
            .arg("--no-lan")
            .env("XDG_RUNTIME_DIR", self.runtime_dir());
        command
    }

    /// Starts a node with its directories in `place`.
    pub fn node(&self, place: &str) -> Node {
        self.node_with(place, &[])
    }

    /// Starts a node with more arguments.
    pub fn node_with(&self, place: &str, more: &[&str]) -> Node {
        let mut command = self.node_command(place);
        command.args(more);
        Node::start(command)
    }

    /// Returns a command of the user who runs the nodes, in the directory `user`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command("user", arguments);
        command
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .env("QSHARE_TRACKER", self.tracker.address.to_string());
        command
    }

    /// Runs a command of the user to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments))
    }

    /// Stops a node as its user does.
    pub fn stop(&self, node: Node) {
        self.run(&["stop"]).well();
        node.process.end().with(0);
    }

    /// Returns the report of `status --json`.
    pub fn report(&self) -> Value {
        self.run(&["status", "--json"]).well().json().remove(0)
    }

    /// Returns the downloads of the report.
    pub fn downloads(&self) -> Vec<Value> {
        self.report()["downloads"].as_array().unwrap().clone()
    }

    /// Returns the handed-over shares of the report.
    pub fn shares(&self) -> Vec<Value> {
        self.report()["shares"].as_array().unwrap().clone()
    }

    /// Returns the download of this name, if it is listed.
    pub fn download(&self, name: &str) -> Option<Value> {
        let mut downloads = self.downloads().into_iter();
        downloads.find(|download| download["name"] == name)
    }

    /// Waits until a download is in a stage, and returns it.
    pub fn until_stage(&self, name: &str, stage: &str) -> Value {
        eventually(&format!("{name} is {stage}"), || {
            self.download(name)
                .filter(|download| download["stage"] == stage)
        })
    }

    /// Waits until so much of a download is verified.
    pub fn until_verified(&self, name: &str, bytes: usize) {
        eventually(&format!("{bytes} bytes of {name}"), || {
            let download = self.download(name)?;
            (download["verified_bytes"].as_u64()? >= bytes as u64).then_some(())
        });
    }
}

impl Default for Controlled {
    fn default() -> Controlled {
        Controlled::new()
    }
}
