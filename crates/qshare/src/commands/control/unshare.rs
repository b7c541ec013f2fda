//! `qshare unshare`: end shares that were handed to the running node.

use super::connect;
use crate::args::UnshareArgs;
use crate::commands::run_on_network;
use crate::console::Console;
use crate::control::choose_shares;
use crate::exit::Failure;
use crate::messages;
use crate::output;

pub(crate) fn run(args: UnshareArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|_| async move {
        let client = connect(&args.control).await?;
        let shares = client.handed_shares().await.map_err(messages::client)?;
        let chosen = match args.all {
            true => shares.iter().collect(),
            false => choose_shares(&shares, &args.shares).map_err(messages::no_share)?,
        };
        let mut ended = 0;
        for share in chosen {
            let id = share.id.as_deref().unwrap_or_default();
            ended += client.unshare(id).await.map_err(messages::client)?;
            if args.json.on {
                console.json(share)?;
            }
        }
        console.note(&format!("ended {}", output::count(ended as u64, "share")));
        Ok(())
    })
}
