//! What only root may do: small file systems, addresses of one's own.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Says why a test does less than it could, and returns; where tests must not be skipped
/// (`CI=true`) it fails.
pub fn skip(reason: &str) {
    let on_ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(!on_ci, "CI may not skip this: {reason}");
    eprintln!("skipped: {reason}");
}

/// A small file system in memory, unmounted with the value.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one over an existing directory; None without the right to.
    pub fn mount(dir: &Path, megabytes: u32) -> Option<SmallDisk> {
        let size = format!("size={megabytes}m");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &size, "qshare-test"])
            .arg(dir);
        succeeds(&mut mount).then(|| SmallDisk(dir.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there is on its way out.
        succeeds(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// A network namespace with an address that is not loopback's, gone with the value.
pub struct Namespace(String);

impl Namespace {
    /// Makes one; None without the right to. It has the address `10.89.0.1`.
    pub fn new(name: &str) -> Option<Namespace> {
        let name = format!("{name}-{}", std::process::id());
        if !succeeds(Command::new("ip").args(["netns", "add", &name])) {
            return None;
        }
        let namespace = Namespace(name);
        // A pair both of whose ends are in here: not every kernel has dummy interfaces.
        let steps: [&[&str]; 5] = [
            &["link", "set", "lo", "up"],
            &[
                "link", "add", "alone", "type", "veth", "peer", "name", "other",
            ],
            &["address", "add", "10.89.0.1/24", "dev", "alone"],
            &["link", "set", "alone", "up"],
            &["link", "set", "other", "up"],
        ];
        let ready = steps
            .iter()
            .all(|step| succeeds(Command::new("ip").args(["-n", &namespace.0]).args(*step)));
        ready.then_some(namespace)
    }

    /// The same command, run in here.
    pub fn command(&self, inside: &Command) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0])
            .arg(inside.get_program());
        command.args(inside.get_args());
        for (name, value) in inside.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = inside.get_current_dir() {
            command.current_dir(dir);
        }
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        succeeds(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Whether this process is root's; what mode bits forbid is allowed to it.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}
