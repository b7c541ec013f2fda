//! `qshare get`: download files.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qshare_node::content::{AssetName, ContentId, Link, NamePattern, NodeAddress, Query};
use qshare_node::{
    BindError, FindError, Findings, FoundFile, Identity, Node, NodeConfig, NodeEvent, StartError,
    Target,
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::ls::{FILES_MAX, TRACKER_PATIENCE};
use super::run_on_network;
use crate::args::{GetArgs, Wait, Wanted};
use crate::choice::{self, Choice};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::jobs::{self, Item, Terms};
use crate::output;
use crate::progress::Board;
use crate::suggest::{self, CommandLine};

/// Without a usable source for this long a download fails.
const SOURCE_PATIENCE: Duration = Duration::from_secs(10);
/// With --wait: time between questions about a name that nobody shares yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Longest single question; --wait asks again.
const QUESTION_MAX: Duration = Duration::from_secs(60);
/// For what is being sent to others when all is done: they lose nothing by our leaving.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// The same after a failure or Ctrl-C, when somebody waits for the prompt.
const HASTY_GOODBYE_MAX: Duration = Duration::from_millis(500);

pub(crate) fn run(args: GetArgs, console: &Console) -> Result<(), Failure> {
    let trackers = args.trackers.resolve_for(&args.wanted);
    let mut config = NodeConfig::one_shot(Identity::ephemeral()?, trackers);
    config.listen = args.listen;
    config.known_trackers = args.certs.known_trackers();
    config.group = args.group.load()?;
    config.lan = !args.lan.off;
    config.punch_hard = args.punch.hard;
    config.limits.transport.congestion = args.congestion.congestion;
    run_on_network(|stop| get(args, config, console, stop))
}

async fn get(
    args: GetArgs,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let listen = config.listen;
    let node = Node::start(config).await.map_err(|error| match &error {
        StartError::Bind(BindError::PortInUse(_)) => {
            let command = suggest::on_free_port(CommandLine::of_this_process(), listen);
            Failure::new(Exit::Failed, format!("{error}\nThis works: {command}"))
        }
        _ => error.into(),
    })?;
    tokio::spawn(tell_of_liars(node.events(), console.clone()));
    let result = download(&node, &args, console, &stop).await;
    let goodbye = match result {
        Ok(()) => GOODBYE_MAX,
        Err(_) => HASTY_GOODBYE_MAX,
    };
    node.shutdown(goodbye).await;
    match result {
        Err(Failure {
            exit: Exit::Interrupted,
            ..
        }) => Err(Failure::new(
            Exit::Interrupted,
            format!(
                "interrupted; what was fetched is kept. To resume:\n  {}",
                CommandLine::of_this_process()
            ),
        )),
        result => result,
    }
}

async fn download(
    node: &Node,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let choice = tokio::select! {
        choice = find_all(node, args, console) => choice?,
        () = stop.cancelled() => return Err(Failure::said(Exit::Interrupted)),
    };
    let Found { choice, mut worst } = choice;
    for candidates in &choice.ambiguous {
        console.error(&explain_ambiguity(candidates, args));
        worst = worst.max(Some(Exit::NotFound));
    }
    let place = Place::choose(args.output.as_deref(), &choice)?;
    let terms = Terms {
        force: args.force,
        durable: !args.no_sync,
        seed: args.seed,
        give_up_after: match args.wait {
            None => Some(SOURCE_PATIENCE),
            Some(Wait::For(time)) => Some(time.max(SOURCE_PATIENCE)),
            Some(Wait::ForEver) => None,
        },
        json: args.json.on,
    };
    let items = choice.files.into_iter().map(|file| Item {
        target: place.target(&file.name),
        nodes: nodes_in_links(&args.wanted, file.content),
        name: file.name,
        info: file.info,
        holders: file.holders,
    });
    let board = match stderr().is_terminal() && !console.is_quiet() {
        true => Board::with_bars(console),
        false => Board::plain(console),
    };
    let fetched = jobs::fetch_all(node, items.collect(), terms, board, console, stop).await;
    if let Err(failure) = fetched {
        let exit = worst.max(Some(failure.exit)).unwrap_or(failure.exit);
        return Err(Failure { exit, ..failure });
    }
    if let Some(exit) = worst {
        return Err(Failure::said(exit));
    }
    if args.seed {
        console.note("serving what was downloaded until Ctrl-C");
        stop.cancelled().await;
    }
    Ok(())
}

/// Names those who sent wrong bytes, until the node is gone.
async fn tell_of_liars(mut events: broadcast::Receiver<NodeEvent>, console: Console) {
    loop {
        match events.recv().await {
            Ok(NodeEvent::PeerLied { node, content }) => {
                console.note(&output::liar(&node, &content));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What all arguments together amount to.
struct Found {
    choice: Choice,
    /// Something that was not found has been reported.
    worst: Option<Exit>,
}

async fn find_all(node: &Node, args: &GetArgs, console: &Console) -> Result<Found, Failure> {
    let mut choices = Vec::new();
    let mut worst = None;
    for wanted in &args.wanted {
        let query = match wanted {
            Wanted::Query(query) => query,
            Wanted::Link(link) => {
                let files = vec![find_link(node, link, args.wait, console).await?];
                choices.push(Choice {
                    files,
                    ..Choice::default()
                });
                continue;
            }
        };
        let found = find(node, query, args.wait, console)
            .await
            .map_err(|e| Failure::from(&e))?;
        if found.truncated {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "more than {FILES_MAX} files match {:?}; narrow it",
                    query.to_string()
                ),
            ));
        }
        if found.files.is_empty() {
            console.error(&format!(
                "{}\n`qshare ls` lists what there is; --wait waits until somebody shares it",
                choice::explain_missing(&query.to_string(), &found.near)
            ));
            worst = worst.max(Some(Exit::NotFound));
        }
        choices.push(choice::choose(query, found.files));
    }
    Ok(Found {
        choice: choice::combine(choices),
        worst,
    })
}

/// Asks the trackers; with --wait again and again.
async fn find(
    node: &Node,
    query: &Query,
    wait: Option<Wait>,
    console: &Console,
) -> Result<Findings, FindError> {
    let deadline = match wait {
        None => Some(Instant::now() + TRACKER_PATIENCE),
        Some(Wait::For(time)) => Instant::now().checked_add(time),
        Some(Wait::ForEver) => None,
    };
    let left = || match deadline {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => Duration::MAX,
    };
    let mut said = false;
    loop {
        let found = node.find(query, FILES_MAX, left().min(QUESTION_MAX)).await;
        let unanswered = match &found {
            Ok(found) => found.files.is_empty(),
            Err(FindError::Unreachable(_) | FindError::Failed { .. }) => true,
            Err(FindError::NoTracker | FindError::Refused(_)) => false,
        };
        if !unanswered || wait.is_none() || left().is_zero() {
            return found;
        }
        if !said {
            said = true;
            let why = match &found {
                Ok(_) => format!("nobody shares {:?} yet", query.to_string()),
                Err(error) => error.to_string(),
            };
            console.note(&format!("{why}; waiting"));
        }
        tokio::time::sleep(left().min(ASK_AGAIN)).await;
    }
}

/// The nodes that these links say have this content.
fn nodes_in_links(wanted: &[Wanted], content: ContentId) -> Vec<NodeAddress> {
    let nodes = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Link(link) if link.info.id() == content => Some(link.nodes.iter().cloned()),
        _ => None,
    });
    nodes.flatten().collect()
}

