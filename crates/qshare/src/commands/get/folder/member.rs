//! `qshare cat FOLDER FILE`: writes one file of a folder to standard output.

use qshare_node::Node;
use qshare_node::content::AssetName;
use qshare_node::content::manifest::FolderList;
use tokio_util::sync::CancellationToken;

use super::super::request::patience;
use super::{FolderSource, cannot_open};
use crate::args::GetArgs;
use crate::commands::cat;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Writes the file that the command names.
pub(in crate::commands::get) async fn write_member(
    node: &Node,
    source: FolderSource,
    args: &GetArgs,
    console: &Console,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let Some(file) = &args.member else {
        let problem = "cannot write a folder to standard output\nName one of its files: qshare cat \
                       FOLDER FILE (qshare get FOLDER --list prints them)";
        return Err(Failure::new(Exit::Usage, problem));
    };
    let request = source
        .into_request(Default::default())
        .give_up_after(patience(args));
    let opened = tokio::select! {
        opened = node.read_folder(request) => opened,
        () = stop.cancelled() => return Err(Failure::printed(Exit::Interrupted)),
    };
    let folder = opened.map_err(|error| cannot_open(&error))?;
    let request = find(folder.list(), file).and_then(|at| folder.request(at));
    let request = request.ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!(
                "the folder has no file {file:?}\n`qshare get FOLDER --list` prints what it holds"
            ),
        )
    })?;
    cat::write(node, request.sha256(args.sha256), args.range, console, stop).await
}

/// Returns the number of the file with this name, in whichever normal form it was typed.
fn find(list: &FolderList, file: &str) -> Option<u32> {
    let normal = AssetName::from_local(file).ok();
    let name = normal.as_ref().map_or(file, AssetName::as_str);
    (0..list.file_count()).find(|&at| list.name(at) == Some(name))
}
