//! Hands paths to a running node, which goes on sharing them when this command has returned.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::GroupSecret;
use qshare_node::content::{AssetName, TrackerAddress};
use tokio_util::sync::CancellationToken;

use super::present::{Presented, present};
use super::report::SharedJson;
use crate::api::objects::{FileKind, NewShare, Share, Status};
use crate::api::short_group_id;
use crate::args::ShareArgs;
use crate::argument::printed_name;
use crate::commands::control::node_of;
use crate::console::Console;
use crate::control::{self, Client, FindNodeError};
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::neutral::shown;
use crate::sharing::SharedPath;

/// Interval at which the node is asked for the progress of hashing.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Returns the running node that shares what `share` would: with its trackers, in its group. None
/// if this process is to share it.
pub(super) async fn node_for(
    args: &ShareArgs,
    group: Option<&GroupSecret>,
    console: &Console,
) -> Result<Option<Client>, Failure> {
    if args.is_in_foreground() {
        return Ok(None);
    }
    let is_chosen = args.node.is_some() || args.socket.is_some();
    let node = match node_of(args.node, args.network.certs.dir.as_deref()) {
        Ok(node) => node,
        // No node was ever started with --certs.
        Err(_) => return Ok(None),
    };
    let found = control::alive(args.socket.as_deref(), node).await;
    let alive = match found {
        Ok(alive) => alive,
        Err(error) if is_chosen => return Err(messages::no_node(error)),
        Err(error) => {
            tracing::debug!(?error, "no running node was found");
            return Ok(None);
        }
    };
    let mut fitting = Vec::new();
    let mut reason = None;
    for (running, client) in alive {
        let status = match client.status().await {
            Ok(status) => status,
            Err(error) if is_chosen => return Err(messages::client(error)),
            Err(_) => continue,
        };
        match unfit(&status, &args.network.trackers.given, group) {
            None => fitting.push((running, client)),
            Some(cause) => reason = Some(cause),
        }
    }
    match (fitting.len(), reason) {
        (0, None) => match args.node {
            Some(node) => Err(messages::no_node(FindNodeError::NotRunning(node))),
            None => Ok(None),
        },
        (0, Some(cause)) if is_chosen => {
            let problem = format!("cannot hand over to that node: {cause}");
            let remedy = "Use --foreground to share without it";
            Err(Failure::new(Exit::Usage, format!("{problem}\n{remedy}")))
        }
        (0, Some(cause)) => {
            console.note(&format!(
                "the running node is not used: {cause}. This command shares by itself"
            ));
            Ok(None)
        }
        (1, _) => Ok(fitting.pop().map(|(_, client)| client)),
        _ => {
            let nodes = fitting.into_iter().map(|(running, _)| running).collect();
            let Failure { exit, message } = messages::no_node(FindNodeError::Several(nodes));
            let message = format!("{message}\nor share without them: --foreground");
            Err(Failure::new(exit, message))
        }
    }
}

/// Returns why a node cannot share something for this command.
fn unfit(
    status: &Status,
    trackers: &[TrackerAddress],
    group: Option<&GroupSecret>,
) -> Option<String> {
    let group = group.map(short_group_id);
    if status.group_id != group {
        return Some(match (&status.group_id, &group) {
            (Some(_), None) => "it is in a private group (--group FILE names it)".to_owned(),
            _ => "it is not in that group".to_owned(),
        });
    }
    let own: Vec<TrackerAddress> = status
        .trackers
        .iter()
        .filter_map(|own| {
            let configured: TrackerAddress = own.tracker.parse().ok()?;
            let id = own.id.as_ref().and_then(|id| id.parse().ok());
            Some(TrackerAddress {
                id: configured.id.or(id),
                ..configured
            })
        })
        .collect();
    let has = |wanted: &&TrackerAddress| {
        own.iter().any(|own| {
            own.host_port() == wanted.host_port() && (wanted.id.is_none() || wanted.id == own.id)
        })
    };
    let missing = trackers.iter().find(|wanted| !has(wanted))?;
    Some(format!("it does not have the tracker {missing}"))
}

