//! The control socket: where it is, and who may use it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use qshare_node::content::NodeId;
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};

use crate::neutral::shown;

/// The directory in the user's runtime directory.
const DIR: &str = "qshare";
/// Ending of the file name; before it is the node's ID.
pub(crate) const SUFFIX: &str = ".sock";
/// Where a system service has its socket, if the unit says `RuntimeDirectory=qshare`.
const SYSTEM_DIR: &str = "/run/qshare";
const ROOT: u32 = 0;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("{}: a running program listens on it", shown(.0))]
    InUse(PathBuf),
    #[error("{}: it belongs to another user", shown(.0))]
    NotOurs(PathBuf),
    #[error("{}: a file that is no socket is there", shown(.0))]
    NotASocket(PathBuf),
    #[error("{}: everybody may write into this directory", shown(.0))]
    OpenDirectory(PathBuf),
    #[error("{}: {cause}", shown(.path))]
    Io { path: PathBuf, cause: io::Error },
}

/// Returns where a node's socket belongs; None if the system has no place for it.
pub(crate) fn place(given: Option<&Path>, node: &NodeId) -> Option<PathBuf> {
    match given {
        Some(path) => Some(path.to_owned()),
        None => {
            let file = format!("{node}{SUFFIX}");
            own_dirs().into_iter().next().map(|dir| dir.join(file))
        }
    }
}

/// Returns the directories in which a command looks for sockets.
pub(crate) fn dirs() -> Vec<PathBuf> {
    let mut dirs = own_dirs();
    dirs.push(SYSTEM_DIR.into());
    dirs.dedup();
    dirs
}

/// Returns the directories that the system made for this user or this service.
fn own_dirs() -> Vec<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let user = std::env::var_os("XDG_RUNTIME_DIR").and_then(absolute);
    let service = std::env::var_os("RUNTIME_DIRECTORY");
    // Several directories are separated by colons: see systemd.exec(5).
    let service = service.and_then(|dirs| std::env::split_paths(&dirs).next());
    let service = service.filter(|dir| dir.is_absolute());
    user.map(|dir| dir.join(DIR))
        .into_iter()
        .chain(service)
        .collect()
}

/// A bound control socket. Its file is removed when the value is dropped.
pub(crate) struct ControlSocket {
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl ControlSocket {
    /// Binds the socket. The caller holds the lock of the node's identity, so a socket on which
    /// nobody listens was left by a crash, and is replaced.
    pub(crate) fn bind(path: &Path) -> Result<(ControlSocket, UnixListener), SocketError> {
        let failed = |cause| SocketError::Io {
            path: path.to_owned(),
            cause,
        };
        prepare_dir(path)?;
        match fs::symlink_metadata(path) {
            Ok(found) => remove_dead(path, &found)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let file = identity(&fs::symlink_metadata(path).map_err(failed)?);
        let path = path.to_owned();
        Ok((ControlSocket { path, file }, listener))
    }
}

impl ControlSocket {
    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let is_ours = |found: &Metadata| identity(found) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| is_ours(&found)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Makes the last directory with mode 0700 if it is missing, and checks that no other user can put
/// a socket there.
fn prepare_dir(path: &Path) -> Result<(), SocketError> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new("."));
    let failed = |cause| SocketError::Io {
        path: dir.to_owned(),
        cause,
    };
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let found = fs::metadata(dir).map_err(failed)?;
    let us = geteuid().as_raw();
    if found.uid() != us && found.uid() != ROOT {
        return Err(SocketError::NotOurs(dir.to_owned()));
    }
    if found.mode() & 0o002 != 0 {
        return Err(SocketError::OpenDirectory(dir.to_owned()));
    }
    // Others have no business in the directory that holds nothing but these sockets.
    if dir.ends_with(DIR) && found.uid() == us && found.mode() & 0o077 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// Removes a socket of this user on which nobody listens.
fn remove_dead(path: &Path, found: &Metadata) -> Result<(), SocketError> {
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(SocketError::NotOurs(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|cause| SocketError::Io {
                path: path.to_owned(),
                cause,
            }),
        // It takes no connections at the moment, but somebody listens.
        Ok(_) | Err(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Returns whether the other side of a connection is this user or root.
pub(crate) fn is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let them = stream.peer_cred()?.uid();
    Ok(them == geteuid().as_raw() || them == ROOT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    fn inside(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("qshare/node.sock")
    }

    #[tokio::test]
    async fn a_socket_is_private_and_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = inside(&dir);
        let (socket, _listener) = ControlSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_may_read_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = inside(&dir);
        let parent = path.parent().unwrap();
        fs::create_dir(parent).unwrap();
        fs::set_permissions(parent, Permissions::from_mode(0o755)).unwrap();
        let _socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(
            fs::metadata(parent).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[tokio::test]
    async fn a_socket_that_a_crash_left_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = inside(&dir);
        fs::create_dir(path.parent().unwrap()).unwrap();
        // Dropping a listener of the standard library leaves the file.
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_first, _listener) = ControlSocket::bind(&path).unwrap();
        let second = ControlSocket::bind(&path);
        assert!(matches!(second, Err(SocketError::InUse(_))));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "mine").unwrap();
        let bound = ControlSocket::bind(&path);
        assert!(matches!(bound, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_directory_in_which_everybody_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let bound = ControlSocket::bind(&dir.path().join("node.sock"));
        assert!(matches!(bound, Err(SocketError::OpenDirectory(_))));
    }

    #[tokio::test]
    async fn both_sides_trust_their_own_user() {
        let (one, other) = UnixStream::pair().unwrap();
        assert!(is_trusted(&one).unwrap() && is_trusted(&other).unwrap());
    }
}
