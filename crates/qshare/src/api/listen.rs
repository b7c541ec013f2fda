//! The control socket as a door for HTTP: it is open to this user and to root.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::socket::is_trusted;
use crate::http::Door;

impl Door for UnixListener {
    type Accepted = UnixStream;
    type Stream = UnixStream;

    /// A trusted user's command may be stopped (Ctrl-Z) and go on tomorrow.
    const WRITE_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

    async fn accept(&self) -> io::Result<(UnixStream, IpAddr)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((stream, Ipv4Addr::LOCALHOST.into()))
    }

    async fn open(&self, accepted: UnixStream) -> io::Result<UnixStream> {
        match is_trusted(&accepted)? {
            true => Ok(accepted),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user's",
            )),
        }
    }
}
