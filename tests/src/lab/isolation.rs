//! Private namespaces in which a network can be built and which no packet leaves.
//!
//! The program starts itself again through `unshare` (util-linux) and becomes process 1 of a
//! process namespace, with a mount and a network namespace of its own; an ordinary user gets a
//! user namespace around that. When it ends, however it ends, the kernel kills whatever it
//! started and takes the networks apart. When the process that started it is killed, it follows.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::process::{Signal, geteuid, getpid, getppid, set_parent_process_death_signal};

use super::error::LabError;
use super::namespace::NAMESPACES_DIR;

/// Environment variable of the isolated process. Only process 1 heeds it, since children inherit
/// it.
const INSIDE: &str = "QSHARE_LAB_INSIDE";
/// Longest duration of a test.
const TEST_DEADLINE: Duration = Duration::from_secs(180);

/// Why namespaces are unavailable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

/// Returns whether this is the isolated process.
pub fn is_inside() -> bool {
    getpid().is_init() && std::env::var_os(INSIDE).is_some()
}

/// Runs this program again in private namespaces, with these arguments and this process' standard
/// streams, and waits until it ends.
pub fn run_again<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<ExitStatus, Unavailable> {
    again(arguments)?
        .status()
        .map_err(|error| Unavailable(format!("unshare: {error}")))
}

/// Prepares the isolated process for building networks. Call it once.
pub fn prepare() -> Result<(), LabError> {
    if !is_inside() {
        return Err(LabError::Plan(
            "a network can only be built inside: isolation::run_again first".into(),
        ));
    }
    // An ordinary user cannot create the directory, but can mount over /run in its own namespace.
    let covered = match std::fs::create_dir_all(NAMESPACES_DIR) {
        Ok(()) => NAMESPACES_DIR,
        Err(_) => "/run",
    };
    mount("qshare-lab", covered, "tmpfs", MountFlags::empty(), None)
        .map_err(|error| LabError::system(format!("mount a tmpfs on {covered}"))(error.into()))?;
    std::fs::create_dir_all(NAMESPACES_DIR).map_err(LabError::system(NAMESPACES_DIR))
}

/// Returns a private directory in memory that vanishes with this process.
pub fn scratch_dir() -> io::Result<PathBuf> {
    let dir = Path::new(NAMESPACES_DIR).join(".scratch");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Runs the body of a test in private namespaces. It must be the only statement of a `#[test]`:
///
/// ```no_run
/// #[test]
/// fn hosts_reach_each_other() {
///     qshare_tests::lab::isolation::test(|| { /* build, ask, assert */ });
/// }
/// ```
///
/// Without namespaces the test prints `SKIPPED` and passes; with `CI=true` it fails.
///
/// # Panics
/// When the body panics, or takes longer than three minutes.
pub fn test<F: FnOnce()>(body: F) {
    if is_inside() {
        if let Err(error) = prepare() {
            panic!("{error}");
        }
        return body();
    }
    let name = test_name(std::any::type_name::<F>());
    let command = again([name, "--exact", "--nocapture", "--include-ignored"]);
    let mut command = match command {
        Ok(command) => command,
        Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{reason}"),
        Err(reason) => return eprintln!("{name} is SKIPPED: {reason}"),
    };
    match output_within(&mut command, TEST_DEADLINE) {
        Ok((status, said)) => {
            assert!(
                status.success() && said.contains("1 passed"),
                "{name} failed inside ({status}):\n{said}"
            );
            print!("{said}");
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// `lab::module::the_test::{{closure}}` → `module::the_test`, by which libtest knows it.
fn test_name(closure: &str) -> &str {
    let name = closure.trim_end_matches("::{{closure}}");
    name.split_once("::").map_or(name, |(_crate, name)| name)
}

/// Returns the output of both streams, once every process that has them open has ended.
fn output_within(command: &mut Command, deadline: Duration) -> io::Result<(ExitStatus, String)> {
    let (mut ours, theirs) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    let mut child = command.spawn()?;
    // The command holds copies of the writing end; the pipe ends only without them.
    *command = Command::new("true");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = ours.read_to_end(&mut said);
        let _ = sender.send(String::from_utf8_lossy(&said).into_owned());
    });
    let said = receiver.recv_timeout(deadline);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    match said {
        Ok(said) => Ok((status, said)),
        Err(_) => {
            let said = receiver.recv().unwrap_or_default();
            let message = format!("not done after {deadline:?}; so far:\n{said}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

fn again<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<Command, Unavailable> {
    let program = std::env::current_exe()
        .map_err(|error| Unavailable(format!("this program's path: {error}")))?;
    let mut command = unshare(works()?);
    command.arg(program).args(arguments).env(INSIDE, "1");
    let parent = getpid();
    // SAFETY: two system calls, which are all that may be done between fork and exec.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above.
            match getppid() == Some(parent) {
                true => Ok(()),
                false => Err(io::ErrorKind::BrokenPipe.into()),
            }
        });
    }
    Ok(command)
}

/// Returns whether a user namespace is needed.
fn works() -> Result<bool, Unavailable> {
    let mut reasons = Vec::new();
    let ways: &[bool] = match geteuid().is_root() {
        true => &[false, true],
        false => &[true],
    };
    for &with_user in ways {
        let tried = unshare(with_user).arg("true").output();
        match tried {
            Ok(output) if output.status.success() => return Ok(with_user),
            Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => reasons.push(format!("unshare: {error}")),
        }
    }
    Err(Unavailable(format!(
        "network namespaces need root, or user namespaces for everybody \
         (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): {}",
        reasons.join("; ")
    )))
}

fn unshare(with_user: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    if with_user {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_by_the_name_of_its_closure() {
        assert_eq!(test_name("lab::works::{{closure}}"), "works");
        assert_eq!(test_name("lab::nat::works::{{closure}}"), "nat::works");
    }
}
