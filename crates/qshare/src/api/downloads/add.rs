//! Adds downloads: whatever `qshare get` takes.

use axum::extract::State;
use axum::http::StatusCode;
use qshare_node::content::{AssetName, FileMetadata, Hash, NodeAddress, Query, ShareKey};
use qshare_node::{
    DownloadId, DownloadRequest, FileAttributes, FolderTerms, Follow, FoundFile, Node, Redeemed,
    Selection, Target,
};

use super::super::error::{ApiError, Code};
use super::super::extract::Json;
use super::super::objects::{Add, Added, Download};
use super::super::{Api, search};
use super::{refuse_when_stopping, row};
use crate::argument::{Wanted, printed_name};
use crate::choice::{self, Choice};
use crate::folder_source::{self, FolderSource};
use crate::messages::{self, Reader};
use crate::redeem;

/// The files that a request means.
pub(in super::super) struct Meant {
    pub(in super::super) files: Vec<FoundFile>,
    pub(in super::super) folders: Vec<FolderSource>,
    /// Nodes that a link names.
    pub(in super::super) nodes: Vec<NodeAddress>,
    /// The key of a private share, by which alone its content is asked for.
    pub(in super::super) share_key: Option<ShareKey>,
    /// The lookup that found them.
    query: Option<Query>,
    /// The plain SHA-256 that the user wrote. That a file has it is only claimed.
    pub(in super::super) sha256: Option<Hash>,
    skipped: Vec<String>,
    /// Whether their origin may make them executable. A name alone may be anybody's.
    may_execute: bool,
}

pub(in super::super) async fn add(
    State(api): State<Api>,
    Json(add): Json<Add>,
) -> Result<(StatusCode, Json<Added>), ApiError> {
    refuse_when_stopping(&api)?;
    let wanted = Wanted::parse(&add.what)
        .map_err(|error| messages::argument(&add.what, &error, Reader::Prompt))
        .map_err(|failure| ApiError::from(failure).with_code(Code::BadRequest))?;
    let (wanted, redeemed) = match wanted {
        Wanted::Code(code) => {
            let redeemed = redeem::at_prompt(&api.node, &code).await?;
            (
                Wanted::Link(Box::new(redeemed.link.clone())),
                Some(redeemed),
            )
        }
        wanted => (wanted, None),
    };
    let selects = add.include.is_some() || add.exclude.is_some();
    let mut terms = FolderTerms::new(None);
    terms.include = add.include.clone().unwrap_or_default();
    terms.exclude = add.exclude.clone().unwrap_or_default();
    Selection::new(&terms.include, &terms.exclude)
        .map_err(|error| ApiError::new(Code::BadRequest, error.to_string()))?;
    let meant = resolve(&api, wanted).await?;
    if selects && !meant.files.is_empty() {
        let message = "`include` and `exclude` are for folders";
        return Err(ApiError::new(Code::BadRequest, message).hint("Write NAME/, with a slash"));
    }
    let name = match (&add.name, meant.files.len() + meant.folders.len()) {
        (None, _) => None,
        (Some(name), 1) => Some(AssetName::from_local(name).map_err(|error| {
            let message = format!("`name` cannot be the name of a file: {error}");
            ApiError::new(Code::BadRequest, message)
        })?),
        (Some(_), count) => {
            let message = format!("`name` is for one file, but {count} match");
            return Err(ApiError::new(Code::BadRequest, message));
        }
    };
    refuse_when_stopping(&api)?;
    let mut requests = Vec::new();
    for mut folder in meant.folders {
        folder.name = name.clone().unwrap_or(folder.name);
        requests.push(folder.into_download(api.downloads.clone(), terms.clone()));
    }
    for mut file in meant.files {
        let query = meant.query.as_ref();
        let follow = query.and_then(|query| Follow::of_query(query, &file));
        if let Some(name) = &name {
            file.name = name.clone();
        }
        let target = Target::beneath(&api.downloads, file.name.clone());
        let attributes = FileAttributes {
            modified_ns: file.metadata.modified_ns,
            executable: file.metadata.executable && meant.may_execute,
        };
        let request = DownloadRequest::of_file(file, target)
            .attributes(attributes)
            .follow(follow)
            .sha256(meant.sha256)
            .nodes(meant.nodes.clone())
            .share_key(meant.share_key.clone());
        requests.push(request);
    }
    let mut ids = Vec::new();
    for request in requests {
        let id = DownloadId::new(&request.info(), request.target());
        let request = request.force(add.force.unwrap_or(false));
        if add.paused == Some(true) {
            api.roster.add_paused(request);
        } else {
            let download = api.roster.begin(request);
            if let Some(redeemed) = redeemed.clone() {
                tokio::spawn(report_when_complete(
                    api.node.clone(),
                    redeemed,
                    download.clone(),
                ));
            }
            // The node may be stopping.
            let _ = api.begun.send(download);
        }
        if let Some(priority) = add.priority {
            api.roster.set_rates(&id, Some(priority.into()), None)?;
        }
        ids.push(id);
    }
    api.roster.saved().await?;
    // One may be removed at once by another client.
    let rows = ids.iter().filter_map(|id| row(&api, id).ok());
    let added = Added {
        downloads: rows.map(|row| Download::from(&row)).collect(),
        skipped: meant.skipped,
    };
    Ok((StatusCode::CREATED, Json(added)))
}

