//! What the arguments of a command mean among the files that nodes share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qshare_node::content::{ContentId, FileMetadata, Hash, Link, Query};
use qshare_node::{FindError, Findings, FoundFile, Node};

use super::folder::{FolderSource, find_folder};
use super::named::Meaning;
use super::request::Request;
use crate::args::Wait;
use crate::argument::{Wanted, folder_argument, glob_of_folder};
use crate::choice::{self, Choice};
use crate::commands::ls::{FILES_MAX, LISTING_MAX, TRACKER_PATIENCE};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};
use crate::suggest::CommandLine;

/// With --wait: interval between lookups of a name that no node shares yet.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Deadline of a single attempt to reach a tracker; --wait tries again.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// Further contents that are tried if the first has not the digest that nodes claim.
const LIARS_MAX: usize = 3;
/// Deadline for finding out whether a name that was not found is a folder.
const FOLDER_PATIENCE: Duration = Duration::from_secs(2);

/// Finds the files and folders that all arguments mean. What an argument does not find is printed.
pub(super) async fn find_all(
    node: &Node,
    request: &Request,
    console: &Console,
) -> Result<Found, Failure> {
    let mut search = Search {
        node,
        console,
        wait: request.args.wait,
        choices: Vec::new(),
        found: Found::default(),
    };
    for (wanted, text) in request.wanted.iter().zip(&request.args.wanted) {
        search.add(wanted, text).await?;
    }
    Ok(Found {
        choice: choice::combine(search.choices),
        ..search.found
    })
}

/// The files that all arguments mean.
#[derive(Default)]
pub(super) struct Found {
    pub(super) choice: Choice,
    pub(super) folders: Vec<FolderSource>,
    /// By content: a digest that nodes claim it to have, and other contents that they claim so.
    pub(super) claimed: HashMap<ContentId, (Hash, Vec<FoundFile>)>,
    /// The code of failures that have been printed.
    pub(super) worst: Option<Exit>,
}

/// The lookups of a command, one argument after the other.
struct Search<'a> {
    node: &'a Node,
    console: &'a Console,
    wait: Option<Wait>,
    choices: Vec<Choice>,
    /// Without the choice of files, which is made from all `choices` at the end.
    found: Found,
}

impl Search<'_> {
    /// Adds what an argument means. `text` is the argument as it was written.
    async fn add(&mut self, wanted: &Wanted, text: &str) -> Result<(), Failure> {
        match wanted {
            Wanted::Name(name) => {
                let query = Query::Name(name.as_str().to_owned());
                self.add_matches(&query, wanted, text).await
            }
            Wanted::Query(query) => self.add_matches(query, wanted, text).await,
            // Codes have become links.
            Wanted::Code(_) => Ok(()),
            Wanted::Folder(name) => {
                match find_folder(self.node, name, self.wait, self.console).await {
                    Ok(folder) => self.found.folders.push(folder),
                    Err(failure) if failure.exit == Exit::NotFound => {
                        self.print_not_found(&failure.message);
                    }
                    Err(failure) => return Err(failure),
                }
                Ok(())
            }
            Wanted::Link(link) if link.folder.is_some() => {
                let found = find_folder_of(self.node, link, self.wait, self.console).await?;
                self.found.folders.push(FolderSource::of_link(link, found));
                Ok(())
            }
            Wanted::Link(link) => {
                let file = find_link(self.node, link, self.wait, self.console).await?;
                self.choices.push(Choice {
                    files: vec![file],
                    ..Choice::default()
                });
                Ok(())
            }
        }
    }

    async fn add_matches(
        &mut self,
        query: &Query,
        wanted: &Wanted,
        text: &str,
    ) -> Result<(), Failure> {
        let found = find(self.node, query, self.wait, self.console).await;
        let mut found = found.map_err(|error| messages::find(&error, Reader::Get))?;
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
        if found.files.is_empty() {
            let message = match folder_of(self.node, wanted, is_collection).await {
                Some(folder) => {
                    let command = CommandLine::of_this_process().replacing(text, &folder);
                    let command = command.map_or(folder, |command| command.to_string());
                    messages::is_a_folder(&query.to_string(), &command)
                }
                None => format!(
                    "{}\n`qshare ls` lists the files that can be downloaded; --wait waits until a \
                     node shares it",
                    messages::not_found(&query.to_string(), &found.near)
                ),
            };
            self.print_not_found(&message);
        }
        if let Query::Sha256(digest) = query {
            let mut candidates = choice::candidates_of_digest(found.files.clone()).into_iter();
            if let Some(first) = candidates.next() {
                let others = candidates.take(LIARS_MAX).collect();
                self.found.claimed.insert(first.content, (*digest, others));
            }
        }
        let mut choice = choice::choose(query, found.files);
        for file in choice.files.extract_if(.., |file| file.is_collection) {
            let name = file.name.clone();
            let folder = FolderSource::of_found(self.node, file, name).await;
            self.found.folders.push(folder);
        }
        self.choices.push(choice);
        Ok(())
    }

    fn print_not_found(&mut self, message: &str) {
        self.console.error(message);
        self.found.worst = self.found.worst.max(Some(Exit::NotFound));
    }
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

/// Looks a query up; with --wait, repeats that until something is found.
pub(super) async fn find(
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

/// Says which contents an ambiguous argument means, and which command picks one.
pub(super) fn explain_ambiguity(candidates: &[FoundFile], request: &Request) -> String {
    let means = |wanted: &&Wanted| {
        let meaning = Meaning::new(wanted);
        candidates.iter().any(|file| meaning.allows(file))
    };
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
