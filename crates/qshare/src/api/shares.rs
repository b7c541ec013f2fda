//! What the node shares: the files of its directories, and what was handed to it.

use std::path::PathBuf;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use qshare_node::ListedShare;
use qshare_node::content::{AssetName, ContentId, NamePattern, Query};
use serde::Deserialize;
use tokio::time::timeout;

use super::error::{ApiError, Code};
use super::extract::{Json, Named, Params, no_cursor, page_limit};
use super::objects::{Changed, FileKind, LinkOf, NewShare, Share, ShareEvent, Shares};
use super::{Api, downloads, qr};
use crate::messages;
use crate::sharing::{AddError, Handed, HandedState, Happening, NewHanded, PathError, ShareId};

/// How long the answer to a new share waits for its link and code.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    after: Option<String>,
    limit: Option<usize>,
    r#match: Option<String>,
    #[serde(default)]
    removable: bool,
}

/// Where a page begins: shares that were handed over come first.
enum Cursor {
    /// After a handed-over share.
    Handed(u64),
    /// After an entry of the catalogue; None begins with its first one.
    Listed(Option<Vec<u8>>),
}

impl Cursor {
    const HANDED: u8 = 0;
    const LISTED: u8 = 1;

    fn parse(text: &str) -> Option<Cursor> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        match bytes.split_first()? {
            (&Cursor::HANDED, order) => {
                Some(Cursor::Handed(u64::from_be_bytes(order.try_into().ok()?)))
            }
            (&Cursor::LISTED, []) => Some(Cursor::Listed(None)),
            (&Cursor::LISTED, after) => Some(Cursor::Listed(Some(after.to_vec()))),
            _ => None,
        }
    }

    fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        match self {
            Cursor::Handed(order) => {
                bytes.push(Cursor::HANDED);
                bytes.extend(order.to_be_bytes());
            }
            Cursor::Listed(after) => {
                bytes.push(Cursor::LISTED);
                bytes.extend(after.iter().flatten());
            }
        }
        BASE64URL_NOPAD.encode(&bytes)
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<Shares>, ApiError> {
    let limit = page_limit(params.limit)?;
    let cursor = match &params.after {
        Some(text) => Cursor::parse(text).ok_or_else(no_cursor)?,
        None => Cursor::Handed(0),
    };
    let glob = params.r#match.unwrap_or_else(|| "**".to_owned());
    let pattern = NamePattern::new(&glob).ok();
    let is_wanted = |name: &AssetName| {
        let name = name.as_str();
        name == glob
            || pattern
                .as_ref()
                .is_some_and(|pattern| pattern.matches(name))
    };
    let query = Query::Name(glob.clone());
    let mut shares = Vec::new();
    let after = match cursor {
        Cursor::Handed(order) => {
            let found = api
                .handed
                .list(order, limit, |handed| is_wanted(&handed.name));
            let last = found.last().filter(|_| found.len() == limit);
            let next = last.map(|last| Cursor::Handed(last.order).to_text());
            shares.extend(found.iter().map(Share::from));
            if next.is_some() || params.removable {
                return Ok(Json(Shares { shares, next }));
            }
            None
        }
        Cursor::Listed(after) => after,
    };
    if params.removable {
        let next = None;
        return Ok(Json(Shares { shares, next }));
    }
    let left = limit - shares.len();
    let page = api.node.list_shares(&query, after.as_deref(), left);
    let page = page.map_err(|cause| {
        let message = format!("`match` is neither a glob nor a name: {cause}");
        ApiError::new(Code::BadRequest, message)
    })?;
    let listed = page.shares.iter().filter(|share| !is_handed(&api, share));
    shares.extend(listed.map(Share::from));
    Ok(Json(Shares {
        shares,
        next: page.next.map(|next| Cursor::Listed(Some(next)).to_text()),
    }))
}

/// Whether an entry is listed as a share that was handed over, and so has been told already.
fn is_handed(api: &Api, share: &ListedShare) -> bool {
    let same = |handed: &Handed| {
        !handed.is_private && handed.name == share.name && content_of(handed) == Some(share.content)
    };
    !api.handed.list(0, 1, same).is_empty()
}

fn content_of(handed: &Handed) -> Option<ContentId> {
    Some(handed.version.as_ref()?.info.id())
}

