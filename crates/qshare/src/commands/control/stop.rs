//! `qshare stop`: stop the running node.

use std::time::Duration;

use tokio::time::timeout;

use super::connect;
use crate::args::StopArgs;
use crate::commands::run_on_network;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::neutral::shown;

/// A node stops within 5 s.
const STOP_MAX: Duration = Duration::from_secs(15);

pub(crate) fn run(args: StopArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|interrupted| async move {
        let client = connect(&args.control).await?;
        let process = client.status().await.map_err(messages::client)?.pid;
        let was_running = client.stop().await.map_err(messages::client)?;
        if !was_running {
            console.note("the node is stopping already");
        }
        let gone = timeout(STOP_MAX, client.until_gone(process));
        match interrupted.run_until_cancelled(gone).await {
            None => Err(Failure::new(
                Exit::Interrupted,
                "the node is still stopping",
            )),
            Some(Ok(())) => {
                console.note("the node has stopped");
                Ok(())
            }
            Some(Err(_)) => Err(Failure::new(
                Exit::Failed,
                format!(
                    "the node did not stop within {} s; it still listens on {}",
                    STOP_MAX.as_secs(),
                    shown(client.path())
                ),
            )),
        }
    })
}
