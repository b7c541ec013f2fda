//! `qshare status`: what the running node does, once or live.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::connect;
use super::table;
use crate::api::objects::{
    Download, DownloadsChange, RatePoint, Share, SharesChange, Status, StatusReport,
};
use crate::args::StatusArgs;
use crate::commands::run_on_network;
use crate::console::Console;
use crate::control::{Client, ClientError, choose};
use crate::exit::Failure;
use crate::{messages, terminal};

/// Interval of looking whether the window has another size, and whether anybody reads.
const LOOK: Duration = Duration::from_millis(500);
/// Interval of plain output.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// Columns of output that is no terminal.
const PLAIN_COLUMNS: usize = 120;

pub(crate) fn run(args: StatusArgs, console: &Console) -> Result<(), Failure> {
    run_on_network(|stop| async move {
        let client = connect(&args.control).await?;
        match (args.watch, args.json.on) {
            (true, true) => watch_json(&client, console, &stop).await,
            (true, false) => watch(&client, console, &stop).await,
            (false, _) => show(&client, &args, console).await,
        }
    })
}

async fn show(client: &Client, args: &StatusArgs, console: &Console) -> Result<(), Failure> {
    let status = client.status().await.map_err(messages::client)?;
    let downloads = client.downloads().await.map_err(messages::client)?;
    let mut details = Vec::new();
    for one in choose(&downloads, &args.downloads).map_err(messages::no_download)? {
        details.push(client.detail(&one.id).await.map_err(messages::client)?);
    }
    let shares = client.handed_shares().await.map_err(messages::client)?;
    if args.json.on {
        return console.json(&StatusReport {
            status,
            downloads,
            shares,
            details,
        });
    }
    if !details.is_empty() {
        let lines = details.iter().flat_map(table::of_detail);
        return lines.into_iter().try_for_each(|line| console.result(&line));
    }
    let width = match stdout().is_terminal() {
        true => terminal::size().0,
        false => PLAIN_COLUMNS,
    };
    let mut lines = table::of_node(&status);
    if !downloads.is_empty() {
        lines.push(String::new());
        lines.extend(table::of_downloads(&downloads, width, usize::MAX));
    }
    if !shares.is_empty() {
        lines.push(String::new());
        lines.extend(table::of_shares(&shares, width, usize::MAX));
    }
    lines.iter().try_for_each(|line| console.result(line))
}

/// An event as one line of JSON.
#[derive(Serialize)]
struct EventJson<'a> {
    event: &'a str,
    data: &'a RawValue,
}

async fn watch_json(
    client: &Client,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut events = client.events().await.map_err(messages::client)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = look.tick() => if console.is_closed() { return Ok(()) },
            event = events.next() => {
                let (name, data) = event.map_err(ended)?;
                let data: Box<RawValue> = serde_json::from_str(&data)
                    .map_err(|error| messages::client(ClientError::Unreadable(error.to_string())))?;
                console.json(&EventJson { event: &name, data: &data })?;
                if name == "stopping" {
                    return Err(messages::node_stopped());
                }
            }
        }
    }
}

/// What the events have told so far.
#[derive(Default)]
struct Picture {
    status: Option<Status>,
    downloads: HashMap<String, Download>,
    /// Those that were handed over, by their share IDs.
    shares: BTreeMap<String, Share>,
}

impl Picture {
    /// Takes an event. Returns false if the node stops.
    fn take(&mut self, name: &str, data: &str) -> Result<bool, ClientError> {
        fn parse<'a, T: serde::Deserialize<'a>>(data: &'a str) -> Result<T, ClientError> {
            serde_json::from_str(data).map_err(|error| ClientError::Unreadable(error.to_string()))
        }
        match name {
            "status" => self.status = Some(parse(data)?),
            "downloads" => {
                let change: DownloadsChange = parse(data)?;
                if change.snapshot {
                    self.downloads.clear();
                }
                for download in change.changed {
                    self.downloads.insert(download.id.clone(), download);
                }
                for id in change.removed {
                    self.downloads.remove(&id);
                }
            }
            "shares" => {
                let change: SharesChange = parse(data)?;
                if change.snapshot {
                    self.shares.clear();
                }
                for share in change.changed {
                    self.shares
                        .insert(share.id.clone().unwrap_or_default(), share);
                }
                for id in change.removed {
                    self.shares.remove(&id);
                }
            }
            "rates" => {
                let point: RatePoint = parse(data)?;
                if let Some(status) = &mut self.status {
                    status.up_bytes_per_second = point.up_bytes_per_second;
                    status.down_bytes_per_second = point.down_bytes_per_second;
                }
            }
            "stopping" => return Ok(false),
            // Later versions add events.
            _ => {}
        }
        Ok(true)
    }

