//! `qshare get`: download files.

mod folder;

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use qshare_node::content::{
    AnswerFilter, AssetName, ContentId, FileMetadata, Hash, Link, NodeAddress, Query, ShareKey,
    is_glob,
};
use qshare_node::{
    BindError, DownloadRequest, FileAttributes, FindError, Findings, FoundFile, Node, NodeConfig,
    NodeEvent, Redeemed, StartError, Target,
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use self::folder::{FolderSource, find_folder, get_folder};
use super::cat;
use super::ls::{FILES_MAX, LISTING_MAX, TRACKER_PATIENCE};
use super::run_on_network;
use crate::args::{GetArgs, STDOUT, Wait};
use crate::argument::{Wanted, folder_argument, glob_of_folder};
use crate::choice::{self, Choice};
use crate::code_prompt;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::jobs::{self, Item, Terms};
use crate::messages::{self, Reader};
use crate::output;
use crate::progress::Board;
use crate::redeem;
use crate::suggest::{self, CommandLine, quoted};
use crate::sums;

/// A download fails after this time without a usable source.
const SOURCE_PATIENCE: Duration = Duration::from_secs(10);
/// With --wait: interval between lookups of a name that no node shares yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Deadline of a single attempt to reach a tracker; --wait tries again.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// Further contents that are tried if the first has not the digest that nodes claim.
const LIARS_MAX: usize = 3;
/// Deadline for finding out whether a name that was not found is a folder.
const FOLDER_PATIENCE: Duration = Duration::from_secs(2);
/// Time for uploads to finish after success; peers have other sources.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// The same after a failure or Ctrl-C, when a person waits for the shell's prompt.
const HASTY_GOODBYE_MAX: Duration = Duration::from_millis(500);

pub(crate) fn run(mut args: GetArgs, console: &Console) -> Result<(), Failure> {
    let sums = read_sums(args.sums.as_deref())?;
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

/// The parsed command.
struct Request {
    args: GetArgs,
    wanted: Vec<Wanted>,
    /// The codes that were redeemed; their links are in `wanted`.
    redeemed: Vec<Redeemed>,
    /// The digests that --sums lists.
    sums: Option<BTreeMap<AssetName, Hash>>,
}

impl Request {
    /// Returns how long a download goes on without a source.
    fn give_up_after(&self) -> Option<Duration> {
        match self.args.wait {
            None => Some(SOURCE_PATIENCE),
            Some(Wait::For(time)) => Some(time.max(SOURCE_PATIENCE)),
            Some(Wait::Forever) => None,
        }
    }
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
    let choice = tokio::select! {
        choice = find_all(node, request, console) => choice?,
        () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
    };
    let Found {
        choice,
        folders,
        mut claimed,
        mut worst,
    } = choice;
    check_digests(request, &choice)?;
    for candidates in &choice.ambiguous {
        console.error(&explain_ambiguity(candidates, request));
        worst = worst.max(Some(Exit::NotFound));
    }
    for file in &choice.passed_over {
        console.note(&choice::explain_passed_over(file));
    }
    if let Some(failure) = misplaced_options(args, &folders, &choice) {
        return Err(failure);
    }
    if is_to_stdout(args) {
        if !folders.is_empty() {
            let problem = "cannot write a folder to standard output";
            return Err(Failure::new(Exit::Usage, problem));
        }
        return match (worst, <[FoundFile; 1]>::try_from(choice.files)) {
            (Some(exit), _) => Err(Failure::printed(exit)),
            (None, Ok([file])) => {
                let digest = digest_of(request, &claimed, &file);
                stream(node, request, file, digest, console, stop).await
            }
            (None, Err(files)) => Err(Failure::new(
                Exit::Usage,
                format!(
                    "cannot write {} to standard output: only one at a time",
                    output::count(files.len() as u64, "file")
                ),
            )),
        };
    }
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
    if choice.files.is_empty() {
        return match worst {
            None => {
                redeem::report_complete(node, &request.redeemed).await;
                Ok(())
            }
            Some(exit) => Err(Failure::printed(exit)),
        };
    }
    let place = Place::choose(
        args.output.as_deref(),
        &choice,
        has_glob(&request.wanted, &choice),
    )?;
    let terms = Terms {
        force: args.force,
        durable: !args.no_sync,
        seed: args.seed,
        give_up_after: request.give_up_after(),
        json: args.json.on,
    };
    let items = choice.files.into_iter().map(|file| Item {
        target: place.target(&file.name),
        // A stranger who says how an id is called does not choose which file is replaced.
        force: args.force && (place.is_file() || is_named(&request.wanted, &file)),
        nodes: nodes_in_links(&request.wanted, file.content),
        attributes: attributes(args, &request.wanted, &file),
        sha256: digest_of(request, &claimed, &file),
        others: claimed
            .remove(&file.content)
            .map_or_else(Vec::new, |(_, others)| others),
        share_key: key_in_links(&request.wanted, file.content),
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
        return Err(Failure::printed(exit));
    }
    redeem::report_complete(node, &request.redeemed).await;
    if args.seed {
        console.note("serving the downloaded files until Ctrl-C");
        stop.cancelled().await;
    }
    Ok(())
}

/// Writes a file to standard output.
async fn stream(
    node: &Node,
    request: &Request,
    file: FoundFile,
    digest: Option<Hash>,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let nodes = nodes_in_links(&request.wanted, file.content);
    let download = DownloadRequest::new(file.name, file.info, Target::Path(STDOUT.into()))
        .holders(file.holders)
        .nodes(nodes)
        .sha256(digest)
        .give_up_after(request.give_up_after());
    cat::write(node, download, request.args.range, console, stop).await?;
    redeem::report_complete(node, &request.redeemed).await;
    Ok(())
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

/// The files that all arguments mean.
struct Found {
    choice: Choice,
    folders: Vec<FolderSource>,
    /// By content: a digest that nodes claim it to have, and other contents that they claim so.
    claimed: HashMap<ContentId, (Hash, Vec<FoundFile>)>,
    /// The code of failures that have been printed.
    worst: Option<Exit>,
}

async fn find_all(node: &Node, request: &Request, console: &Console) -> Result<Found, Failure> {
    let mut choices = Vec::new();
    let mut folders = Vec::new();
    let mut claimed = HashMap::new();
    let mut worst = None;
    let wait = request.args.wait;
    for (wanted, text) in request.wanted.iter().zip(&request.args.wanted) {
        let query = match wanted {
            Wanted::Name(name) => &Query::Name(name.as_str().to_owned()),
            Wanted::Query(query) => query,
            // Codes have become links.
            Wanted::Code(_) => continue,
            Wanted::Folder(name) => {
                match find_folder(node, name, wait, console).await {
                    Ok(folder) => folders.push(folder),
                    Err(failure) if failure.exit == Exit::NotFound => {
                        console.error(&failure.message);
                        worst = worst.max(Some(Exit::NotFound));
                    }
                    Err(failure) => return Err(failure),
                }
                continue;
            }
            Wanted::Link(link) if link.folder.is_some() => {
                let found = find_folder_of(node, link, wait, console).await?;
                folders.push(FolderSource::of_link(link, found));
                continue;
            }
            Wanted::Link(link) => {
                let files = vec![find_link(node, link, wait, console).await?];
                choices.push(Choice {
                    files,
                    ..Choice::default()
                });
                continue;
            }
        };
        let mut found = find(node, query, wait, console)
            .await
            .map_err(|error| messages::find(&error, Reader::Get))?;
        if let Wanted::Name(name) = wanted {
            found.files.retain(|file| file.name == *name);
        }
        if found.truncated {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "cannot list all files that match {:?}: more than {FILES_MAX}, or more than \
                     {} s\nGive a narrower glob",
                    query.to_string(),
                    LISTING_MAX.as_secs()
                ),
            ));
        }
        // A name or glob means files; a folder is named with a slash at the end.
        let is_collection = query.is_about_names() && {
            let before = found.files.len();
            found.files.retain(|file| !file.is_collection);
            before > found.files.len()
        };
        if found.files.is_empty()
            && let Some(folder) = folder_of(node, wanted, is_collection).await
        {
            let command = CommandLine::of_this_process().replacing(text, &folder);
            let command = command.map_or(folder, |command| command.to_string());
            console.error(&messages::is_a_folder(&query.to_string(), &command));
            worst = worst.max(Some(Exit::NotFound));
        } else if found.files.is_empty() {
            console.error(&format!(
                "{}\n`qshare ls` lists the files that can be downloaded; --wait waits until a node \
                 shares it",
                messages::not_found(&query.to_string(), &found.near)
            ));
            worst = worst.max(Some(Exit::NotFound));
        }
        if let Query::Sha256(digest) = query {
            let mut candidates = choice::candidates_of_digest(found.files.clone()).into_iter();
            if let Some(first) = candidates.next() {
                let others = candidates.take(LIARS_MAX).collect();
                claimed.insert(first.content, (*digest, others));
            }
        }
        let mut choice = choice::choose(query, found.files);
        for file in choice.files.extract_if(.., |file| file.is_collection) {
            let name = file.name.clone();
            folders.push(FolderSource::of_found(node, file, name).await);
        }
        choices.push(choice);
    }
    Ok(Found {
        choice: choice::combine(choices),
        folders,
        claimed,
        worst,
    })
}

/// Returns the argument that fetches the folder which a name stands for; None if there is none.
async fn folder_of(node: &Node, wanted: &Wanted, is_collection: bool) -> Option<String> {
    let folder = wanted.as_folder()?;
    if !is_collection {
        let query = Query::Name(glob_of_folder(folder.as_str()));
        let found = node.find(&query, 1, FOLDER_PATIENCE).await.ok()?;
        if found.files.is_empty() {
            return None;
        }
    }
    Some(folder_argument(&folder))
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

/// Asks trackers for the holders of a link's folder, and its name if the link has none.
async fn find_folder_of(
    node: &Node,
    link: &Link,
    wait: Option<Wait>,
    console: &Console,
) -> Result<Option<FoundFile>, Failure> {
    // Trackers know a private folder by its topic only; its download asks for that.
    if link.key.is_some() {
        return Ok(None);
    }
    let query = Query::Id(link.info.id());
    let found = if link.nodes.is_empty() {
        let found = find(node, &query, wait, console).await;
        found.map_err(|error| messages::find(&error, Reader::Get))?
    } else {
        find(node, &query, None, console).await.unwrap_or_default()
    };
    Ok(found.files.into_iter().next())
}

/// Looks a query up; with --wait, repeats that until something is found.
async fn find(
    node: &Node,
    query: &Query,
    wait: Option<Wait>,
    console: &Console,
) -> Result<Findings, FindError> {
    let deadline = match wait {
        None => Some(Instant::now() + TRACKER_PATIENCE),
        Some(Wait::For(time)) => Some(Instant::now() + time),
        Some(Wait::Forever) => None,
    };
    let left = || match deadline {
        Some(deadline) => deadline.saturating_duration_since(Instant::now()),
        None => Duration::MAX,
    };
    let mut said = false;
    loop {
        let found = node
            .find_all(query, FILES_MAX, left().min(ATTEMPT_MAX), LISTING_MAX)
            .await;
        let unanswered = match &found {
            Ok(found) => found.files.is_empty(),
            Err(FindError::Unreachable(_) | FindError::Failed { .. }) => true,
            Err(FindError::NoTracker | FindError::Refused(_) | FindError::Internal(_)) => false,
        };
        if !unanswered || wait.is_none() || left().is_zero() {
            return found;
        }
        if !said {
            said = true;
            let why = match &found {
                Ok(_) => format!("no node shares {:?} yet", query.to_string()),
                Err(error) => Failure::from(error).message,
            };
            console.note(&format!("waiting: {why}"));
        }
        tokio::time::sleep(left().min(ASK_AGAIN)).await;
    }
}

/// Returns the nodes that links name for a content.
fn nodes_in_links(wanted: &[Wanted], content: ContentId) -> Vec<NodeAddress> {
    let nodes = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Link(link) if link.info.id() == content => Some(link.nodes.iter().cloned()),
        _ => None,
    });
    nodes.flatten().collect()
}

