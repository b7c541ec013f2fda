//! `qshare node`: share a directory and download at the prompt.

mod control;
mod orders;
mod startup;
mod status;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use qshare_node::content::{AssetName, ContentId};
use qshare_node::{
    BindError, Download, DownloadError, Identity, IdentityError, IdentityRole, Node, NodeConfig,
    Report, Stage, StartError, exclude_from_core_dumps,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::api::{Api, ApiConfig, routes, short_group_id};
use crate::args::NodeArgs;
use crate::console::Console;
use crate::exit::Failure;
use crate::gateway;
use crate::messages::{self, Reader};
use crate::neutral::shown;
use crate::notices::{self, Notices};
use crate::output::{self, DownloadedJson};
use crate::progress::{self, Board};
use crate::prompt::{self, Input, Names};
use crate::service;
use crate::sharing::{HandedConfig, HandedShares};
use crate::suggest::{self, CommandLine};
use crate::terminal;
use crate::web::WebServer;
use orders::PromptHandler;

/// Time for uploads to finish when the node stops.
const GRACE: Duration = Duration::from_secs(2);
/// Deadline for the whole shutdown. A service manager may kill the process five seconds after it
/// asked it to stop, and the message about unfinished downloads comes after the shutdown.
const SHUTDOWN_MAX: Duration = Duration::from_millis(4500);

pub(crate) fn run(args: NodeArgs, console: &Console) -> Result<(), Failure> {
    for (option, path) in [("--assets", &args.assets), ("--downloads", &args.downloads)] {
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(messages::not_a_directory(option, path));
        }
    }
    exclude_from_core_dumps();
    let dir = args.network.certs.resolve()?;
    let role = IdentityRole::Node;
    let _lock = Identity::lock(&dir, role).map_err(|error| match error {
        IdentityError::InUse { .. } => in_use(&error, &args),
        error => error.into(),
    })?;
    let config = args.node_config(&dir, Identity::load_or_create(&dir, role)?)?;
    run_on_network(|stop| serve(args, dir, config, console, stop))
}