    /// Returns the picture in lines that fit.
    fn lines(&self, (width, height): (usize, usize)) -> Vec<String> {
        let Some(status) = &self.status else {
            return Vec::new();
        };
        let mut lines = table::of_node(status);
        for line in &mut lines {
            *line = table::truncate(line, width);
        }
        lines.push(String::new());
        let shares = match self.shares.is_empty() {
            true => Vec::new(),
            // At most half of the room is for shares.
            false => table::of_shares(self.shares.values(), width, (height / 2).max(2)),
        };
        let taken = lines.len() + shares.len() + usize::from(!shares.is_empty());
        let room = height.saturating_sub(taken);
        match self.downloads.is_empty() {
            true => lines.push("no downloads; `qshare add NAME` adds one".to_owned()),
            false => lines.extend(table::of_downloads(self.downloads.values(), width, room)),
        }
        if !shares.is_empty() {
            lines.push(String::new());
            lines.extend(shares);
        }
        lines.truncate(height);
        lines
    }
}

async fn watch(
    client: &Client,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut events = client.events().await.map_err(messages::client)?;
    let is_terminal = stdout().is_terminal();
    // It restores the terminal when it is dropped.
    let screen = is_terminal.then(|| console.take_screen());
    let mut picture = Picture::default();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_changed, mut size) = (false, (0, 0));
    let mut printed_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = look.tick() => {
                if console.is_closed() {
                    return Ok(());
                }
            }
            event = events.next() => {
                let (name, data) = event.map_err(ended)?;
                if !picture.take(&name, &data).map_err(messages::client)? {
                    return Err(messages::node_stopped());
                }
                is_changed = true;
            }
        }
        match &screen {
            Some(screen) => {
                let now = terminal::size();
                if is_changed || now != size {
                    // The last line stays empty, or the terminal would scroll.
                    screen.show(&picture.lines((now.0, now.1.saturating_sub(1))));
                    (is_changed, size) = (false, now);
                }
            }
            None => {
                let is_due = printed_at.is_none_or(|at| at.elapsed() >= PLAIN_EVERY);
                if is_changed && is_due && picture.status.is_some() {
                    for line in picture.lines((PLAIN_COLUMNS, usize::MAX)) {
                        console.result(&line)?;
                    }
                    console.result("")?;
                    (is_changed, printed_at) = (false, Some(Instant::now()));
                }
            }
        }
    }
}

/// Describes the end of the events.
fn ended(error: ClientError) -> Failure {
    match error {
        ClientError::Gone => messages::node_stopped(),
        error => messages::client(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_replaces_everything_and_changes_add_up() {
        let row = |id: &str, stage: &str| {
            format!(
                r#"{{"id":"{id}","content":"","name":"{id}","path":"","stage":"{stage}","added_at":0,"size_bytes":1,"verified_bytes":0,"bytes_per_second":0,"sources":0,"priority":"normal","why":[]}}"#
            )
        };
        let mut picture = Picture::default();
        let mut take = |snapshot: bool, changed: &[String], removed: &str| {
            let changed = changed.join(",");
            let data =
                format!(r#"{{"snapshot":{snapshot},"changed":[{changed}],"removed":[{removed}]}}"#);
            assert!(picture.take("downloads", &data).unwrap());
            let mut ids: Vec<_> = picture.downloads.keys().cloned().collect();
            ids.sort();
            ids.join(" ")
        };
        assert_eq!(
            take(true, &[row("a", "queued"), row("b", "paused")], ""),
            "a b"
        );
        assert_eq!(take(false, &[row("c", "queued")], r#""a""#), "b c");
        assert_eq!(take(true, &[row("d", "queued")], ""), "d");
        assert!(!picture.take("stopping", "{\"changed\":1}").unwrap());
        assert!(picture.take("a later event", "{}").unwrap());
    }
}