impl From<&ListedShare> for Share {
    fn from(share: &ListedShare) -> Share {
        let path = share.path.clone().map(super::absolute);
        Share {
            content: Some(share.content.to_string()),
            name: share.name.to_string(),
            kind: FileKind::File,
            size_bytes: share.info.length,
            complete: share.complete,
            path: path.map(|path| path.display().to_string()),
            ..Share::default()
        }
    }
}

impl From<&Handed> for Share {
    fn from(handed: &Handed) -> Share {
        let version = handed.version.as_ref();
        let (state, error) = match &handed.state {
            HandedState::Hashing => ("hashing", None),
            HandedState::Serving => ("serving", None),
            HandedState::Changed => ("changed", None),
            HandedState::Failed(error) => ("failed", Some(error.clone())),
        };
        let is_hashing = matches!(handed.state, HandedState::Hashing | HandedState::Changed);
        Share {
            id: Some(handed.id.to_string()),
            content: content_of(handed).map(|content| content.to_string()),
            name: handed.name.to_string(),
            kind: FileKind::new(handed.is_folder),
            size_bytes: version.map_or(handed.total_bytes, |version| version.bytes),
            files: version.map(|version| version.files),
            complete: handed.state == HandedState::Serving,
            private: handed.is_private,
            path: Some(handed.path.display().to_string()),
            removable: true,
            state: Some(state.to_owned()),
            error,
            hashed_bytes: is_hashing.then_some(handed.hashed_bytes),
            version: version.map(|version| version.number),
            also_public: version.map(|version| version.is_also_public),
            once: handed.uses_left,
            code: handed.code.as_ref().map(|code| code.text.clone()),
            command: handed.code.as_ref().map(|code| code.command.clone()),
            code_pending: Some(handed.is_code_pending),
            failed_attempts: Some(handed.failed_attempts),
            receivers: Some(handed.audience.receivers),
            received: Some(handed.audience.received),
            sent_bytes: Some(handed.audience.sent_bytes),
            link: None,
        }
    }
}

impl From<&Happening> for ShareEvent {
    fn from(happening: &Happening) -> ShareEvent {
        ShareEvent {
            at: happening.at.into(),
            id: happening.id.to_string(),
            name: happening.name.to_string(),
            event: happening.what.name().to_owned(),
        }
    }
}

/// A share that a request names.
enum Meant {
    /// By its share ID.
    Handed(ShareId),
    /// By its content.
    Content(ContentId),
}

fn parse(text: &str) -> Result<Meant, ApiError> {
    if let Ok(id) = text.parse() {
        return Ok(Meant::Handed(id));
    }
    let content = text.parse().map_err(|_| {
        let message = "the path names no share: it is neither a content ID of 64 hexadecimal \
                       digits nor a share ID of 32";
        ApiError::new(Code::BadRequest, message)
    })?;
    Ok(Meant::Content(content))
}

fn not_here() -> ApiError {
    ApiError::new(Code::NotFound, "this node does not share this content")
        .hint("GET /api/1/shares lists what it shares")
}

/// Returns the handed-over shares that a request means.
fn handed(api: &Api, meant: &Meant) -> Vec<Handed> {
    match meant {
        Meant::Handed(id) => api.handed.get(id).into_iter().collect(),
        Meant::Content(content) => api.handed.list(0, usize::MAX, |handed| {
            content_of(handed).as_ref() == Some(content)
        }),
    }
}

fn listed(api: &Api, meant: &Meant) -> Result<ListedShare, ApiError> {
    match meant {
        Meant::Handed(_) => Err(not_here()),
        Meant::Content(content) => api.node.share(content).ok_or_else(not_here),
    }
}

pub(super) async fn one(
    State(api): State<Api>,
    Named(share): Named,
) -> Result<Json<Share>, ApiError> {
    let meant = parse(&share)?;
    match handed(&api, &meant).first() {
        Some(handed) => Ok(Json(Share::from(handed))),
        None => Ok(Json(Share::from(&listed(&api, &meant)?))),
    }
}