/// Reads the file of --sums.
fn read_sums(path: Option<&Path>) -> Result<Option<BTreeMap<AssetName, Hash>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let refused = |cause: String| {
        let text = format!("cannot use --sums {}: {cause}", quoted(path.as_os_str()));
        Failure::new(Exit::Usage, text)
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let sums = sums::parse(&text).map_err(|error| refused(error.to_string()))?;
    Ok(Some(sums))
}

/// Refuses a digest for several files, and files that --sums does not list.
fn check_digests(request: &Request, choice: &Choice) -> Result<(), Failure> {
    if request.args.sha256.is_some() && choice.files.len() > 1 {
        let text = "--sha256 is the digest of one file; use --sums for several";
        return Err(Failure::new(Exit::Usage, text));
    }
    let Some(sums) = &request.sums else {
        return Ok(());
    };
    match choice
        .files
        .iter()
        .find(|file| !sums.contains_key(&file.name))
    {
        None => Ok(()),
        Some(file) => Err(Failure::new(
            Exit::Usage,
            format!("--sums lists no digest of {}", file.name),
        )),
    }
}

/// Returns the plain digest that a file must have.
fn digest_of(
    request: &Request,
    claimed: &HashMap<ContentId, (Hash, Vec<FoundFile>)>,
    file: &FoundFile,
) -> Option<Hash> {
    let listed = || request.sums.as_ref()?.get(&file.name).copied();
    let claimed = || claimed.get(&file.content).map(|(digest, _)| *digest);
    request.args.sha256.or_else(listed).or_else(claimed)
}

