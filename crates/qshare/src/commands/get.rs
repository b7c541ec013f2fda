//! `qshare get`: download files.

mod digests;
mod find;
mod folder;
mod named;
mod place;
mod request;

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use qshare_node::{
    BindError, DownloadRequest, FoundFile, Node, NodeConfig, NodeEvent, StartError, Target,
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use self::find::{Found, explain_ambiguity, find_all};
use self::folder::{FolderSource, get_folder, write_member};
use self::named::Meaning;
use self::place::Place;
use self::request::{Request, patience};
use super::cat;
use super::run_on_network;
use crate::args::{GetArgs, STDOUT};
use crate::argument::Wanted;
use crate::choice::{self, Choice};
use crate::code_prompt;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::jobs::{self, Item, Terms};
use crate::messages::{self, Reader};
use crate::output;
use crate::progress::Board;
use crate::redeem;
use crate::suggest::{self, CommandLine};

/// Time for uploads to finish after success; peers have other sources.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// The same after a failure or Ctrl-C, when a person waits for the shell's prompt.
const HASTY_GOODBYE_MAX: Duration = Duration::from_millis(500);

pub(crate) fn run(mut args: GetArgs, console: &Console) -> Result<(), Failure> {
    let sums = digests::read_sums(args.sums.as_deref())?;
    if args.wanted.is_empty()
        && let Some(sums) = &sums
    {
        args.wanted = sums.keys().map(|name| format!("name:{name}")).collect();
    }
    if args.wanted.is_empty() {
        args.wanted.push(code_prompt::ask()?);
    }
    check_stdout(&args)?;
    let wanted = args.wanted.iter().map(|text| {
        Wanted::parse(text).map_err(|error| messages::argument(text, &error, Reader::Get))
    });
    let wanted: Vec<Wanted> = wanted.collect::<Result<_, Failure>>()?;
    run_on_network(|stop| async move {
        let config = |wanted: &[Wanted]| args.node_config(wanted);
        let resolved = redeem::resolve(wanted, config, args.wait, console, &stop).await?;
        let config = args.node_config(&resolved.wanted)?;
        let request = Request {
            args,
            wanted: resolved.wanted,
            redeemed: resolved.redeemed,
            sums,
        };
        get(request, config, console, stop).await
    })
}

/// Checks options that make no sense with, or without, `-o -`.
fn check_stdout(args: &GetArgs) -> Result<(), Failure> {
    let refused = match (is_to_stdout(args), args) {
        (false, args) if args.range.is_some() => {
            "--range needs -o -: a part of a file is written to standard output only"
        }
        (true, args) if args.json.on => "-o - and --json both need standard output",
        (true, args) if args.seed => "--seed needs a file: -o - keeps nothing",
        _ => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, refused))
}

fn is_to_stdout(args: &GetArgs) -> bool {
    args.output.as_deref() == Some(Path::new(STDOUT))
}

async fn get(
    request: Request,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let listen = config.listen;
    let node = Node::start(config).await.map_err(|error| match &error {
        StartError::Bind(in_use @ BindError::PortInUse(_)) => {
            let command = suggest::on_free_port(CommandLine::of_this_process(), listen);
            messages::port_in_use(in_use, &command)
        }
        _ => error.into(),
    })?;
    let to_stdout = is_to_stdout(&request.args);
    tokio::spawn(tell_of_liars(node.events(), console.clone()));
    let result = tokio::select! {
        result = download(&node, &request, console, &stop) => result,
        lost = node.failure() => Err(lost.into()),
    };
    let goodbye = match result {
        Ok(()) => GOODBYE_MAX,
        Err(_) => HASTY_GOODBYE_MAX,
    };
    node.shutdown(goodbye).await;
    match result {
        Err(Failure {
            exit: Exit::Interrupted,
            ..
        }) if to_stdout => Err(Failure::new(Exit::Interrupted, "interrupted")),
        Err(Failure {
            exit: Exit::Interrupted,
            ..
        }) => Err(Failure::new(
            Exit::Interrupted,
            format!(
                "interrupted; fetched data is kept. To resume:\n  {}",
                CommandLine::of_this_process()
            ),
        )),
        result => result,
    }
}

async fn download(
    node: &Node,
    request: &Request,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let args = &request.args;
    let mut found = tokio::select! {
        found = find_all(node, request, console) => found?,
        () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
    };
    digests::check(request, &found.choice)?;
    for candidates in &found.choice.ambiguous {
        console.error(&explain_ambiguity(candidates, request));
        found.worst = found.worst.max(Some(Exit::NotFound));
    }
    for file in &found.choice.passed_over {
        console.note(&choice::explain_passed_over(file));
    }
    if let Some(failure) = misplaced_options(args, &found.folders, &found.choice) {
        return Err(failure);
    }
    // A folder is served by its own download.
    let mut has_files = false;
    if is_to_stdout(args) {
        stream(node, request, found, console, stop).await?;
    } else {
        let folders = std::mem::take(&mut found.folders);
        let of_folders = get_folders(node, folders, args, console, stop).await?;
        found.worst = found.worst.max(of_folders);
        has_files = !found.choice.files.is_empty();
        get_files(node, request, found, console, stop).await?;
    }
    redeem::report_complete(node, &request.redeemed).await;
    if args.seed && has_files {
        console.note("serving the downloaded files until Ctrl-C");
        stop.cancelled().await;
    }
    Ok(())
}

