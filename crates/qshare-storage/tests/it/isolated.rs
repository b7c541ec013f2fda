//! Runs a test's body in a process of its own: in a mount or user namespace, as another user, or
//! with few file descriptors.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::process::Command;

/// Environment variable that is set in the process that runs the body.
const INSIDE: &str = "QSHARE_STORAGE_TEST_INSIDE";

/// The environment in which the body runs.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In its own mount namespace, with permission to mount.
    MountNamespace,
    /// In its own user namespace, which has its own limits.
    UserNamespace,
    /// As a user without root's permission to read every file.
    OrdinaryUser,
    /// With at most this many file descriptors.
    Descriptors(u32),
}

/// Runs `body` in `place`. If the machine cannot provide `place`, the test prints SKIPPED and
/// passes; with `CI=true` it fails. The call must be the only statement of a `#[test]`.
pub(crate) fn test<F: FnOnce()>(place: Place, body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    // libtest knows `it::module::the_test::{{closure}}` as `module::the_test`.
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").map_or(name, |(_crate, name)| name);
    let Some(launcher) = launcher(place) else {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{name} cannot run here");
        return eprintln!("{name} is SKIPPED: it needs root or user namespaces");
    };
    let (program, arguments) = launcher.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name} failed inside ({}):\n{said}",
        output.status
    );
}

/// Returns a program, with arguments, that runs another program in `place`. Returns None if no
/// such program works here.
fn launcher(place: Place) -> Option<Vec<String>> {
    let is_root = rustix::process::geteuid().is_root();
    let candidates: Vec<Vec<String>> = match place {
        Place::MountNamespace => vec![
            words("unshare --mount"),
            words("unshare --user --map-root-user --mount"),
        ],
        Place::UserNamespace => vec![words("unshare --user --map-root-user --mount")],
        Place::OrdinaryUser if !is_root => vec![words("env")],
        Place::OrdinaryUser => {
            vec![words("setpriv --reuid 65534 --regid 65534 --clear-groups")]
        }
        Place::Descriptors(count) => {
            let script = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
            vec![vec!["sh".into(), "-c".into(), script]]
        }
    };
    candidates.into_iter().find(|launcher| {
        let (program, arguments) = launcher.split_first().unwrap();
        let tried = Command::new(program).args(arguments).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