/// Returns the modification time and execute bit that a file gets. Others than whoever made a link,
/// or the one node that the user named, do not decide that a file is executable.
fn attributes(args: &GetArgs, wanted: &[Wanted], file: &FoundFile) -> FileAttributes {
    let is_trusted = wanted.iter().any(|wanted| match wanted {
        Wanted::Link(link) => link.info.id() == file.content && link.executable,
        Wanted::Query(Query::OfNode(_, name)) => *name == file.name,
        Wanted::Query(_) | Wanted::Name(_) | Wanted::Code(_) | Wanted::Folder(_) => false,
    });
    FileAttributes {
        modified_ns: file.metadata.modified_ns.filter(|_| !args.no_times),
        executable: file.metadata.executable && is_trusted && !args.no_exec,
    }
}

/// Returns the key of the private share as which a content is wanted; None if an argument means it
/// as public.
fn key_in_links(wanted: &[Wanted], content: ContentId) -> Option<ShareKey> {
    let mut links = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Link(link) if link.info.id() == content => Some(&link.key),
        _ => None,
    });
    let first = links.next()?.clone();
    first.filter(|_| links.all(Option::is_some))
}

/// Returns the file that a link means. The link itself says which content that is, and may name
/// nodes that have it; the trackers know further holders, and the name if the link has none.
async fn find_link(
    node: &Node,
    link: &Link,
    wait: Option<Wait>,
    console: &Console,
) -> Result<FoundFile, Failure> {
    let content = link.info.id();
    // Nobody is asked about a private content by its id: its topic finds the holders.
    let found = if link.key.is_some() {
        Findings::default()
    } else if link.nodes.is_empty() {
        let found = find(node, &Query::Id(content), wait, console).await;
        found.map_err(|error| messages::find(&error, Reader::Get))?
    } else if link.name.is_none() && !node.status().trackers.is_empty() {
        // Without an answer the file is named by its ID; the link's nodes have it in any case.
        let found = find(node, &Query::Id(content), None, console).await;
        found.unwrap_or_default()
    } else {
        Findings::default()
    };
    let found = found.files.into_iter().next();
    let name = match (&link.name, &found) {
        (Some(name), _) => name.clone(),
        (None, Some(file)) => choice::local_name(&file.name, content),
        (None, None) => content.into(),
    };
    let stated = found.as_ref().map(|file| file.metadata).unwrap_or_default();
    Ok(FoundFile {
        name,
        content,
        info: link.info,
        is_collection: false,
        complete: 0,
        partial: 0,
        metadata: FileMetadata {
            modified_ns: link.modified_ns.or(stated.modified_ns),
            executable: link.executable,
            ..FileMetadata::default()
        },
        holders: found.map(|file| file.holders).unwrap_or_default(),
    })
}

