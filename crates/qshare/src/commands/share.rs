//! `qshare share`: share files and folders from where they lie, by the running node or in the
//! foreground.

mod foreground;
mod hand_over;
mod hash;
mod http;
mod live;
mod present;
mod qr;
mod report;
mod spool;

use std::path::PathBuf;

use qshare_node::NodeConfig;
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::args::ShareArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::sharing::SharedPath;

/// The argument that stands for standard input.
const STDIN: &str = "-";

pub(crate) fn run(args: ShareArgs, console: &Console) -> Result<(), Failure> {
    if reads_stdin(&args)? {
        let config = args.node_config()?;
        return run_on_network(|stop| share_stdin(args, config, console, stop));
    }
    let paths = paths_of(&args)?;
    let config = args.node_config()?;
    run_on_network(|stop| async move {
        let group = config.group.as_ref();
        match hand_over::node_for(&args, group, console).await? {
            Some(client) => hand_over::run(&client, &args, &paths, console, &stop).await,
            None => foreground::run(args, paths, config, console, stop).await,
        }
    })
}

/// Whether standard input is shared.
fn reads_stdin(args: &ShareArgs) -> Result<bool, Failure> {
    if !args.paths.iter().any(|path| path.as_os_str() == STDIN) {
        return Ok(false);
    }
    let problem = match (args.paths.len(), &args.name) {
        (1, Some(_)) => return Ok(true),
        (1, None) => "standard input has no name\nGive it one: --name NAME",
        _ => "standard input can only be shared alone\nShare the files by another command",
    };
    Err(Failure::new(Exit::Usage, problem))
}

async fn share_stdin(
    args: ShareArgs,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let interrupted = || Failure::printed(Exit::Interrupted);
    let spooled = stop.run_until_cancelled(spool::spool(&args, console)).await;
    let spooled = spooled.ok_or_else(interrupted)??;
    let path = SharedPath::new(spooled.path(), args.name.clone());
    let paths = vec![path.map_err(messages::not_shareable)?];
    foreground::run(args, paths, config, console, stop).await
}

/// Checks the paths before anything is hashed or announced.
fn paths_of(args: &ShareArgs) -> Result<Vec<SharedPath>, Failure> {
    if args.name.is_some() && args.paths.len() > 1 {
        let problem = "--name is for one file, and there are several";
        return Err(Failure::new(
            Exit::Usage,
            format!("{problem}\nShare them one by one"),
        ));
    }
    let looked_at = |path: &PathBuf| SharedPath::new(path, args.name.clone());
    let paths = args.paths.iter().map(looked_at);
    paths
        .map(|path| path.map_err(messages::not_shareable))
        .collect()
}