/// A link says itself what it leads to, and may name nodes that have it. The trackers know who
/// else does, and what a link without a name is called.
async fn find_link(
    node: &Node,
    link: &Link,
    wait: Option<Wait>,
    console: &Console,
) -> Result<FoundFile, Failure> {
    let content = link.info.id();
    let found = if link.nodes.is_empty() {
        let found = find(node, &Query::Id(content), wait, console).await;
        found.map_err(|error| Failure::from(&error))?
    } else if link.name.is_none() && !node.status().trackers.is_empty() {
        // Without an answer it goes by its id; the link's nodes are asked for it in any case.
        let found = find(node, &Query::Id(content), None, console).await;
        found.unwrap_or_default()
    } else {
        Findings::default()
    };
    let found = found.files.into_iter().next();
    let name = match (&link.name, &found) {
        (Some(name), _) => name.clone(),
        (None, Some(file)) => file.name.clone(),
        (None, None) => content.into(),
    };
    Ok(FoundFile {
        name,
        content,
        info: link.info,
        complete: 0,
        partial: 0,
        holders: found.map(|file| file.holders).unwrap_or_default(),
    })
}

fn explain_ambiguity(candidates: &[FoundFile], args: &GetArgs) -> String {
    let means = |wanted: &&Wanted| candidates.iter().any(|file| may_mean(wanted, file));
    let written = args.wanted.iter().find(means).map(Wanted::to_string);
    let this_command = CommandLine::of_this_process();
    choice::explain_ambiguity(candidates, |id| {
        let picking = written
            .as_ref()
            .and_then(|text| this_command.clone().replacing(text, id));
        picking.map_or_else(|| format!("qshare get {id}"), |command| command.to_string())
    })
}

