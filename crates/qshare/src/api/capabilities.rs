//! Capabilities of the gateway: making, listing and revoking them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::http::StatusCode;
use qshare_node::FolderFetchError;
use qshare_node::content::Query;

use super::error::{ApiError, Code};
use super::extract::{Json, Named, Paging, Params, no_cursor};
use super::objects::{Capabilities, Capability, Changed, NewCapability};
use super::{Api, downloads};
use crate::argument::Wanted;
use crate::folder_source::FolderSource;
use crate::gateway::{self, Readable, Secret, TooMany};
use crate::messages::{self, Reader};

/// How long a capability is valid if the request does not say it: a day.
const EXPIRES_DEFAULT_SECONDS: u64 = 86_400;
/// Deadline for the list of a folder to find a source.
const LIST_PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that a request may ask for: a week.
const EXPIRES_MAX_SECONDS: u64 = 604_800;

pub(super) async fn make(
    State(api): State<Api>,
    Json(new): Json<NewCapability>,
) -> Result<(StatusCode, Json<Capability>), ApiError> {
    let seconds = new.expires_seconds.unwrap_or(EXPIRES_DEFAULT_SECONDS);
    if !(1..=EXPIRES_MAX_SECONDS).contains(&seconds) {
        let message = format!("`expires_seconds` must be between 1 and {EXPIRES_MAX_SECONDS}");
        return Err(ApiError::new(Code::BadRequest, message));
    }
    let wanted = Wanted::parse(&new.what)
        .map_err(|error| messages::argument(&new.what, &error, Reader::Prompt))
        .map_err(|failure| ApiError::from(failure).with_code(Code::BadRequest))?;
    let readable = readable(&api, wanted).await?;
    let made = api.gateway.make(readable, Duration::from_secs(seconds));
    let made = made.map_err(|TooMany| {
        ApiError::new(Code::Busy, "there are too many capabilities")
            .hint("Revoke some, or wait until they expire")
    })?;
    Ok((StatusCode::CREATED, Json(row(&made))))
}

/// Finds the one file that an argument means. What this node has needs no lookup.
async fn readable(api: &Api, wanted: Wanted) -> Result<Readable, ApiError> {
    if let Wanted::Query(Query::Id(content)) = &wanted
        && let Some(share) = api.node.share(content)
    {
        return Ok(Readable {
            name: share.name,
            info: share.info,
            share_key: None,
            list: None,
            remote: None,
            nodes: Vec::new(),
            holders: Vec::new(),
        });
    }
    let mut meant = downloads::resolve(api, wanted).await?;
    if meant.files.is_empty()
        && meant.folders.len() == 1
        && let Some(folder) = meant.folders.pop()
    {
        return readable_folder(api, folder).await;
    }
    if meant.sha256.is_some() {
        let message = "the gateway does not check a SHA-256, which nodes only claim";
        return Err(ApiError::new(Code::NotSupported, message)
            .hint("Add it as a download, and make the capability by its content ID"));
    }
    let [file] = <[_; 1]>::try_from(meant.files).map_err(|files| {
        let message = format!("a capability is for one file, but {} match", files.len());
        ApiError::new(Code::BadRequest, message)
    })?;
    Ok(Readable {
        name: file.name,
        info: file.info,
        share_key: meant.share_key,
        list: None,
        remote: None,
        nodes: meant.nodes,
        holders: file.holders,
    })
}

/// Reads the list of a folder. Its files are fetched as they are read, and nothing is kept.
async fn readable_folder(api: &Api, folder: FolderSource) -> Result<Readable, ApiError> {
    let (name, info) = (folder.name.clone(), folder.manifest);
    let share_key = folder.key.clone();
    let (nodes, holders) = (folder.nodes.clone(), folder.holders.clone());
    let request = folder
        .into_request(Default::default())
        .give_up_after(Some(LIST_PATIENCE));
    let reader = api.node.read_folder(request).await;
    let reader = reader.map_err(|error| match error {
        FolderFetchError::Download(error) => {
            ApiError::from(messages::download(&error, Reader::Prompt))
        }
        FolderFetchError::Invalid(cause) => {
            ApiError::new(Code::Unverified, format!("the list of {name}/: {cause}"))
        }
        FolderFetchError::Disk(error) => error.into(),
    })?;
    Ok(Readable {
        name,
        info,
        share_key,
        list: Some(reader.list().clone()),
        remote: Some(Arc::new(reader)),
        nodes,
        holders,
    })
}

fn row(capability: &gateway::Capability<Readable>) -> Capability {
    let content = &capability.content;
    let expires_at = capability.expires_at.duration_since(SystemTime::UNIX_EPOCH);
    Capability {
        capability: capability.secret.to_text(),
        path: gateway::path_of(capability),
        content: content.info.id().to_string(),
        name: content.name.to_string(),
        size_bytes: match &content.list {
            Some(list) => list.totals().bytes,
            None => content.info.length,
        },
        expires_at: expires_at.unwrap_or_default().as_millis() as u64,
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<Capabilities>, ApiError> {
    let limit = paging.limit()?;
    let all = api.gateway.list();
    let first = match &paging.after {
        None => 0,
        Some(text) => {
            let after = Secret::parse(text).ok_or_else(no_cursor)?;
            let at = all.iter().position(|known| known.secret == after);
            at.ok_or_else(no_cursor)? + 1
        }
    };
    let page = &all[first..];
    let next = page.get(limit).and(page.get(limit - 1));
    Ok(Json(Capabilities {
        capabilities: page.iter().take(limit).map(row).collect(),
        next: next.map(|last| last.secret.to_text()),
    }))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Named(text): Named,
) -> Result<Json<Changed>, ApiError> {
    let revoked = Secret::parse(&text).is_some_and(|secret| api.gateway.revoke(secret));
    match revoked {
        true => Ok(Json(Changed { changed: 1 })),
        false => Err(ApiError::new(
            Code::NotFound,
            "there is no such capability: it was revoked or has expired",
        )),
    }
}
