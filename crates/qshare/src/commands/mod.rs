//! One file a subcommand, and the runtime that those on the network run on.

pub(crate) mod demo;
pub(crate) mod forget;
pub(crate) mod get;
pub(crate) mod group;
pub(crate) mod hash;
pub(crate) mod id;
pub(crate) mod ls;
pub(crate) mod net;
pub(crate) mod node;
pub(crate) mod tracker;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::{signals, terminal};

/// After the command is done, this long is waited for blocking work that was given up.
const LEFTOVERS_MAX: Duration = Duration::from_millis(500);

/// By how much threads that read, hash and write are nicer than the network's; those that they start, as
/// the library's, inherit it.
#[cfg(target_os = "linux")]
const BLOCKING_NICE: i32 = 5;

/// Lets the thread of the network run first. Packets that it leaves lying hold up the other side, and no
/// window is large enough to bridge the time that a megabyte of hashing takes.
fn yield_to_network() {
    // There a priority is a thread's own; elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(BLOCKING_NICE);
}

/// Runs a command on the network, on this thread. Its token is cancelled by the first signal.
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