async fn serve(
    args: NodeArgs,
    dir: PathBuf,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let trackers = config.trackers.clone();
    let web = match args.http.web_config()? {
        Some(config) => Some(WebServer::bind(config).await?),
        None => None,
    };
    let group_id = config.group.as_ref().map(short_group_id);
    let node = Node::start(config)
        .await
        .map_err(|error| not_started(error, &args))?;
    let (begun, mut begins) = unbounded_channel();
    // Cancelled at the prompt, or together with `stop`.
    let quit = stop.child_token();
    let handed = HandedShares::open(HandedConfig {
        node: node.clone(),
        state_dir: dir.join("state"),
        exclude: vec![dir],
        quit: quit.clone(),
    });
    let api = Api::new(ApiConfig {
        node: node.clone(),
        handed: handed.await,
        assets: args.assets.clone(),
        downloads: args.downloads.clone(),
        group_id,
        begun: begun.clone(),
        quit: quit.clone(),
    })?;
    let control = control::start(&api, &args, &node, console)?;
    // The control socket exists before the node says that it is ready.
    startup::announce(&node, &args, &trackers, web.as_ref(), console)?;
    service::ready();
    if let Some(control) = &control {
        console.note(&format!("  control       {}", shown(control.path())));
    }
    let (inputs, mut input) = unbounded_channel();
    let names = Names::default();
    if args.no_prompt {
        // Nothing is read from stdin.
    } else if terminal::is_background() {
        console.note("running in the background: serving without a prompt");
    } else {
        prompt::start(console.clone(), names.clone(), inputs.clone());
    }
    let handler = Arc::new(PromptHandler {
        node: node.clone(),
        console: console.clone(),
        names,
        downloads_dir: args.downloads.clone(),
        begun,
        quit: quit.clone(),
        json: args.json.on,
    });
    let web = web.map(|web| {
        api.set_http(web.url());
        let routes = routes(api.clone()).merge(gateway::routes(api.gateway()));
        tokio::spawn(web.run(routes, quit.clone()))
    });
    let mut watcher = DownloadWatcher {
        console: console.clone(),
        board: Board::plain(console),
        json: args.json.on,
        watched: HashSet::new(),
        ends: JoinSet::new(),
        keys: 0,
        api: api.clone(),
    };
    let mut events = node.events();
    let mut notices = Notices::default();
    let mut ticks = tokio::time::interval(progress::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut failed = None;
    while !quit.is_cancelled() {
        tokio::select! {
            () = quit.cancelled() => {}
            lost = node.failure() => {
                failed = Some(lost);
                quit.cancel();
            }
            Some(input) = input.recv() => take(input, &handler, &inputs),
            Some(download) = begins.recv() => watcher.watch(download),
            Some(Ok((watched, outcome))) = watcher.ends.join_next() => watcher.end(&watched, outcome)?,
            event = events.recv() => match event {
                Ok(event) => if let Some(notice) = notices.of(&event) {
                    console.note(&notice.text);
                    api.notify(notice);
                },
                Err(RecvError::Lagged(_)) => {}
                // The node has stopped.
                Err(RecvError::Closed) => quit.cancel(),
            },
            _ = ticks.tick() => {
                watcher.find_resumed(&node);
                watcher.board.tick();
            }
        }
    }
    terminal::restore();
    match stop.is_cancelled() {
        // A signal interrupted the prompt, whose line may hold typed text.
        true => console.leave_prompt(),
        false => console.clear(),
    }
    service::stopping();
    console.note("stopping");
    let unfinished = node
        .downloads()
        .iter()
        .filter(|download| is_under_way(download))
        .count();
    // Work that is not finished by then is resumed at the next start, without loss of data.
    let _ = tokio::time::timeout(SHUTDOWN_MAX, node.shutdown(GRACE)).await;
    if let Some(web) = web {
        // It stops by itself, within a shorter time than the node.
        web.abort();
    }
    drop(control);
    if unfinished > 0 {
        let what = output::count(unfinished as u64, "unfinished download");
        let command = CommandLine::of_this_process();
        console.note(&format!("{what} will resume at the next start: {command}"));
    }
    failed.map_or(Ok(()), |lost| Err(lost.into()))
}

/// Handles an input from the prompt's thread.
fn take(input: Input, handler: &Arc<PromptHandler>, inputs: &UnboundedSender<Input>) {
    // The sender is kept, so that the loop does not see a closed channel when the thread ends.
    let _ = inputs;
    match input {
        Input::Line {
            text,
            more_follow,
            done,
        } => {
            let handler = handler.clone();
            tokio::spawn(async move {
                handler.carry_out(&text, more_follow).await;
                drop::<Sender<()>>(done);
            });
        }
        Input::Complete { beginning, names } => {
            let handler = handler.clone();
            tokio::spawn(async move {
                // The completion may have timed out.
                let _ = names.send(handler.complete(&beginning).await);
            });
        }
        Input::Interrupt
        | Input::End {
            from_terminal: true,
        } => handler.quit.cancel(),
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

/// Follows every download of the node and prints how it ends.
struct DownloadWatcher {
    console: Console,
    board: Board,
    json: bool,
    watched: HashSet<Watched>,
    ends: JoinSet<((usize, Watched), Outcome)>,
    keys: usize,
    api: Api,
}

impl DownloadWatcher {
    /// Watches the downloads of an earlier run, which resume without being asked for.
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
                let (summary, path) = (
                    progress::finished_line(&report),
                    shown(output::without_dot(&report.path)),
                );
                let text = format!("{summary}\nsaved as {path}; now shared");
                self.console.note(&text);
                self.api.notify(notices::of_download(false, text));
                if self.json {
                    self.console.json(&DownloadedJson::from(&*report))?;
                }
            }
            Err(error) if matches!(*error, DownloadError::Stopped) => {}
            Err(error) => {
                let cause = messages::download(&error, Reader::Prompt).message;
                let text = format!("{}: {cause}", watched.0);
                self.console.error(&text);
                self.api.notify(notices::of_download(true, text));
            }
        }
        Ok(())
    }
}

fn in_use(error: &IdentityError, args: &NodeArgs) -> Failure {
    let command = suggest::beside_another(
        CommandLine::of_this_process(),
        IdentityRole::Node,
        args.network.certs.dir.as_deref(),
        args.network.listen,
    );
    messages::identity_in_use(error, "node", &command)
}

fn not_started(error: StartError, args: &NodeArgs) -> Failure {
    match &error {
        StartError::Bind(in_use @ BindError::PortInUse(_)) => {
            let command =
                suggest::on_free_port(CommandLine::of_this_process(), args.network.listen);
            messages::port_in_use(in_use, &command)
        }
        _ => error.into(),
    }
}
