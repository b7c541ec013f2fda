//! What needs root: small file systems, network namespaces.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Reports why a test is skipped. With `CI=true` it panics, since CI must not skip tests.
/// // # Panics
/// // With `CI=true`.
pub fn skip(reason: &str) {
    let on_ci = env::var("CI").is_ok_and(|value| value == "true");
    assert!(!on_ci, "CI may not skip this: {reason}");
    eprintln!("skipped: {reason}");
}

/// A small tmpfs, unmounted when the value is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one over an existing directory. Returns None without the permission to mount.
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
        // Lazily, since processes that are ending may still have files open there.
        succeeds(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

/// A network namespace with an address besides loopback, deleted when the value is dropped.
pub struct Namespace(String);

impl Namespace {
    /// Makes one with the address `10.89.0.1`. Returns None without the permission to.
    pub fn new(name: &str) -> Option<Namespace> {
        let name = format!("{name}-{}", std::process::id());
        if !succeeds(Command::new("ip").args(["netns", "add", &name])) {
            return None;
        }
        let namespace = Namespace(name);
        // Both ends of the veth pair are inside: not every kernel has dummy interfaces.
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

    /// Returns the command, changed to run in this namespace.
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

/// Returns whether this process runs as root, whom mode bits do not restrict.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}
