//! `qshare share`: share files and folders from where they lie, until Ctrl-C.

mod code;
mod live;
mod qr;
mod report;
mod shared;

use std::future::poll_fn;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use qshare_node::content::{AssetName, Link, NodeAddress, TrackerAddress};
use qshare_node::{
    Audience, Cancel, CodeEvent, HashIndex, HashOptions, Node, NodeConfig, ShareRequest,
    TrackerState, default_identity_dir, new_share_key,
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::code::{ShareCode, ShownCode, is_end, shown as shown_code};
use self::live::LiveLine;
use self::report::{EventJson, SharedJson};
use self::shared::{Shared as Share, SharedVersion, share_folder};
use super::run_on_network;
use crate::args::ShareArgs;
use crate::argument::printed_name;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::neutral::shown;
use crate::output;

/// How long a link waits for the trackers that it is to name.
const TRACKER_PATIENCE: Duration = Duration::from_secs(3);
/// Addresses of this node in a link that names no tracker: people copy links by hand.
const LINK_ADDRESSES_MAX: usize = 3;
/// How often receivers are counted.
const TICK: Duration = Duration::from_millis(500);
/// Time for running answers to finish after Ctrl-C.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Files below this length are hashed before a person could read a progress bar.
const BAR_FROM_BYTES: u64 = 256 << 20;

pub(crate) fn run(args: ShareArgs, console: &Console) -> Result<(), Failure> {
    let files = files_of(&args)?;
    let config = args.node_config()?;
    run_on_network(|stop| share(args, files, config, console, stop))
}

/// A file that is to be shared, under a name.
struct File {
    path: PathBuf,
    name: AssetName,
    length: u64,
    is_folder: bool,
}

/// Checks the paths before anything is hashed or announced.
fn files_of(args: &ShareArgs) -> Result<Vec<File>, Failure> {
    if args.name.is_some() && args.paths.len() > 1 {
        let problem = "--name is for one file, and there are several";
        return Err(Failure::new(
            Exit::Usage,
            format!("{problem}\nShare them one by one"),
        ));
    }
    args.paths.iter().map(|path| file_of(path, args)).collect()
}

fn file_of(path: &Path, args: &ShareArgs) -> Result<File, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let problem = format!("cannot share {}: {error}", shown(path));
        Failure::new(Exit::Disk, problem)
    })?;
    if !metadata.is_file() && !metadata.is_dir() {
        let problem = format!("cannot share {}: not a file or directory", shown(path));
        return Err(Failure::new(Exit::Usage, problem));
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            // `..` and `.` have no name of their own.
            let real = match metadata.is_dir() {
                true => path.canonicalize(),
                false => std::path::absolute(path),
            };
            let real = real.unwrap_or_else(|_| path.into());
            let name = real.file_name().unwrap_or_default().to_string_lossy();
            AssetName::from_local(&name).map_err(|error| {
                let problem = format!("cannot share {} under its name: {error}", shown(path));
                Failure::new(
                    Exit::Usage,
                    format!("{problem}\nGive another one: --name NAME"),
                )
            })?
        }
    };
    Ok(File {
        path: path.into(),
        name,
        length: metadata.len(),
        is_folder: metadata.is_dir(),
    })
}

async fn share(
    args: ShareArgs,
    files: Vec<File>,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let node = Node::start(config).await?;
    let result = tokio::select! {
        result = serve(&node, &args, files, console, &stop) => result,
        lost = node.failure() => Err(lost.into()),
    };
    node.shutdown(GOODBYE_MAX).await;
    result
}

async fn serve(
    node: &Node,
    args: &ShareArgs,
    files: Vec<File>,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let index = open_index(args);
    let mut shares = Vec::new();
    for file in files {
        let shared = tokio::select! {
            shared = hash_and_share(node, args, file, index.clone(), console) => shared?,
            () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
        };
        shares.push(shared);
    }
    tokio::select! {
        () = trackers_settled(node) => {}
        () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
    }
    let mut active = Vec::new();
    for share in shares {
        let (code, shown) = match args.no_code {
            true => (None, None),
            false => {
                let offered = tokio::select! {
                    offered = ShareCode::offer(node, &share, args.once) => offered,
                    () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
                };
                (Some(offered.0), offered.1)
            }
        };
        let link = link_to(node, &share);
        present(&share, &link, shown.as_ref(), args, console)?;
        active.push(Active {
            version: share.version(),
            audience: Audience::default(),
            share,
            code,
            shown,
        });
    }
    explain_reach(node, args, console);
    watch(node, args, active, console, stop).await
}

/// A share that is being served, and what was last said about it.
struct Active {
    share: Share,
    code: Option<ShareCode>,
    shown: Option<ShownCode>,
    version: SharedVersion,
    audience: Audience,
}

