//! `qshare get NAME/`, and links and IDs of folders: the list first, then the files.

mod fetch;
mod listing;
mod member;

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};

use qshare_node::content::manifest::FolderList;
use qshare_node::content::{AssetName, ContentId, Query};
use qshare_node::{
    Durability, FetchTerms, FindError, Folder, FolderFetch, FolderFetchError, FolderFound,
    FormerFolder, Node, Selection, is_case_insensitive,
};
use tokio_util::sync::CancellationToken;

use super::find::find;
use super::request::patience;
use crate::args::{GetArgs, Wait};
use crate::argument::glob_of_folder;
use crate::console::Console;
use crate::exit::{Exit, Failure};
pub(super) use crate::folder_source::FolderSource;
use crate::folder_source::{SAMPLE, SAMPLE_DEADLINE, collection_of, of_files};
use crate::messages::{self, Reader};
use crate::output;
use crate::progress::Board;
use fetch::{Fetching, Following};
pub(super) use member::write_member;

/// Names that differ in case only of which the user is told.
const COLLISIONS_TOLD: usize = 5;

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
    let found = find(node, &by_name, None, console).await.map_err(failed)?;
    if let Some(file) = collection_of(name, found, |id| format!("qshare get {id}"))? {
        let source = FolderSource::of_found(node, file, name.clone()).await;
        return Ok(source.followed(name.clone()));
    }
    let sample = match wait {
        None => {
            let found = node.find_all(&beneath, SAMPLE, SAMPLE_DEADLINE, SAMPLE_DEADLINE);
            found.await.map_err(failed)?
        }
        Some(_) => find(node, &beneath, wait, console).await.map_err(failed)?,
    };
    let found = of_files(node, name, sample).await?;
    if found.other_versions > 0 {
        console.note(&format!(
            "{name}/: {} of the folder differ; the one with the most holders is downloaded",
            output::count(found.other_versions as u64 + 1, "version")
        ));
    }
    Ok(found.source)
}

/// Downloads a folder, or prints its list.
pub(super) async fn get_folder(
    node: &Node,
    source: FolderSource,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let selection = Selection::new(&args.include, &args.exclude);
    let selection = selection.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
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
    let (mut source, mut former) = (source, None);
    loop {
        let (name, key) = (source.name.clone(), source.key.clone());
        let follow = source.follow.clone();
        let version = Version {
            source,
            former,
            selection: selection.clone(),
            base: &base,
        };
        let got = get_version(node, version, args, console, stop).await?;
        let (Some((found, earlier)), Some(follow)) = (got, follow) else {
            return Ok(());
        };
        console.note(&format!(
            "{name}/ has changed at its source; fetching the new version"
        ));
        source = FolderSource::renewed(name, key, &follow, found);
        former = Some(earlier);
    }
}

/// One version of a folder, and what is here of the one before.
struct Version<'a> {
    source: FolderSource,
    former: Option<FormerFolder>,
    selection: Selection,
    base: &'a Path,
}

/// Downloads one version of a folder. Returns the newer one that replaced it meanwhile, and what is
/// here of this one.
async fn get_version(
    node: &Node,
    version: Version<'_>,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<Option<(FolderFound, FormerFolder)>, Failure> {
    let Version {
        source,
        former,
        selection,
        base,
    } = version;
    let list_path = list_path(base, source.manifest.id(), args.list);
    let follow = source.follow.clone().map(|follow| Following {
        node,
        follow,
        present: source.manifest,
        holders: source.holders.clone(),
    });
    let request = source
        .into_request(list_path)
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
        let printed = listing::print(&folder, &selection, args.json.on, console);
        Folder::remove_list(&request);
        return printed.map(|()| None);
    }
    let list = folder.list().clone();
    let terms = FetchTerms {
        selection,
        force: args.force,
        former,
        durability: match args.no_sync {
            true => Durability::Deferred,
            false => Durability::Immediate,
        },
        ..FetchTerms::default()
    };
    let fetch = FolderFetch::begin(folder.receive(base), base, terms).await;
    let fetch = fetch.map_err(|error| Failure::new(Exit::Disk, error.to_string()))?;
    tell_of_collisions(&list, base, console);
    let board = match stderr().is_terminal() && !console.is_quiet() {
        true => Board::with_bars(console),
        false => Board::plain(console),
    };
    let mut fetching = Fetching::new(fetch, args, console);
    let fetched = fetching.run(board, follow, stop).await;
    if stop.is_cancelled() && fetched.is_err() {
        return fetched.map(|_| None);
    }
    if let Ok(Some(newer)) = fetched {
        Folder::remove_list(&request);
        return Ok(Some((newer, fetching.into_former())));
    }
    let links = fetching.finish().await;
    fetching.summarise(base)?;
    if fetched.is_ok() && links.is_ok() && args.seed {
        console.note("serving the folder until Ctrl-C");
        stop.cancelled().await;
    }
    if fetched.is_ok() {
        Folder::remove_list(&request);
    }
    fetched.and(links).map(|()| None)
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
