//! A network namespace, and commands that run in it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::LabError;

/// The directory in which `ip netns` finds namespaces.
pub(crate) const NAMESPACES_DIR: &str = "/run/netns";

/// A network namespace with a name, as `ip netns` uses it.
#[derive(Debug, Clone)]
pub(crate) struct Namespace(Arc<Named>);

#[derive(Debug)]
struct Named {
    name: String,
    handle: File,
}

impl Drop for Named {
    /// Removes the name; the namespace ends with the last process and socket in it.
    fn drop(&mut self) {
        let path = path(&self.name);
        let _ = unmount(&path, UnmountFlags::DETACH);
        let _ = std::fs::remove_file(&path);
    }
}

fn path(name: &str) -> String {
    format!("{NAMESPACES_DIR}/{name}")
}

impl Namespace {
    /// Creates one with loopback up and without duplicate address detection.
    pub(crate) fn create(name: &str) -> Result<Namespace, LabError> {
        let path = path(name);
        let what = || LabError::system(format!("make the network namespace {name}"));
        let handle = std::thread::scope(|scope| {
            let made = scope.spawn(|| -> io::Result<File> {
                File::create_new(&path)?;
                // SAFETY: only CLONE_FILES would be unsafe, and it is not asked for.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
                mount_bind("/proc/thread-self/ns/net", &path)?;
                File::open(&path)
            });
            made.join()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        let namespace = Namespace(Arc::new(Named {
            name: name.to_owned(),
            handle: handle.map_err(what())?,
        }));
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs a closure on a thread in the namespace. Sockets that it opens stay in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Returns the command of a program that will run in the namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = self.clone();
        // SAFETY: one system call on a handle that the closure owns.
        unsafe {
            command.pre_exec(move || namespace.enter());
        }
        command
    }

    fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.handle.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Runs lines of `ip -batch` in the namespace.
    pub(crate) fn ip(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("ip").args(["-batch", "-"]), lines)
    }

    /// Runs lines of `ip -4 -batch` in the namespace.
    pub(crate) fn ip4(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("ip").args(["-4", "-batch", "-"]), lines)
    }

    /// Runs lines of `ip -6 -batch` in the namespace.
    pub(crate) fn ip6(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("ip").args(["-6", "-batch", "-"]), lines)
    }

    /// Runs lines of `bridge -batch` in the namespace.
    pub(crate) fn bridge(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("bridge").args(["-batch", "-"]), lines)
    }

    /// Runs lines of `tc -batch` in the namespace.
    pub(crate) fn tc(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("tc").args(["-batch", "-"]), lines)
    }

    /// Runs lines of `nft` in the namespace.
    pub(crate) fn nft(&self, lines: &str) -> Result<(), LabError> {
        run(self.command("nft").args(["-f", "-"]), lines)
    }

    /// Limits bundles on this interface to single packets, as on a wire, or to a number of bytes: a
    /// shaper would otherwise work on 64 KiB at once. Received packets are never merged.
    pub(crate) fn limit_bundles(
        &self,
        interface: &str,
        max_bytes: Option<u64>,
    ) -> Result<(), LabError> {
        let mut ethtool = self.command("ethtool");
        ethtool.args(["-K", interface, "gro", "off"]);
        if let Some(max_bytes) = max_bytes {
            run(&mut ethtool, "")?;
            return self.ip(&format!("link set {interface} gso_max_size {max_bytes}\n"));
        }
        ethtool.args(["tso", "off", "gso", "off", "tx-udp-segmentation", "off"]);
        run(&mut ethtool, "")
    }

    /// Sets values below /proc/sys/net.
    pub(crate) fn set(&self, values: &[(&str, &str)]) -> Result<(), LabError> {
        for (name, value) in values {
            let path = format!("/proc/sys/net/{name}");
            self.inside(|| std::fs::write(&path, value))
                .flatten()
                .map_err(LabError::system(format!("set {path} to {value}")))?;
        }
        Ok(())
    }
}

fn run(command: &mut Command, input: &str) -> Result<(), LabError> {
    let shown = || {
        let program = command.get_program().to_string_lossy();
        let arguments = command.get_args().map(|arg| arg.to_string_lossy());
        std::iter::once(program)
            .chain(arguments)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let what = shown();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => missing(command),
            _ => LabError::system(what.clone())(source),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A write error is explained by the program's own output, below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(LabError::system(what.clone()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Command {
        command: what,
        message: format!("{}\n{input}", said.trim()),
    })
}

fn missing(command: &Command) -> LabError {
    let program = command.get_program().to_string_lossy().into_owned();
    LabError::MissingProgram {
        package: match program.as_str() {
            "nft" => "nftables",
            "ethtool" => "ethtool",
            _ => "iproute2",
        },
        program,
    }
}