/// Opens the hashes of earlier runs. Without them, everything is hashed.
fn open_index(args: &ShareArgs) -> Option<HashIndex> {
    let found = default_identity_dir(args.network.certs.dir.as_deref()).ok()?;
    let opened = HashIndex::open(&found.path.join("share-state"));
    match opened {
        Ok(index) => Some(index),
        Err(error) => {
            tracing::debug!(%error, "hashing without an index");
            None
        }
    }
}

async fn hash_and_share(
    node: &Node,
    args: &ShareArgs,
    file: File,
    index: Option<HashIndex>,
    console: &Console,
) -> Result<Share, Failure> {
    let File {
        path,
        name,
        length,
        is_folder,
    } = file;
    let key = (!args.public).then(new_share_key);
    if is_folder {
        return share_folder(node, path, name, key, index, console).await;
    }
    let mut hashing = HashOptions::default();
    let mut guard = StopOnDrop(Some(hashing.cancel.clone()));
    let bar =
        (length >= BAR_FROM_BYTES && stderr().is_terminal() && !console.is_quiet()).then(|| {
            let bars = MultiProgress::new();
            let bar = bars.add(ProgressBar::new(length).with_message(shown(&path)));
            let template = "hashing {wide_msg} {percent:>3}%  {decimal_bytes_per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            console.show_bars(bars);
            bar
        });
    if let Some(bar) = bar.clone() {
        hashing.progress = Some(Arc::new(move |done, _| bar.set_position(done)));
    }
    let request = ShareRequest {
        path,
        name,
        key,
        hashing,
        index,
    };
    let shared = node.share_file(request).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
        console.clear();
    }
    let shared = shared?;
    // A later version of the file is hashed with the same options.
    guard.0 = None;
    Ok(Share::File(shared))
}

/// Stops hashing when its future is dropped.
struct StopOnDrop(Option<Cancel>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

/// Waits until every tracker is connected or refused, so that the link can name it.
async fn trackers_settled(node: &Node) {
    let mut ticks = interval(Duration::from_millis(20));
    let settled = async {
        loop {
            let trackers = node.status().trackers;
            let is_away = |state: &TrackerState| matches!(state, TrackerState::Away { .. });
            if !trackers.iter().any(|tracker| is_away(&tracker.state)) {
                return;
            }
            ticks.tick().await;
        }
    };
    let _ = timeout(TRACKER_PATIENCE, settled).await;
}

/// Returns the link to the present version of a share. It names the trackers that are connected,
/// pinned; without one, addresses of this node.
fn link_to(node: &Node, share: &Share) -> Link {
    let trackers: Vec<TrackerAddress> = super::ls::pinned(&node.status().trackers);
    let nodes = match trackers.is_empty() {
        false => Vec::new(),
        true => node
            .local_addresses()
            .into_iter()
            .take(LINK_ADDRESSES_MAX)
            .map(|at| NodeAddress {
                id: node.id(),
                host: at.ip().to_string(),
                port: at.port(),
            })
            .collect(),
    };
    let version = share.version();
    Link {
        info: version.info,
        trackers,
        nodes,
        name: Some(share.name().clone()),
        key: share.key().cloned(),
        folder: version.folder,
        modified_ns: version.attributes.modified_ns,
        executable: version.attributes.executable,
    }
}

/// Prints the first lines of a share, or of a new version of it.
fn present(
    share: &Share,
    link: &Link,
    code: Option<&ShownCode>,
    args: &ShareArgs,
    console: &Console,
) -> Result<(), Failure> {
    let version = share.version();
    if version.is_also_public {
        console.note(&format!(
            "{}: this node also shares the same content publicly, so everybody can fetch it",
            printed_name(share.name())
        ));
    }
    if args.json.on {
        let shared = SharedJson::new(share, link, code.map(|code| code.text.clone()));
        return match version.number {
            1 => console.json(&shared),
            _ => console.json(&EventJson::Version { shared }),
        };
    }
    let what = match (args.public, code) {
        (true, _) => "listed by its name for everybody",
        (false, None) => "only those who have the link can fetch it",
        (false, Some(_)) => "only those who have the code or the link can fetch it",
    };
    console.note(&format!(
        "sharing {} ({}), {what}. On another machine:\n",
        printed_name(share.name()),
        match &version.folder {
            None => output::bytes(version.bytes),
            Some(_) => format!(
                "{}, {}",
                output::count(version.files, "file"),
                output::bytes(version.bytes)
            ),
        }
    ));
    let text = link.to_string();
    let is_terminal = stderr().is_terminal() && std::io::stdout().is_terminal();
    if let Some(code) = code {
        match is_terminal {
            true => console.result(&format!("  {}\n\nor, with the link:\n", code.command))?,
            false => console.result(&code.command)?,
        }
    }
    // A link needs no quotes in a shell.
    match is_terminal {
        true => console.result(&format!("  qshare get {text}\n"))?,
        false => console.result(&text)?,
    }
    qr::print(&text, args.qr, console);
    Ok(())
}

/// Says who can find the shares.
fn explain_reach(node: &Node, args: &ShareArgs, console: &Console) {
    let trackers = node.status().trackers;
    let is_up = |state: &TrackerState| matches!(state, TrackerState::Connected { .. });
    if trackers.iter().any(|tracker| is_up(&tracker.state)) {
        return;
    }
    let here = match args.network.lan.off {
        true => "receivers need a direct way to this machine",
        false => "receivers on this network find it",
    };
    if trackers.is_empty() {
        console.note(&format!(
            "no tracker: {here}. A tracker leads receivers on other networks here, through NATs: \
             --tracker HOST, or QSHARE_TRACKER=HOST"
        ));
    } else {
        console.note(&format!(
            "no tracker answers yet, so the link names none: {here}. `qshare net` says what is wrong"
        ));
    }
}

/// Shows who is served until Ctrl-C or until all codes have served their receivers, and every new
/// version and code.
async fn watch(
    node: &Node,
    args: &ShareArgs,
    mut active: Vec<Active>,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut line = LiveLine::new(console);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
            (at, event) = next_code_event(&mut active) => {
                if let Some(one) = active.get_mut(at) {
                    tell_code(one, &event, args, console)?;
                }
                let is_served = |one: &Active| one.code.as_ref().is_some_and(|code| code.is_served);
                if active.iter().all(is_served) {
                    drop(line);
                    console.note("every receiver has everything; the share ends");
                    break;
                }
                continue;
            }
        }
        let (mut all, mut failed_attempts) = (Audience::default(), 0);
        for one in &mut active {
            let now = one.share.version();
            if now != one.version {
                let old = std::mem::replace(&mut one.version, now);
                tell_version(node, one, old.number, args, console)?;
            }
            let audience = one.share.audience();
            if audience != one.audience {
                tell_receivers(&one.share, &one.audience, &audience, args, console)?;
                one.audience = audience.clone();
            }
            all.receivers += audience.receivers;
            all.received += audience.received;
            all.sent_bytes += audience.sent_bytes;
            failed_attempts += one.code.as_ref().map_or(0, |code| code.failed_attempts);
        }
        let notice = match failed_attempts {
            0 => String::new(),
            count => output::count(count, "failed code attempt"),
        };
        line.show(&all, &notice);
    }
    for one in active {
        if let Some(code) = one.code {
            code.close().await;
        }
    }
    Ok(())
}