/// Refuses options that make no sense together.
fn misplaced_options(args: &GetArgs, folders: &[FolderSource], choice: &Choice) -> Option<Failure> {
    let for_folders = !args.include.is_empty() || !args.exclude.is_empty() || args.list;
    if for_folders && !choice.files.is_empty() {
        let text = "--include, --exclude and --list are for folders: write NAME/, with a slash";
        return Some(Failure::new(Exit::Usage, text));
    }
    let several = folders.len() + usize::from(!choice.files.is_empty()) > 1;
    if args.output.is_some() && !folders.is_empty() && several {
        let text = "-o names the directory of one folder\nDownload several with several commands";
        return Some(Failure::new(Exit::Usage, text));
    }
    None
}

/// Writes the only file to standard output.
async fn stream(
    node: &Node,
    request: &Request,
    found: Found,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    if let Some(exit) = found.worst {
        return Err(Failure::printed(exit));
    }
    if !found.folders.is_empty() {
        return match <[FolderSource; 1]>::try_from(found.folders) {
            Ok([folder]) if found.choice.files.is_empty() => {
                write_member(node, folder, &request.args, console, stop).await
            }
            _ => {
                let problem = "cannot write several files to standard output: only one at a time";
                Err(Failure::new(Exit::Usage, problem))
            }
        };
    }
    if let (Some(file), [found, ..]) = (&request.args.member, &found.choice.files[..]) {
        let name = &found.name;
        let problem = format!("{name} is a file, not a folder: it holds no {file:?}");
        return Err(Failure::new(Exit::Usage, problem));
    }
    let [file] = <[FoundFile; 1]>::try_from(found.choice.files).map_err(|files| {
        Failure::new(
            Exit::Usage,
            format!(
                "cannot write {} to standard output: only one at a time",
                output::count(files.len() as u64, "file")
            ),
        )
    })?;
    let digest = digests::digest_of(request, &found.claimed, &file);
    let nodes = named::nodes_in_links(&request.wanted, file.content);
    let download = DownloadRequest::new(file.name, file.info, Target::Path(STDOUT.into()))
        .holders(file.holders)
        .nodes(nodes)
        .share_key(named::key_in_links(&request.wanted, file.content))
        .sha256(digest)
        .give_up_after(patience(&request.args));
    cat::write(node, download, request.args.range, console, stop).await
}

/// Downloads folders, one after the other. Returns the code of the worst failure, which has been
/// printed; an interruption ends all.
async fn get_folders(
    node: &Node,
    folders: Vec<FolderSource>,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<Option<Exit>, Failure> {
    let mut worst = None;
    for folder in folders {
        if let Err(failure) = get_folder(node, folder, args, console, stop).await {
            if failure.exit == Exit::Interrupted {
                return Err(failure);
            }
            if !failure.message.is_empty() {
                console.error(&failure.message);
            }
            worst = worst.max(Some(failure.exit));
        }
    }
    Ok(worst)
}

/// Downloads files, several at a time.
async fn get_files(
    node: &Node,
    request: &Request,
    found: Found,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let Found {
        choice,
        mut claimed,
        worst,
        ..
    } = found;
    if !choice.files.is_empty() {
        let (args, wanted) = (&request.args, &request.wanted);
        let meanings: Vec<_> = wanted.iter().map(Meaning::new).collect();
        let has_glob = named::has_glob(wanted, &choice);
        let place = Place::choose(args.output.as_deref(), &choice, has_glob)?;
        let terms = Terms {
            force: args.force,
            durable: !args.no_sync,
            seed: args.seed,
            give_up_after: patience(&request.args),
            json: args.json.on,
        };
        let items = choice.files.into_iter().map(|file| Item {
            target: place.target(&file.name),
            // A stranger who says how an id is called does not choose which file is replaced.
            force: args.force && (place.is_file() || named::is_named(&meanings, &file)),
            nodes: named::nodes_in_links(wanted, file.content),
            attributes: named::attributes(args, wanted, &file),
            follow: named::follow(args, &meanings, &file),
            supersedes: None,
            sha256: digests::digest_of(request, &claimed, &file),
            others: claimed
                .remove(&file.content)
                .map_or_else(Vec::new, |(_, others)| others),
            share_key: named::key_in_links(wanted, file.content),
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
    }
    match worst {
        Some(exit) => Err(Failure::printed(exit)),
        None => Ok(()),
    }
}

/// Prints the nodes that sent wrong bytes, until the node stops.
async fn tell_of_liars(mut events: broadcast::Receiver<NodeEvent>, console: Console) {
    loop {
        match events.recv().await {
            Ok(NodeEvent::PeerLied { node, content }) => {
                console.note(&messages::liar(&node, &content));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
