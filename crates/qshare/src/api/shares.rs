//! What the node shares.

use axum::extract::State;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use qshare_node::ListedShare;
use qshare_node::content::{ContentId, Query};
use serde::Deserialize;

use super::error::{ApiError, Code};
use super::extract::{Json, Named, Params, no_cursor, page_limit};
use super::objects::{Changed, LinkOf, NewShare, Share, Shares};
use super::{Api, qr};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    after: Option<String>,
    limit: Option<usize>,
    r#match: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<Shares>, ApiError> {
    let limit = page_limit(params.limit)?;
    let after = match &params.after {
        Some(text) => Some(
            BASE64URL_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| no_cursor())?,
        ),
        None => None,
    };
    let glob = params.r#match.unwrap_or_else(|| "**".to_owned());
    let invalid = |cause: &dyn std::fmt::Display| {
        let message = format!("`match` is neither a glob nor a name: {cause}");
        ApiError::new(Code::BadRequest, message)
    };
    let query = Query::Name(glob);
    let page = api.node.list_shares(&query, after.as_deref(), limit);
    let page = page.map_err(|error| invalid(&error))?;
    Ok(Json(Shares {
        shares: page.shares.iter().map(Share::from).collect(),
        next: page.next.map(|next| BASE64URL_NOPAD.encode(&next)),
    }))
}

impl From<&ListedShare> for Share {
    fn from(share: &ListedShare) -> Share {
        let path = share.path.clone().map(super::absolute);
        Share {
            content: share.content.to_string(),
            name: share.name.to_string(),
            kind: "file".to_owned(),
            size_bytes: share.info.length,
            complete: share.complete,
            private: false,
            path: path.map(|path| path.display().to_string()),
            removable: false,
            code: None,
            link: None,
        }
    }
}

pub(super) async fn one(
    State(api): State<Api>,
    Named(content): Named,
) -> Result<Json<Share>, ApiError> {
    Ok(Json(Share::from(&find(&api, &content)?)))
}

pub(super) async fn link(
    State(api): State<Api>,
    Named(content): Named,
) -> Result<Json<LinkOf>, ApiError> {
    let link = super::link::of_share(&api, &find(&api, &content)?);
    Ok(Json(LinkOf { link }))
}

pub(super) async fn qr(
    State(api): State<Api>,
    Named(content): Named,
) -> Result<Response, ApiError> {
    qr::svg(&super::link::of_share(&api, &find(&api, &content)?))
}

fn find(api: &Api, content: &str) -> Result<ListedShare, ApiError> {
    let content: ContentId = content.parse().map_err(|_| {
        let message = "the content ID in the path is not 64 hexadecimal digits";
        ApiError::new(Code::BadRequest, message)
    })?;
    let not_here = || {
        ApiError::new(Code::NotFound, "this node does not share this content")
            .hint("GET /api/1/shares lists what it shares")
    };
    api.node.share(&content).ok_or_else(not_here)
}

pub(super) async fn share(
    State(_): State<Api>,
    Json(_): Json<NewShare>,
) -> Result<Json<Share>, ApiError> {
    let message = "this node shares the files in its directories only";
    Err(ApiError::new(Code::NotSupported, message))
}

pub(super) async fn unshare(
    State(api): State<Api>,
    Named(content): Named,
) -> Result<Json<Changed>, ApiError> {
    let share = find(&api, &content)?;
    let message = format!("{} is in a shared directory", share.name);
    Err(ApiError::new(Code::Conflict, message)
        .hint("Move the file out of the shared directory to end its share"))
}