/// Waits for the next event of any code; stays pending without one. Cancel safe.
async fn next_code_event(active: &mut [Active]) -> (usize, CodeEvent) {
    poll_fn(|context| {
        for (at, one) in active.iter_mut().enumerate() {
            if let Some(code) = &mut one.code
                && let Poll::Ready(event) = pin!(code.next()).poll(context)
            {
                return Poll::Ready((at, event));
            }
        }
        Poll::Pending
    })
    .await
}

fn tell_code(
    one: &mut Active,
    event: &CodeEvent,
    args: &ShareArgs,
    console: &Console,
) -> Result<(), Failure> {
    let name = printed_name(one.share.name());
    if args.json.on {
        if let CodeEvent::Offered(offered) = event {
            one.shown = shown_code(offered);
        }
        return match EventJson::code(name, event, one.shown.as_ref()) {
            Some(event) => console.json(&event),
            None => Ok(()),
        };
    }
    if let Some(text) = messages::code_event(event) {
        console.note(&format!("{name}: {text}"));
    }
    if let CodeEvent::Offered(offered) = event {
        one.shown = shown_code(offered);
        if let Some(code) = &one.shown {
            console.result(&code.command)?;
        }
    }
    if is_end(event) {
        one.shown = None;
    }
    Ok(())
}

fn tell_version(
    node: &Node,
    one: &Active,
    old: u64,
    args: &ShareArgs,
    console: &Console,
) -> Result<(), Failure> {
    let share = &one.share;
    if one.version.is_served {
        return match one.version.number != old {
            true => present(
                share,
                &link_to(node, share),
                one.shown.as_ref(),
                args,
                console,
            ),
            false => Ok(()),
        };
    }
    let name = printed_name(share.name());
    match args.json.on {
        true => console.json(&EventJson::Changed { name }),
        false => {
            console.note(&format!(
                "{name} has changed: the link so far leads nowhere, a new one follows"
            ));
            Ok(())
        }
    }
}

fn tell_receivers(
    share: &Share,
    before: &Audience,
    now: &Audience,
    args: &ShareArgs,
    console: &Console,
) -> Result<(), Failure> {
    if args.json.on {
        return console.json(&EventJson::receivers(share, now));
    }
    if now.received > before.received {
        console.note(&format!(
            "{}: {} now",
            printed_name(share.name()),
            match now.received {
                1 => "a receiver has it".to_owned(),
                several => format!("{several} receivers have it"),
            }
        ));
    }
    Ok(())
}
