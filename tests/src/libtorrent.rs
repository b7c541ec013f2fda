//! libtorrent for comparison, through Debian's Python bindings (`python3-libtorrent`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

/// The distribution's interpreter, which has the bindings; another one may come first in PATH.
pub const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("libtorrent_peer.py");

/// Returns whether the bindings are installed.
pub fn is_there() -> bool {
    let import = Command::new(PYTHON)
        .args(["-c", "import libtorrent"])
        .stderr(Stdio::null())
        .status();
    import.is_ok_and(|status| status.success())
}

/// Writes the script of a peer into a directory. It is run as `PYTHON SCRIPT seed TORRENT FILE` or
/// `PYTHON SCRIPT get TORRENT DIR PEER…`.
pub fn write_script(dir: &Path) -> io::Result<PathBuf> {
    let script = dir.join("peer.py");
    fs::write(&script, SCRIPT)?;
    Ok(script)
}