/// Hands paths to a node, and prints each as soon as it is shared.
pub(super) async fn run(
    client: &Client,
    args: &ShareArgs,
    paths: &[SharedPath],
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    for path in paths {
        let shared = hand_over(client, args, path, console, stop).await?;
        present(&shared, args, console)?;
    }
    if !args.json.on {
        console.note(
            "the running node shares this from now on, also after its restart; `qshare unshare` \
             ends it",
        );
    }
    Ok(())
}

async fn hand_over(
    client: &Client,
    args: &ShareArgs,
    path: &SharedPath,
    console: &Console,
    stop: &CancellationToken,
) -> Result<Presented, Failure> {
    let cannot = |cause: &str| {
        let problem = format!(
            "cannot hand {} to the running node: {cause}",
            shown(&path.path)
        );
        Failure::new(
            Exit::Usage,
            format!("{problem}\nUse --foreground to share it without the node"),
        )
    };
    let absolute = std::path::absolute(&path.path).map_err(|error| cannot(&error.to_string()))?;
    let text = absolute
        .to_str()
        .ok_or_else(|| cannot("its path is not valid UTF-8"))?;
    let new = NewShare {
        path: text.to_owned(),
        name: Some(path.name.to_string()),
        public: args.public.then_some(true),
        code: args.no_code.then_some(false),
        once: args.once,
    };
    let interrupted = || Failure::new(Exit::Interrupted, "interrupted; it is not shared");
    let mut share = match stop.run_until_cancelled(client.share(&new)).await {
        Some(share) => share.map_err(messages::client)?,
        None => {
            return Err(Failure::new(
                Exit::Interrupted,
                "interrupted; the node may share it. `qshare status` lists it then",
            ));
        }
    };
    let id = share.id.clone().unwrap_or_default();
    let bar = Bar::new(&path.path, console);
    while is_under_way(&share) {
        bar.show(&share);
        let waited = stop
            .run_until_cancelled(tokio::time::sleep(ASK_EVERY))
            .await;
        if waited.is_none() {
            drop(bar);
            client.unshare(&id).await.map_err(messages::client)?;
            return Err(interrupted());
        }
        share = client.one_share(&id).await.map_err(messages::client)?;
    }
    drop(bar);
    if let Some(error) = &share.error {
        client.unshare(&id).await.map_err(messages::client)?;
        let problem = format!("cannot share {}: {error}", shown(&path.path));
        return Err(Failure::new(Exit::Disk, problem));
    }
    let link = client.link(&id).await.map_err(messages::client)?.link;
    Ok(presented(share, link))
}

/// Whether the share has no content yet, or may still get its code.
fn is_under_way(share: &Share) -> bool {
    let state = share.state.as_deref();
    let has_failed = state == Some("failed");
    !has_failed && (share.content.is_none() || share.code_pending == Some(true))
}

fn presented(share: Share, link: String) -> Presented {
    let name = match AssetName::from_local(&share.name) {
        Ok(name) => printed_name(&name),
        Err(_) => share.name.clone(),
    };
    Presented {
        name,
        is_folder: share.kind == FileKind::Folder,
        is_public: !share.private,
        is_also_public: share.also_public == Some(true),
        // A share that was handed over earlier is printed like a new one.
        version: 1,
        command: share.command,
        json: SharedJson {
            code: share.code,
            link,
            id: share.content.unwrap_or_default(),
            name: share.name,
            bytes: share.size_bytes,
            files: share.files.unwrap_or(1),
            http: None,
        },
    }
}

/// The progress of hashing, on a terminal.
struct Bar<'a> {
    bar: Option<ProgressBar>,
    console: &'a Console,
}

impl Bar<'_> {
    fn new<'a>(path: &Path, console: &'a Console) -> Bar<'a> {
        let bar = (stderr().is_terminal() && !console.is_quiet()).then(|| {
            let bars = MultiProgress::new();
            let bar = bars.add(ProgressBar::no_length().with_message(shown(path)));
            let template = "hashing {wide_msg} {percent:>3}%  {decimal_bytes_per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            console.show_bars(bars);
            bar
        });
        Bar { bar, console }
    }

    fn show(&self, share: &Share) {
        if let (Some(bar), Some(hashed)) = (&self.bar, share.hashed_bytes)
            && share.size_bytes > 0
        {
            bar.set_length(share.size_bytes);
            bar.set_position(hashed);
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.console.clear();
        }
    }
}
