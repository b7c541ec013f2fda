//! Where the binary under test is, and how it is started without what the surroundings would say.

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

/// A command of the binary that sees nothing of the user's own settings: no `QSHARE_…`, and
/// `home` for a home. It leaves the local network alone.
pub fn command(home: &Path) -> Command {
    isolated(path(), home)
}

/// Any program, started as [`command`] starts the binary.
pub fn isolated(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    forget_surroundings(&mut command);
    command.env("HOME", home).current_dir(home);
    command
}

/// Takes from a command what the user's settings would say to the binary.
pub fn forget_surroundings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("QSHARE_") || text.starts_with("XDG_") || text == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    // Nobody on the network that this machine happens to be on has to do with a test.
    command.env("QSHARE_NO_LAN", "true");
}