fn explain_ambiguity(candidates: &[FoundFile], request: &Request) -> String {
    let means = |wanted: &&Wanted| candidates.iter().any(|file| may_mean(wanted, file));
    let position = request.wanted.iter().position(|wanted| means(&wanted));
    let written = position.and_then(|at| request.args.wanted.get(at));
    let this_command = CommandLine::of_this_process();
    choice::explain_ambiguity(candidates, |id| {
        let picking = written
            .as_ref()
            .and_then(|text| this_command.clone().replacing(text, id));
        picking.map_or_else(|| format!("qshare get {id}"), |command| command.to_string())
    })
}

/// Returns whether an argument can mean a file.
fn may_mean(wanted: &Wanted, file: &FoundFile) -> bool {
    match wanted {
        Wanted::Name(name) => *name == file.name,
        Wanted::Folder(_) => false,
        Wanted::Link(link) => link.info.id() == file.content,
        Wanted::Query(query) => AnswerFilter::new(query).allows(&file.name, &file.content),
        Wanted::Code(_) => false,
    }
}

/// Returns whether the command itself names a file.
fn is_named(wanted: &[Wanted], file: &FoundFile) -> bool {
    wanted.iter().any(|wanted| match wanted {
        Wanted::Name(name) => *name == file.name,
        Wanted::Folder(_) => false,
        Wanted::Link(link) => link.name.as_ref() == Some(&file.name),
        Wanted::Query(query) => query.is_about_names() && may_mean(wanted, file),
        Wanted::Code(_) => false,
    })
}

