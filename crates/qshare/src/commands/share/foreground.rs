//! Shares in the foreground: a node of this process, until Ctrl-C.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use qshare_node::{Audience, CodeEvent, Node, NodeConfig, Share, ShareVersion, TrackerState};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::hash::{hash_and_share, open_index};
use super::http::HttpServer;
use super::live::LiveLine;
use super::present::{Presented, present};
use super::report::EventJson;
use crate::args::ShareArgs;
use crate::argument::printed_name;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages;
use crate::output;
use crate::sharing::{ShareCode, SharedPath, ShownCode, is_end, link_to, shown_code};

/// How long a link waits for the trackers that it is to name.
const TRACKER_PATIENCE: Duration = Duration::from_secs(3);
/// Interval at which receivers are counted.
const TICK: Duration = Duration::from_millis(500);
/// Time for running answers to finish after Ctrl-C.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

pub(super) async fn run(
    args: ShareArgs,
    files: Vec<SharedPath>,
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
    files: Vec<SharedPath>,
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
    let http = match args.http {
        Some(listen) => Some(HttpServer::start(node, listen, console).await?),
        None => None,
    };
    let http = http.as_ref();
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
        let mut shown_share = Presented::of(&share, &link, shown.as_ref());
        shown_share.json.http = address_of(http, node, &share)?;
        present(&shown_share, args, console)?;
        active.push(Active {
            version: share.version(),
            audience: Audience::default(),
            share,
            code,
            shown,
        });
    }
    explain_reach(node, args, console);
    watch(node, args, active, http, console, stop).await
}

fn address_of(
    http: Option<&HttpServer>,
    node: &Node,
    share: &Share,
) -> Result<Option<String>, Failure> {
    http.map(|http| http.address_of(node, share)).transpose()
}

/// A share that is being served, and what was last said about it.
struct Active {
    share: Share,
    code: Option<ShareCode>,
    shown: Option<ShownCode>,
    version: ShareVersion,
    audience: Audience,
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
    http: Option<&HttpServer>,
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
                tell_version(node, one, old.number, args, http, console)?;
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
    http: Option<&HttpServer>,
    console: &Console,
) -> Result<(), Failure> {
    let share = &one.share;
    if one.version.is_served {
        return match one.version.number != old {
            true => {
                let link = link_to(node, share);
                let mut shown_share = Presented::of(share, &link, one.shown.as_ref());
                shown_share.json.http = address_of(http, node, share)?;
                present(&shown_share, args, console)
            }
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
