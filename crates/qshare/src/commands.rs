//! The subcommands, one module each, and the runtime of those that use the network.

pub(crate) mod cat;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod demo;
pub(crate) mod forget;
pub(crate) mod get;
pub(crate) mod group;
pub(crate) mod hash;
pub(crate) mod id;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod share;
pub(crate) mod tracker;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::{signals, terminal};

/// Deadline for abandoned blocking work after a command has finished.
const LEFTOVERS_MAX: Duration = Duration::from_millis(500);

/// Niceness of blocking threads, which read, hash and write; the network thread keeps 0. Threads
/// that they start, such as the library's, inherit it.
#[cfg(target_os = "linux")]
const BLOCKING_NICE: i32 = 5;

/// Lowers the priority of this blocking thread below the network thread's. Packets that wait in the
/// socket stall the peer, and no window is large enough to bridge the time that hashing a megabyte
/// takes.
fn yield_to_network() {
    // On Linux niceness is per thread; elsewhere it would apply to the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(BLOCKING_NICE);
}

/// Runs a command on a network runtime on this thread. The first signal cancels its token.
fn run_on_network<F>(command: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let failed = |error| {
        Failure::new(
            Exit::Failed,
            format!("cannot start the network runtime: {error}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(yield_to_network)
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(async {
        let stop = signals::stop_token().map_err(failed)?;
        command(stop).await
    });
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    terminal::restore();
    result
}