/// Returns whether an argument was used as a glob, and not as the exact name of a file.
fn has_glob(wanted: &[Wanted], choice: &Choice) -> bool {
    wanted.iter().any(|wanted| match wanted {
        Wanted::Query(Query::Name(text)) => {
            is_glob(text) && !choice.files.iter().any(|file| file.name.as_str() == text)
        }
        Wanted::Name(_)
        | Wanted::Query(_)
        | Wanted::Link(_)
        | Wanted::Code(_)
        | Wanted::Folder(_) => false,
    })
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
    /// Decides where the files go. With a glob, `-o` names a directory even if one file matches.
    fn choose(output: Option<&Path>, choice: &Choice, has_glob: bool) -> Result<Place, Failure> {
        let Some(output) = output else {
            return Ok(Place::Directory(".".into()));
        };
        let ends_in_slash = output.as_os_str().as_encoded_bytes().ends_with(b"/");
        if ends_in_slash || output.is_dir() {
            return Ok(Place::Directory(output.into()));
        }
        if output.symlink_metadata().is_err() && has_glob {
            return Ok(Place::Directory(output.into()));
        }
        if choice.files.len() > 1 || has_glob {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "cannot write {} to {path}: several files and globs need a directory\nName \
                     one: -o {path}/",
                    output::count(choice.files.len() as u64, "file"),
                    path = quoted(output.as_os_str())
                ),
            ));
        }
        Ok(Place::File(output.into()))
    }

    fn is_file(&self) -> bool {
        matches!(self, Place::File(_))
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
                is_collection: false,
                complete: 1,
                partial: 0,
                holders: Vec::new(),
                metadata: FileMetadata::default(),
            }
        };
        Choice {
            files: (0..count).map(file).collect(),
            ..Choice::default()
        }
    }

    #[test]
    fn output_is_a_file_for_one_and_a_directory_for_several() {
        let temp = tempfile::tempdir().unwrap();
        let place = |output: &str, count, has_glob| {
            Place::choose(Some(Path::new(output)), &files(count), has_glob)
        };
        let choose = |output, count| place(output, count, false);
        assert_eq!(choose("new", 1).unwrap(), Place::File("new".into()));
        assert_eq!(choose("new", 2).unwrap_err().exit, Exit::Usage);
        assert_eq!(choose("new/", 2).unwrap(), Place::Directory("new/".into()));
        let existing = temp.path().to_str().unwrap();
        assert_eq!(
            choose(existing, 2).unwrap(),
            Place::Directory(existing.into())
        );
        assert_eq!(
            Place::choose(None, &files(2), false).unwrap(),
            Place::Directory(".".into())
        );
        // A glob means a directory, even if a single file matches.
        assert_eq!(
            place("new", 1, true).unwrap(),
            Place::Directory("new".into())
        );
        let file = temp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(choose(file, 1).unwrap(), Place::File(file.into()));
        assert_eq!(place(file, 1, true).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_glob_that_is_the_exact_name_of_a_file_is_a_name() {
        let found = files(1);
        let wanted = |text: &str| [Wanted::Query(text.parse().unwrap())];
        assert!(has_glob(&wanted("d/*"), &found));
        assert!(!has_glob(&wanted("d/0"), &found));
        let mut odd = files(1);
        odd.files[0].name = AssetName::new("[x]").unwrap();
        assert!(!has_glob(&wanted("[x]"), &odd));
    }

    #[test]
    fn only_a_name_in_the_command_lets_a_file_be_replaced() {
        let file = files(1).files.remove(0);
        let id = file.content.to_string();
        let link = |name: Option<&str>| {
            Wanted::Link(Box::new(Link {
                info: file.info,
                trackers: Vec::new(),
                nodes: Vec::new(),
                name: name.map(|name| AssetName::new(name).unwrap()),
                key: None,
                modified_ns: None,
                executable: false,
                folder: None,
            }))
        };
        let query = |text: &str| Wanted::Query(text.parse().unwrap());
        for wanted in [query("d/0"), query("d/*"), link(Some("d/0"))] {
            assert!(is_named(std::slice::from_ref(&wanted), &file), "{wanted}");
        }
        for wanted in [query(&id), query("id:1"), query("other"), link(None)] {
            assert!(!is_named(std::slice::from_ref(&wanted), &file), "{wanted}");
        }
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
