//! `qshare limit`: rate limits of the running node, and limit and priority of its downloads.

use qshare_node::RateLimit;

use super::connect;
use super::table::one_line;
use crate::api::objects::{DownloadChange, Limits, LimitsChange};
use crate::args::LimitArgs;
use crate::commands::run_on_network;
use crate::console::Console;
use crate::control::{Client, choose};
use crate::exit::{Exit, Failure};
use crate::{messages, output};

pub(crate) fn run(args: LimitArgs, console: &Console) -> Result<(), Failure> {
    let is_of_downloads = !args.downloads.is_empty();
    if is_of_downloads && args.up.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--up is a limit of the whole node, not of a download\nName no download",
        ));
    }
    if is_of_downloads && args.down.is_none() && args.priority.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "nothing to change\nGive --down RATE, --priority PRIORITY, or both",
        ));
    }
    if !is_of_downloads && args.priority.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "--priority is of a download\nName the download",
        ));
    }
    run_on_network(|_| async move {
        let client = connect(&args.control).await?;
        match is_of_downloads {
            true => of_downloads(&client, &args, console).await,
            false => of_node(&client, &args, console).await,
        }
    })
}

/// Returns a limit as the API takes it.
fn bytes(limit: RateLimit) -> u64 {
    limit.bytes_per_second().unwrap_or(0)
}

async fn of_node(client: &Client, args: &LimitArgs, console: &Console) -> Result<(), Failure> {
    let limits = match (args.up, args.down) {
        (None, None) => client.limits().await,
        (up, down) => {
            let change = LimitsChange {
                up_bytes_per_second: up.map(bytes),
                down_bytes_per_second: down.map(bytes),
            };
            client.limit(&change).await
        }
    };
    let limits: Limits = limits.map_err(messages::client)?;
    if args.json.on {
        return console.json(&limits);
    }
    for (what, limit) in [
        ("up", limits.up_bytes_per_second),
        ("down", limits.down_bytes_per_second),
    ] {
        let limit = limit.map(|limit| format!("{}/s", output::bytes(limit)));
        let limit = limit.unwrap_or_else(|| "none".to_owned());
        console.result(&format!("{what:<4}  {limit}"))?;
    }
    Ok(())
}

async fn of_downloads(client: &Client, args: &LimitArgs, console: &Console) -> Result<(), Failure> {
    let downloads = client.downloads().await.map_err(messages::client)?;
    for one in choose(&downloads, &args.downloads).map_err(messages::no_download)? {
        let change = DownloadChange {
            priority: args.priority,
            limit_bytes_per_second: args.down.map(bytes),
        };
        let changed = client
            .change(&one.id, &change)
            .await
            .map_err(messages::client)?;
        match args.json.on {
            true => console.json(&changed)?,
            false => console.result(&one_line(&changed))?,
        }
    }
    Ok(())
}
