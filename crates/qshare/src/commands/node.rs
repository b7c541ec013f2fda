//! `qshare node`: share a directory, and download at the prompt.

mod orders;
mod startup;
mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use qshare_node::content::{AssetName, ContentId};
use qshare_node::{
    BindError, Download, DownloadError, Identity, IdentityError, IdentityRole, LibraryEvent, Node,
    NodeConfig, NodeEvent, PortMappingState, Report, Shares, Stage, StartError, TrackerState,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::args::NodeArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{self, DownloadedJson};
use crate::progress::{self, Board};
use crate::prompt::{self, Input, Names};
use crate::suggest::{self, CommandLine};
use orders::Desk;

/// For what is being sent when the node stops.
const GRACE: Duration = Duration::from_secs(2);
/// Services are killed five seconds after they were asked to stop; until then everything that is
/// durable already must have been said.
const SHUTDOWN_MAX: Duration = Duration::from_millis(4500);

pub(crate) fn run(args: NodeArgs, console: &Console) -> Result<(), Failure> {
    let dir = args.certs.resolve()?;
    let role = IdentityRole::Node;
    let _lock = Identity::lock(&dir, role).map_err(|error| match error {
        IdentityError::InUse { .. } => in_use(&error.to_string(), &args),
        error => error.into(),
    })?;
    let mut config = NodeConfig {
        group: args.group.load()?,
        listen: args.listen,
        known_trackers: args.certs.known_trackers(),
        lan: !args.lan.off,
        punch_hard: args.punch.hard,
        port_mapping: !args.port_mapping.no_port_mapping,
        shares: Some(Shares {
            assets: args.assets.clone(),
            downloads: args.downloads.clone(),
            exclude: vec![dir.clone()],
            state_dir: dir.join("state"),
        }),
        ..NodeConfig::one_shot(
            Identity::load_or_create(&dir, role)?,
            args.trackers.resolve(),
        )
    };
    config.limits.transport.congestion = args.congestion.congestion;
    run_on_network(|stop| serve(args, config, console, stop))
}

async fn serve(
    args: NodeArgs,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let trackers = config.trackers.clone();
    let node = Node::start(config)
        .await
        .map_err(|error| not_started(error, &args))?;
    startup::announce(&node, &args, &trackers, console)?;
    let (inputs, mut input) = unbounded_channel();
    let names = Names::default();
    if !args.no_prompt {
        prompt::start(console.clone(), names.clone(), inputs.clone());
    }
    let (begun, mut begins) = unbounded_channel();
    // Cancelled at the prompt, or with `stop`.
    let quit = stop.child_token();
    let desk = Arc::new(Desk {
        node: node.clone(),
        console: console.clone(),
        names,
        downloads_dir: args.downloads.clone(),
        begun,
        quit: quit.clone(),
        json: args.json.on,
    });
    let mut floor = Floor {
        console: console.clone(),
        board: Board::plain(console),
        json: args.json.on,
        watched: HashSet::new(),
        ends: JoinSet::new(),
        keys: 0,
    };
    let mut events = node.events();
    let mut heard = Heard::default();
    let mut ticks = tokio::time::interval(progress::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !quit.is_cancelled() {
        tokio::select! {
            () = quit.cancelled() => {}
            Some(input) = input.recv() => take(input, &desk, &inputs),
            Some(download) = begins.recv() => floor.watch(download),
            Some(Ok((watched, outcome))) = floor.ends.join_next() => floor.end(&watched, outcome)?,
            event = events.recv() => match event {
                Ok(event) => heard.tell(&event, console),
                Err(RecvError::Lagged(_)) => {}
                // The node is gone; nothing will happen any more.
                Err(RecvError::Closed) => quit.cancel(),
            },
            _ = ticks.tick() => {
                floor.find_resumed(&node);
                floor.board.tick();
            }
        }
    }
    crate::terminal::restore();
    match stop.is_cancelled() {
        // A signal came while somebody may have been typing.
        true => console.leave_prompt(),
        false => console.clear(),
    }
    console.note("stopping");
    let unfinished = node
        .downloads()
        .iter()
        .filter(|download| is_under_way(download))
        .count();
    // Past this the rest of the tidying is left to the next start, which loses nothing.
    let _ = tokio::time::timeout(SHUTDOWN_MAX, node.shutdown(GRACE)).await;
    if unfinished > 0 {
        let what = output::count(unfinished as u64, "unfinished download");
        let command = CommandLine::of_this_process();
        console.note(&format!("{what} will go on at the next start: {command}"));
    }
    Ok(())
}

/// Deals with what came from the prompt's thread.
fn take(input: Input, desk: &Arc<Desk>, inputs: &UnboundedSender<Input>) {
    // Kept open, so that the loop does not see the end of a channel once the thread has ended.
    let _ = inputs;
    match input {
        Input::Line {
            text,
            more_follow,
            done,
        } => {
            let desk = desk.clone();
            tokio::spawn(async move {
                desk.carry_out(&text, more_follow).await;
                drop::<Sender<()>>(done);
            });
        }
        Input::Complete { beginning, names } => {
            let desk = desk.clone();
            tokio::spawn(async move {
                // Tab may have given up waiting.
                let _ = names.send(desk.complete(&beginning).await);
            });
        }
        Input::Interrupt
        | Input::End {
            from_terminal: true,
        } => desk.quit.cancel(),
        Input::End {
            from_terminal: false,
        } => {}
    }
}

fn is_under_way(download: &Download) -> bool {
    !matches!(download.progress().stage, Stage::Complete | Stage::Stopped)
}

type Watched = (AssetName, ContentId);
type Outcome = Result<Arc<Report>, Arc<DownloadError>>;

/// Follows every download, whoever began it, and says what came of it.
struct Floor {
    console: Console,
    board: Board,
    json: bool,
    watched: HashSet<Watched>,
    ends: JoinSet<((usize, Watched), Outcome)>,
    keys: usize,
}

impl Floor {
    /// Downloads of an earlier run go on by themselves.
    fn find_resumed(&mut self, node: &Node) {
        for download in node.downloads() {
            if is_under_way(&download) {
                self.watch(download);
            }
        }
    }

    fn watch(&mut self, download: Download) {
        let watched = (download.name().clone(), download.content());
        if !self.watched.insert(watched.clone()) {
            return;
        }
        self.keys += 1;
        let key = self.keys;
        self.board.expect(1, download.progress().total_bytes);
        self.board.add(key, download.clone());
        self.ends
            .spawn(async move { ((key, watched), download.finished().await) });
    }

    fn end(&mut self, (key, watched): &(usize, Watched), outcome: Outcome) -> Result<(), Failure> {
        self.watched.remove(watched);
        let size_bytes = outcome.as_ref().map_or(0, |report| report.size_bytes);
        self.board.remove(*key, size_bytes);
        match outcome {
            Ok(report) => {
                let (came, path) = (progress::finished_line(&report), output::path(&report.path));
                self.console.note(&format!(
                    "{came}\nsaved as {path}; it is shared from now on"
                ));
                if self.json {
                    self.console
                        .result(&output::json(&DownloadedJson::from(&*report)))?;
                }
            }
            Err(error) if matches!(*error, DownloadError::Stopped) => {}
            Err(error) => {
                self.console.error(&format!(
                    "{}: {}",
                    watched.0,
                    Failure::from(&*error).message
                ));
            }
        }
        Ok(())
    }
}

/// What the node has told already.
#[derive(Default)]
struct Heard {
    /// Trackers by how they are written, and the last thing said about each.
    trackers: std::collections::HashMap<String, String>,
}

impl Heard {
    fn tell(&mut self, event: &NodeEvent, console: &Console) {
        match event {
            NodeEvent::Tracker(tracker, state) => {
                let place = tracker.host_port();
                let (kind, text) = describe(&place, state);
                // A tracker that stays away is tried again and again, and mentioned once.
                if self
                    .trackers
                    .insert(place, kind.clone())
                    .is_none_or(|known| known != kind)
                {
                    console.note(&text);
                }
            }
            NodeEvent::PortMapping(state @ PortMappingState::Proven { .. }) => {
                console.note(&format!("router: {state}"));
            }
            NodeEvent::PortMapping(_) => {}
            NodeEvent::Library(LibraryEvent::ScanFinished { assets, bytes }) => {
                let (files, size) = (output::count(*assets, "file"), output::bytes(*bytes));
                console.note(&format!("sharing {files} ({size})"));
            }
            NodeEvent::Library(LibraryEvent::Skipped { path, reason }) => {
                console.note(&format!("not shared: {}: {reason}", path.display()));
            }
            NodeEvent::Library(LibraryEvent::WatchFailed { root, cause }) => {
                console.note(&format!(
                    "changes in {} are found by looking now and then: {cause}",
                    root.display()
                ));
            }
            NodeEvent::Library(_) => {}
            NodeEvent::PeerLied { node, content } => {
                console.note(&output::liar(node, content));
            }
        }
    }
}

/// (what would be news, what to say) about a tracker.
fn describe(place: &str, state: &TrackerState) -> (String, String) {
    match state {
        TrackerState::Connected { id, .. } => (
            id.to_string(),
            format!("tracker {place}: connected ({})", id.short()),
        ),
        TrackerState::Away { cause } => {
            let cause = cause
                .as_deref()
                .map(|cause| format!(" ({cause})"))
                .unwrap_or_default();
            let text = format!(
                "tracker {place}: away{cause}; trying on. Start one with `qshare tracker`, or \
                 name another with --tracker HOST:PORT"
            );
            ("away".into(), text)
        }
        TrackerState::Refused { cause } => {
            (cause.clone(), format!("tracker {place}: refused: {cause}"))
        }
    }
}

fn in_use(message: &str, args: &NodeArgs) -> Failure {
    let command = suggest::beside_another(
        CommandLine::of_this_process(),
        IdentityRole::Node,
        args.certs.dir.as_deref(),
        args.listen,
    );
    Failure::new(
        Exit::Failed,
        format!("{message}\nTo run another node beside it: {command}"),
    )
}

fn not_started(error: StartError, args: &NodeArgs) -> Failure {
    match &error {
        StartError::Bind(BindError::PortInUse(_)) => {
            let command = suggest::on_free_port(CommandLine::of_this_process(), args.listen);
            Failure::new(Exit::Failed, format!("{error}\nThis works: {command}"))
        }
        _ => error.into(),
    }
}