fn link_of(api: &Api, share: &str) -> Result<String, ApiError> {
    let meant = parse(share)?;
    match handed(api, &meant).first() {
        Some(handed) => {
            let link = api.handed.link(&handed.id);
            let link = link.ok_or_else(|| {
                ApiError::new(Code::Conflict, "the share has no link before it is hashed")
                    .hint("Wait until its state is `serving`")
            })?;
            Ok(link.to_string())
        }
        None => Ok(super::link::of_share(api, &listed(api, &meant)?)),
    }
}

pub(super) async fn link(
    State(api): State<Api>,
    Named(share): Named,
) -> Result<Json<LinkOf>, ApiError> {
    let link = link_of(&api, &share)?;
    Ok(Json(LinkOf { link }))
}

pub(super) async fn qr(State(api): State<Api>, Named(share): Named) -> Result<Response, ApiError> {
    qr::svg(&link_of(&api, &share)?)
}

pub(super) async fn share(
    State(api): State<Api>,
    Json(new): Json<NewShare>,
) -> Result<(StatusCode, Json<Share>), ApiError> {
    downloads::refuse_when_stopping(&api)?;
    let bad = |message: String| ApiError::new(Code::BadRequest, message);
    let path = PathBuf::from(&new.path);
    if !path.is_absolute() {
        return Err(bad("`path` is not absolute".to_owned()));
    }
    let (has_code, once) = (new.code.unwrap_or(true), new.once);
    if !has_code && once.is_some() {
        return Err(bad(
            "`once` counts uses of a code, so it needs one".to_owned()
        ));
    }
    let name = match &new.name {
        None => None,
        Some(name) => Some(
            AssetName::from_local(name)
                .map_err(|error| bad(format!("`name` cannot be a name: {error}")))?,
        ),
    };
    let added = api.handed.add(NewHanded {
        path,
        name,
        is_public: new.public.unwrap_or(false),
        has_code,
        once,
    });
    let (added, is_new) = added.await?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    // A small file is ready at once. Progress with a large one is told by events.
    let mut revisions = api.handed.watch();
    let ready = async {
        loop {
            let now = api.handed.get(&added.id)?;
            let waits = now.state == HandedState::Hashing || now.is_code_pending;
            if !waits || revisions.changed().await.is_err() {
                return Some(now);
            }
        }
    };
    let handed = match timeout(ANSWER_MAX, ready).await {
        Ok(ready) => ready,
        Err(_) => api.handed.get(&added.id),
    };
    let handed = handed.ok_or_else(not_here)?;
    let link = api.handed.link(&handed.id);
    Ok((
        status,
        Json(Share {
            link: link.map(|link| link.to_string()),
            ..Share::from(&handed)
        }),
    ))
}

impl From<AddError> for ApiError {
    fn from(error: AddError) -> ApiError {
        match error {
            AddError::Path(error) => {
                let code = match &error {
                    PathError::Unreadable { .. } => Code::NotFound,
                    PathError::NotAFile(_) | PathError::Name { .. } => Code::BadRequest,
                };
                ApiError::from(messages::not_shareable(error)).with_code(code)
            }
            AddError::TooMany => ApiError::new(Code::Conflict, error.to_string())
                .hint("End some: qshare unshare NAME"),
            AddError::Disk(error) => error.into(),
        }
    }
}

pub(super) async fn unshare(
    State(api): State<Api>,
    Named(share): Named,
) -> Result<Json<Changed>, ApiError> {
    let meant = parse(&share)?;
    let handed = handed(&api, &meant);
    if handed.is_empty() {
        let share = listed(&api, &meant)?;
        let message = format!("{} is in a shared directory", share.name);
        return Err(ApiError::new(Code::Conflict, message)
            .hint("Move the file out of the shared directory to end its share"));
    }
    let ids: Vec<ShareId> = handed.iter().map(|handed| handed.id).collect();
    let changed = api.handed.remove(&ids).await?;
    Ok(Json(Changed { changed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back() {
        for text in [
            Cursor::Handed(7).to_text(),
            Cursor::Listed(None).to_text(),
            Cursor::Listed(Some(b"after".to_vec())).to_text(),
        ] {
            assert_eq!(Cursor::parse(&text).unwrap().to_text(), text);
        }
        for wrong in ["", "!", "AAA", "Ag"] {
            assert!(Cursor::parse(wrong).is_none(), "{wrong}");
        }
    }
}
