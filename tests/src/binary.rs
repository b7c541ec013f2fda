//! The path of the program under test, and commands that ignore the environment of the tests.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of the binary. Cargo has built it for a test of the package `qshare` and says where it
/// is; anything else builds it, once in each process, so that it is never older than its sources.
pub fn path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match env::var_os("CARGO_BIN_EXE_qshare") {
        Some(built) => built.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // A test runs from TARGET/PROFILE/deps.
    let test = env::current_exe().unwrap();
    let out = test.parent().and_then(Path::parent).unwrap();
    let target = out.parent().unwrap();
    let profile = match out.file_name().and_then(|name| name.to_str()).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "-p", "qshare", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(built.success(), "the binary does not build");
    out.join("qshare")
}

/// Returns a command of the program without the user's settings: no `QSHARE_…`, the home directory
/// `home`, and no discovery on the local network.
pub fn command(home: &Path) -> Command {
    isolated(path(), home)
}

/// Returns a command of any program, isolated as by [`command`].
pub fn isolated(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    forget_surroundings(&mut command);
    command.env("HOME", home).current_dir(home);
    command
}

/// Removes the user's settings from the environment of a command.
pub fn forget_surroundings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("QSHARE_") || text.starts_with("XDG_") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    // A test must not talk to nodes on the network of this machine.
    command.env("QSHARE_NO_LAN", "true");
}
