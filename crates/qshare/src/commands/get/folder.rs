//! `qshare get NAME/`, and links and IDs of folders: the list first, then the files.

mod fetch;
mod filter;
mod listing;
mod member;

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use qshare_node::content::manifest::FolderList;
use qshare_node::content::{AssetName, ContentId, ContentInfo, Link, NodeAddress, Query, ShareKey};
use qshare_node::{
    Contact, FindError, Folder, FolderFetchError, FolderPlace, FolderRequest, FoundFile, Node,
    PlaceError, is_case_insensitive,
};
use tokio_util::sync::CancellationToken;

use super::find::find;
use super::request::patience;
use crate::args::{GetArgs, Wait};
use crate::argument::glob_of_folder;
use crate::choice;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};
use crate::output;
use crate::progress::Board;
use fetch::Fetching;
use filter::Filter;
pub(super) use member::write_member;

/// Files of a folder that are looked up for their holders.
const SAMPLE: usize = 64;
/// Deadline for that lookup.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(10);
/// Names that differ in case only of which the user is told.
const COLLISIONS_TOLD: usize = 5;

/// A folder that the command means, found but not looked at.
#[derive(Debug)]
pub(super) struct FolderSource {
    /// Where it goes beneath the current directory.
    name: AssetName,
    manifest: ContentInfo,
    times: Option<ContentInfo>,
    key: Option<ShareKey>,
    holders: Vec<Contact>,
    nodes: Vec<NodeAddress>,
}

impl FolderSource {
    /// The folder of a link, which a stranger may have named.
    pub(super) fn of_link(link: &Link, found: Option<FoundFile>) -> FolderSource {
        let content = link.info.id();
        let told = link.name.as_ref();
        let told = told.or(found.as_ref().map(|found| &found.name));
        FolderSource {
            name: told.map_or_else(|| content.into(), |told| choice::local_name(told, content)),
            manifest: link.info,
            times: link.folder.and_then(|folder| folder.times),
            key: link.key.clone(),
            holders: found.map(|found| found.holders).unwrap_or_default(),
            nodes: link.nodes.clone(),
        }
    }

    /// A collection that a lookup found.
    pub(super) async fn of_found(node: &Node, found: FoundFile, name: AssetName) -> FolderSource {
        // Only holders know where its times are.
        let versions = node
            .ask_for_folder(&found.name, found.holders.clone())
            .await;
        let same = versions
            .iter()
            .find(|version| version.manifest == found.info);
        FolderSource {
            name,
            manifest: found.info,
            times: same.and_then(|version| version.times),
            key: None,
            holders: found.holders,
            nodes: Vec::new(),
        }
    }
}

/// Finds the folder of a name: a collection, or a directory of nodes' assets.
pub(super) async fn find_folder(
    node: &Node,
    name: &AssetName,
    wait: Option<Wait>,
    console: &Console,
) -> Result<FolderSource, Failure> {
    let failed = |error: FindError| messages::find(&error, Reader::Get);
    let by_name = Query::Name(name.as_str().to_owned());
    let beneath = Query::Name(glob_of_folder(name.as_str()));
    // A name that exists answers at once; --wait waits for either.
    let mut found = find(node, &by_name, None, console).await.map_err(failed)?;
    found
        .files
        .retain(|file| file.is_collection && file.name == *name);
    if !found.files.is_empty() {
        let choice = choice::choose(&by_name, found.files);
        if let Some(candidates) = choice.ambiguous.first() {
            let text = choice::explain_ambiguity(candidates, |id| format!("qshare get {id}"));
            return Err(Failure::new(Exit::NotFound, text));
        }
        if let Some(file) = choice.files.into_iter().next() {
            return Ok(FolderSource::of_found(node, file, name.clone()).await);
        }
    }
    let mut sample = match wait {
        None => {
            let found = node.find_all(&beneath, SAMPLE, SAMPLE_DEADLINE, SAMPLE_DEADLINE);
            found.await.map_err(failed)?
        }
        Some(_) => find(node, &beneath, wait, console).await.map_err(failed)?,
    };
    sample.files.retain(|file| !file.is_collection);
    let mut holders: Vec<Contact> = Vec::new();
    for contact in sample.files.iter().flat_map(|file| &file.holders) {
        if contact.complete && !holders.iter().any(|known| known.node == contact.node) {
            holders.push(contact.clone());
        }
    }
    if sample.files.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "no reachable node shares a folder {:?}\n`qshare ls` lists the files that can be \
                 downloaded; --wait waits until a node shares it",
                name.as_str()
            ),
        ));
    }
    let versions = node.ask_for_folder(name, holders).await;
    let mut versions = versions.into_iter();
    let Some(version) = versions.next() else {
        let glob = glob_of_folder(name.as_str());
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "no holder of {:?} lists it as a folder\nDownload its files one by one: qshare get \
                 {}",
                name.as_str(),
                crate::suggest::quoted(glob.as_ref())
            ),
        ));
    };
    let others = versions.count();
    if others > 0 {
        console.note(&format!(
            "{name}/: {} of the folder differ; the one with the most holders is downloaded",
            output::count(others as u64 + 1, "version")
        ));
    }
    Ok(FolderSource {
        name: name.clone(),
        manifest: version.manifest,
        times: version.times,
        key: None,
        holders: version.holders,
        nodes: Vec::new(),
    })
}