/// Whether a file can be what an argument led to.
fn may_mean(wanted: &Wanted, file: &FoundFile) -> bool {
    match wanted {
        Wanted::Link(link) => link.info.id() == file.content,
        Wanted::Query(Query::Id(id)) => *id == file.content,
        Wanted::Query(Query::IdPrefix(prefix)) => {
            file.content.to_string().starts_with(prefix.digits())
        }
        Wanted::Query(Query::OfNode(_, name)) => *name == file.name,
        Wanted::Query(Query::Name(text)) => {
            *text == file.name.as_str()
                || NamePattern::new(text).is_ok_and(|glob| glob.matches(file.name.as_str()))
        }
    }
}

/// Where the files go.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Each under its full name beneath this directory.
    Directory(PathBuf),
    /// The only file, to this path.
    File(PathBuf),
}

impl Place {
    fn choose(output: Option<&Path>, choice: &Choice) -> Result<Place, Failure> {
        let Some(output) = output else {
            return Ok(Place::Directory(".".into()));
        };
        let ends_in_slash = output.as_os_str().as_encoded_bytes().ends_with(b"/");
        if ends_in_slash || output.is_dir() {
            return Ok(Place::Directory(output.into()));
        }
        if choice.files.len() > 1 {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "{} files cannot all be written to {path}; several need a directory: -o {path}/",
                    choice.files.len(),
                    path = output.display()
                ),
            ));
        }
        Ok(Place::File(output.into()))
    }

    fn target(&self, name: &AssetName) -> Target {
        match self {
            Place::Directory(dir) => Target::beneath(dir, name.clone()),
            Place::File(path) => Target::Path(path.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::content::{ContentInfo, Hash};

    use super::*;

    fn files(count: u8) -> Choice {
        let file = |byte| {
            let info = ContentInfo {
                length: 1,
                root: Hash([byte; 32]),
            };
            FoundFile {
                name: AssetName::new(format!("d/{byte}")).unwrap(),
                content: info.id(),
                info,
                complete: 1,
                partial: 0,
                holders: Vec::new(),
            }
        };
        Choice {
            files: (0..count).map(file).collect(),
            ambiguous: Vec::new(),
        }
    }

    #[test]
    fn output_is_a_file_for_one_and_a_directory_for_several() {
        let temp = tempfile::tempdir().unwrap();
        let choose = |output: &str, count| Place::choose(Some(Path::new(output)), &files(count));
        assert_eq!(choose("new", 1).unwrap(), Place::File("new".into()));
        assert_eq!(choose("new", 2).unwrap_err().exit, Exit::Usage);
        assert_eq!(choose("new/", 2).unwrap(), Place::Directory("new/".into()));
        let existing = temp.path().to_str().unwrap();
        assert_eq!(
            choose(existing, 2).unwrap(),
            Place::Directory(existing.into())
        );
        assert_eq!(
            Place::choose(None, &files(2)).unwrap(),
            Place::Directory(".".into())
        );
    }

    #[test]
    fn names_keep_their_directories_beneath_the_place() {
        let name = AssetName::new("d/0").unwrap();
        let beneath = Place::Directory("album".into());
        assert_eq!(beneath.target(&name).path(), Path::new("album/d/0"));
        let file = Place::File("x".into());
        assert_eq!(file.target(&name).path(), Path::new("x"));
    }
}
