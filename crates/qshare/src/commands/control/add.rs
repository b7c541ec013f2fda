//! `qshare add`: add downloads to the running node.

use super::connect;
use super::table::one_line;
use crate::api::objects::{Add, Added};
use crate::args::AddArgs;
use crate::commands::run_on_network;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;

pub(crate) fn run(args: AddArgs, console: &Console) -> Result<(), Failure> {
    if args.name.is_some() && args.wanted.len() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            "--name is for one file or folder\nRun the command once for each",
        ));
    }
    run_on_network(|stop| async move {
        let client = connect(&args.control).await?;
        let mut worst = None;
        for what in args.wanted {
            let add = Add {
                what,
                name: args.name.clone(),
                force: args.force.then_some(true),
                paused: args.paused.then_some(true),
                priority: None,
                include: (!args.include.is_empty()).then(|| args.include.clone()),
                exclude: (!args.exclude.is_empty()).then(|| args.exclude.clone()),
            };
            let added = stop.run_until_cancelled(client.add(&add)).await;
            let Some(added) = added else {
                return Err(Failure::new(
                    Exit::Interrupted,
                    "interrupted; the node may have added it",
                ));
            };
            match added.map_err(messages::client) {
                Ok(added) => print(&added, args.json.on, console)?,
                // The others are added all the same.
                Err(Failure { exit, message }) => {
                    console.error(&message);
                    worst = worst.max(Some(exit));
                }
            }
        }
        worst.map_or(Ok(()), |exit| Err(Failure::printed(exit)))
    })
}

fn print(added: &Added, json: bool, console: &Console) -> Result<(), Failure> {
    for download in &added.downloads {
        match json {
            true => console.json(download)?,
            false => console.result(&one_line(download))?,
        }
    }
    for skipped in &added.skipped {
        console.note(&format!("skipped: {skipped}"));
    }
    Ok(())
}
