//! Lookups.

use std::time::Duration;

use axum::extract::State;
use qshare_node::content::Query;
use qshare_node::{Findings, FoundFile as Listed};

use super::Api;
use super::error::{ApiError, Code};
use super::extract::{Json, page_limit};
use super::objects::{FileKind, Found, FoundFile, Search};
use crate::argument::parse_listed;
use crate::commands::ls::{FILES_MAX, LISTING_MAX};
use crate::messages::{self, Reader};

/// Deadline for the first answer of a tracker, if the request names none.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Bounds of a deadline that a request names, in ms.
const PATIENCE_MS: std::ops::RangeInclusive<u64> = 100..=30_000;

pub(super) async fn search(
    State(api): State<Api>,
    Json(search): Json<Search>,
) -> Result<Json<Found>, ApiError> {
    let limit = page_limit(search.limit)?;
    let patience = match search.patience_ms {
        None => PATIENCE,
        Some(ms) if PATIENCE_MS.contains(&ms) => Duration::from_millis(ms),
        Some(_) => {
            let message = "`patience_ms` must be between 100 and 30000";
            return Err(ApiError::new(Code::BadRequest, message));
        }
    };
    let text = search.query;
    let wanted = parse_listed(&text)
        .map_err(|error| messages::argument(&text, &error, Reader::Prompt))
        .map_err(|failure| ApiError::from(failure).with_code(Code::BadRequest))?;
    let Some(query) = wanted.query() else {
        let message = "a link names one file, which needs no search";
        return Err(ApiError::new(Code::BadRequest, message));
    };
    let found = find(&api, &query, limit, patience).await?;
    let here = |file: &Listed| api.node.has(&file.content);
    let files = found.files.iter().map(|file| FoundFile {
        here: here(file),
        name: file.name.to_string(),
        content: file.content.to_string(),
        kind: FileKind::new(file.is_collection),
        size_bytes: file.info.length,
        complete: file.complete,
        partial: file.partial,
    });
    Ok(Json(Found {
        files: files.collect(),
        truncated: found.truncated,
        near: found.near.iter().map(ToString::to_string).collect(),
    }))
}

/// Looks up what a download is to fetch.
pub(super) async fn find_for(api: &Api, query: &Query) -> Result<Vec<Listed>, ApiError> {
    let found = find(api, query, FILES_MAX, PATIENCE).await?;
    if found.files.is_empty() {
        let text = messages::not_found(&query.to_string(), &found.near);
        return Err(ApiError::new(Code::NotFound, text)
            .hint("`qshare ls` lists the files that can be downloaded"));
    }
    if found.truncated {
        let message = format!("cannot list all files that match: more than {FILES_MAX}");
        return Err(ApiError::new(Code::BadRequest, message).hint("Give a narrower glob"));
    }
    Ok(found.files)
}

async fn find(
    api: &Api,
    query: &Query,
    limit: usize,
    patience: Duration,
) -> Result<Findings, ApiError> {
    let deadline = patience.max(LISTING_MAX);
    let find = api.node.find_all(query, limit, patience, deadline);
    match api.quit.run_until_cancelled(find).await {
        None => Err(ApiError::new(Code::Stopping, "the node is stopping")),
        Some(found) => found.map_err(|error| messages::find(&error, Reader::Prompt).into()),
    }
}
