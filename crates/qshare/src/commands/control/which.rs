//! `qshare pause`, `resume` and `remove`: downloads of the running node that are named, or all.

use super::connect;
use crate::api::objects::{Remove, Which};
use crate::args::{ControlArg, PauseArgs, RemoveArgs, ResumeArgs, WhichArg};
use crate::commands::run_on_network;
use crate::console::Console;
use crate::control::{Client, ClientError, choose};
use crate::exit::Failure;
use crate::messages;
use crate::output;

pub(crate) fn pause(args: PauseArgs, console: &Console) -> Result<(), Failure> {
    let change = async |client: Client, which: Which| client.pause(&which).await;
    run(&args.which, &args.control, "paused", change, console)
}

pub(crate) fn resume(args: ResumeArgs, console: &Console) -> Result<(), Failure> {
    let change = async |client: Client, which: Which| client.resume(&which).await;
    run(&args.which, &args.control, "resumed", change, console)
}

pub(crate) fn remove(args: RemoveArgs, console: &Console) -> Result<(), Failure> {
    let files = args.files;
    let change = async move |client: Client, Which { ids, all }: Which| {
        let files = files.then_some(true);
        client.remove(&Remove { ids, all, files }).await
    };
    run(&args.which, &args.control, "removed", change, console)
}

fn run(
    args: &WhichArg,
    control: &ControlArg,
    done: &str,
    change: impl AsyncFnOnce(Client, Which) -> Result<usize, ClientError>,
    console: &Console,
) -> Result<(), Failure> {
    run_on_network(|_| async move {
        let client = connect(control).await?;
        let which = match args.all {
            true => Which {
                ids: None,
                all: Some(true),
            },
            false => {
                let downloads = client.downloads().await.map_err(messages::client)?;
                let chosen = choose(&downloads, &args.downloads).map_err(messages::no_download)?;
                Which {
                    ids: Some(chosen.iter().map(|one| one.id.clone()).collect()),
                    all: None,
                }
            }
        };
        let meant = which.ids.as_ref().map(Vec::len);
        let changed = change(client, which).await.map_err(messages::client)?;
        let mut text = format!("{done} {}", output::count(changed as u64, "download"));
        if let Some(rest) = meant.and_then(|meant| meant.checked_sub(changed))
            && rest > 0
        {
            text += &format!("; {rest} needed no change");
        }
        console.note(&text);
        Ok(())
    })
}
