//! Ctrl-C, SIGTERM and a closed terminal: the first one stops, the second one kills.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::terminal;

/// Listens from now on. The token is cancelled by the first signal; the second ends the process
/// at once.
pub(crate) fn stop_token() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if stopped.is_cancelled() {
                terminal::restore();
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
            stopped.cancel();
        }
    });
    Ok(stop)
}