/// Downloads a folder, or prints its list.
pub(super) async fn get_folder(
    node: &Node,
    source: FolderSource,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let filter = Filter::new(&args.include, &args.exclude)?;
    let base = args.output.clone();
    let base = base.unwrap_or_else(|| PathBuf::from(source.name.as_str()));
    if base.symlink_metadata().is_ok() && !base.is_dir() {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "cannot write the folder to {}: it is not a directory\nName another one with -o",
                base.display()
            ),
        ));
    }
    let list_path = list_path(&base, source.manifest.id(), args.list);
    let request = FolderRequest::new(source.name, source.manifest, list_path)
        .times(source.times)
        .share_key(source.key)
        .holders(source.holders)
        .nodes(source.nodes)
        .keep_times(!args.no_times)
        .keep_execute_bits(!args.no_exec)
        .give_up_after(patience(args));
    let opened = tokio::select! {
        opened = node.open_folder(request.clone()) => opened,
        () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
    };
    let folder = match opened {
        Ok(folder) => folder,
        Err(error) => {
            if matches!(error, FolderFetchError::Invalid(_)) {
                Folder::remove_list(&request);
            }
            return Err(cannot_open(&error));
        }
    };
    if args.list {
        let printed = listing::print(&folder, &filter, args.json.on, console);
        Folder::remove_list(&request);
        return printed;
    }
    let list = folder.list().clone();
    let place = FolderPlace::new(&base);
    make_directories(&place, &list, &filter).await?;
    tell_of_collisions(&list, &base, console);
    let receiver = folder.receive(&base);
    let board = match stderr().is_terminal() && !console.is_quiet() {
        true => Board::with_bars(console),
        false => Board::plain(console),
    };
    let selected = (0..list.file_count()).filter(|&at| {
        let name = list.name(at);
        name.is_some_and(|name| filter.allows(name))
    });
    let mut fetching = Fetching::new(node, &receiver, &place, args, console);
    let fetched = fetching.run(selected.collect(), board, stop).await;
    if stop.is_cancelled() && fetched.is_err() {
        return fetched;
    }
    let links = make_links(&place, &list, &filter, args.force, console).await;
    receiver.finish().await;
    fetching.summarise(&base)?;
    if fetched.is_ok() && links.is_ok() && args.seed {
        console.note("serving the folder until Ctrl-C");
        stop.cancelled().await;
    }
    if fetched.is_ok() {
        receiver.remove_list();
    }
    fetched.and(links)
}

/// Returns where the list is kept while the folder is received: beside it, so that an invalid list
/// leaves nothing there, and hidden.
fn list_path(base: &Path, id: ContentId, is_only_listed: bool) -> PathBuf {
    let name = match is_only_listed {
        false => format!(".qshare-{}.list", id.short()),
        // Another process may be receiving the folder.
        true => format!(".qshare-{}-{}.list", id.short(), std::process::id()),
    };
    let parent = match (base.file_name(), base.parent()) {
        (Some(_), Some(parent)) => parent,
        _ => base,
    };
    parent.join(name)
}

fn cannot_open(error: &FolderFetchError) -> Failure {
    match error {
        FolderFetchError::Download(error) => Failure::from(&**error),
        FolderFetchError::Invalid(cause) => Failure::new(
            Exit::Unverified,
            format!("cannot download the folder: {cause}\nNothing of it was written"),
        ),
        FolderFetchError::Disk(error) => Failure::new(Exit::Disk, error.to_string()),
    }
}

/// Makes the directory, and the empty ones in it.
async fn make_directories(
    place: &FolderPlace,
    list: &Arc<FolderList>,
    filter: &Filter,
) -> Result<(), Failure> {
    let (place, list, filter) = (place.clone(), list.clone(), filter.clone());
    let make = move || {
        place.create()?;
        let empty = list.empty_directories().iter();
        for name in empty.filter(|name| filter.allows(name.as_str())) {
            place.make_directory(name)?;
        }
        Ok::<(), PlaceError>(())
    };
    let made = tokio::task::spawn_blocking(make).await;
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Exit::Disk, error.to_string())),
        Err(lost) => Err(Failure::internal(lost.to_string())),
    }
}

/// Makes the symbolic links, once all files are there. Reports each that cannot be made.
async fn make_links(
    place: &FolderPlace,
    list: &Arc<FolderList>,
    filter: &Filter,
    force: bool,
    console: &Console,
) -> Result<(), Failure> {
    let (place, list, filter) = (place.clone(), list.clone(), filter.clone());
    let make = move || {
        let links = list.links().iter();
        let links = links.filter(|(name, _)| filter.allows(name.as_str()));
        let made = links.map(|(name, target)| place.make_link(name, target, force));
        made.filter_map(Result::err).collect::<Vec<_>>()
    };
    let errors = tokio::task::spawn_blocking(make).await;
    let errors = errors.map_err(|lost| Failure::internal(lost.to_string()))?;
    for error in &errors {
        console.error(&format!("cannot make a symbolic link: {error}"));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Failure::printed(Exit::Disk)),
    }
}

/// Tells of names that the target cannot keep apart.
fn tell_of_collisions(list: &FolderList, base: &Path, console: &Console) {
    let collisions = list.case_collisions(COLLISIONS_TOLD);
    if collisions.is_empty() {
        return;
    }
    let names = collisions.join(", ");
    console.note(&match is_case_insensitive(base) {
        true => format!(
            "the file system ignores case, so some files have one name there and only the first of \
             each is kept: {names}"
        ),
        false => format!("some names differ from others in case only: {names}"),
    });
}
