//! Ctrl-C, SIGTERM and SIGHUP: the first signal stops the command, the second one ends the process.

use std::io;
use std::mem::MaybeUninit;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::terminal;

/// Starts to listen for signals. The first one cancels the token; the second one ends the process
/// at once. A signal that was ignored when the process started stays ignored, as `nohup` and
/// shells that start a job in the background rely on.
pub(crate) fn stop_token() -> io::Result<CancellationToken> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = next(&mut interrupt) => {}
                () = next(&mut terminate) => {}
                () = next(&mut hang_up) => {}
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

/// Listens for a signal; None if it is ignored.
fn listen(kind: SignalKind) -> io::Result<Option<Signal>> {
    match is_ignored(kind) {
        true => Ok(None),
        false => signal(kind).map(Some),
    }
}

/// Waits for the next signal. Stays pending if the signal is ignored.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Returns whether the process ignores a signal.
fn is_ignored(kind: SignalKind) -> bool {
    let mut current = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null pointer for the new action only asks for the current one, for which there is
    // room.
    let failed = unsafe {
        libc::sigaction(kind.as_raw_value(), std::ptr::null(), current.as_mut_ptr()) != 0
    };
    // SAFETY: it was zeroed, which is a valid value for this struct of integers and pointers.
    let current = unsafe { current.assume_init() };
    !failed && current.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_told_from_others() {
        // Rust's runtime ignores SIGPIPE at the start and leaves SIGTERM alone.
        assert!(is_ignored(SignalKind::pipe()));
        assert!(!is_ignored(SignalKind::terminate()));
    }
}