/// Tells the sharer of a code when its file has arrived.
async fn report_when_complete(node: Node, redeemed: Redeemed, download: qshare_node::Download) {
    if download.finished().await.is_ok() {
        redeem::report_complete(&node, &[redeemed]).await;
    }
}

/// Finds the files and folders that an argument means.
pub(in super::super) async fn resolve(api: &Api, wanted: Wanted) -> Result<Meant, ApiError> {
    let meant = |files| Meant {
        files,
        folders: Vec::new(),
        nodes: Vec::new(),
        share_key: None,
        query: None,
        sha256: None,
        skipped: Vec::new(),
        may_execute: true,
    };
    match wanted {
        Wanted::Name(name) => {
            let query = Query::Name(name.as_str().to_owned());
            let mut found = search::find_for(api, &query).await?;
            found.retain(|file| file.name == name);
            without_folders(&query, &mut found)?;
            let chosen = chosen(choice::choose(&query, found))?;
            Ok(Meant {
                query: Some(query),
                ..chosen
            })
        }
        Wanted::Query(query) => {
            let mut found = search::find_for(api, &query).await?;
            if query.is_about_names() {
                without_folders(&query, &mut found)?;
            }
            let may_execute = matches!(query, Query::OfNode(..));
            let sha256 = match &query {
                Query::Sha256(digest) => Some(*digest),
                _ => None,
            };
            let mut chosen = chosen(choice::choose(&query, found))?;
            for file in chosen.files.extract_if(.., |file| file.is_collection) {
                let name = file.name.clone();
                let folder = FolderSource::of_found(&api.node, file, name).await;
                chosen.folders.push(folder);
            }
            Ok(Meant {
                query: Some(query),
                sha256,
                may_execute,
                ..chosen
            })
        }
        Wanted::Folder(name) => {
            let found = folder_source::find_at_node(&api.node, &name, search::PATIENCE).await?;
            let other = (found.other_versions > 0).then(|| {
                format!("{name}/: other versions; the one with the most holders was chosen")
            });
            Ok(Meant {
                folders: vec![found.source],
                skipped: other.into_iter().collect(),
                ..meant(Vec::new())
            })
        }
        // Its download asks trackers for holders, of a private one by its topic.
        Wanted::Link(link) if link.folder.is_some() => Ok(Meant {
            folders: vec![FolderSource::of_link(&link, None)],
            ..meant(Vec::new())
        }),
        // A code has become a link.
        Wanted::Code(_) => Err(ApiError::new(Code::Internal, "a code was not redeemed")),
        Wanted::Link(link) => {
            // The link identifies the content; trackers only contribute holders, which the download
            // asks for itself.
            let content = link.info.id();
            Ok(Meant {
                nodes: link.nodes,
                share_key: link.key,
                ..meant(vec![FoundFile {
                    content,
                    name: link.name.unwrap_or_else(|| content.into()),
                    info: link.info,
                    complete: 0,
                    partial: 0,
                    holders: Vec::new(),
                    is_collection: false,
                    metadata: FileMetadata {
                        modified_ns: link.modified_ns,
                        executable: link.executable,
                        ..FileMetadata::default()
                    },
                }])
            })
        }
    }
}

/// Leaves out folders, which a name without a slash at the end does not mean.
fn without_folders(query: &Query, found: &mut Vec<FoundFile>) -> Result<(), ApiError> {
    let folder = found.extract_if(.., |file| file.is_collection).last();
    match folder {
        Some(folder) if found.is_empty() => {
            let message = format!("{query} is a folder");
            let hint = format!("Add it with a slash: {}/", printed_name(&folder.name));
            Err(ApiError::new(Code::NotFound, message).hint(hint))
        }
        _ => Ok(()),
    }
}

fn chosen(choice: Choice) -> Result<Meant, ApiError> {
    let ambiguous = choice.ambiguous.iter();
    let explained = ambiguous.map(|files| choice::explain_ambiguity(files, ToString::to_string));
    if choice.files.is_empty() {
        let explained: Vec<String> = explained.collect();
        return match explained.is_empty() {
            true => Err(ApiError::new(Code::NotFound, "no node shares it")),
            false => Err(ApiError::new(Code::Ambiguous, explained.join("\n"))),
        };
    }
    let several = choice.ambiguous.iter().filter_map(|files| {
        let name = printed_name(&files.first()?.name);
        Some(format!("{name}: several contents have this name"))
    });
    let passed_over = choice.passed_over.iter().map(choice::explain_passed_over);
    let skipped = several.chain(passed_over).collect();
    Ok(Meant {
        files: choice.files,
        folders: Vec::new(),
        nodes: Vec::new(),
        share_key: None,
        query: None,
        sha256: None,
        skipped,
        may_execute: false,
    })
}
