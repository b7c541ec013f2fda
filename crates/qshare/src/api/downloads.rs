//! Downloads: list, add, pause, resume, remove.

mod add;

use std::sync::Arc;

use axum::extract::State;
use qshare_node::content::ChunkIndex;
use qshare_node::{
    CauseShare, DownloadError, DownloadId, DownloadStatus, PeerView, RosterRow, RosterState, Stage,
    VerifiedChunks,
};
use serde::Deserialize;

pub(super) use add::{add, resolve};

use super::Api;
use super::error::{ApiError, Code};
use super::extract::{Json, Named, Params, page_limit};
use super::objects::{
    Changed, ChunkMap, Download, DownloadDetail, Downloads, FileKind, Remove, Source, StageName,
    Which, Why, millis,
};
use crate::messages::{self, Reader};

/// Sources in the detail of a download.
const SOURCES_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    after: Option<u64>,
    limit: Option<usize>,
    stage: Option<StageName>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<Downloads>, ApiError> {
    let limit = page_limit(params.limit)?;
    let after = params.after.unwrap_or(0);
    let wanted = |row: &RosterRow| params.stage.is_none_or(|stage| stage_of(row) == stage);
    let page = api.roster.page(after, limit, wanted);
    Ok(Json(Downloads {
        downloads: page.rows.iter().map(Download::from).collect(),
        next: page.next.map(|next| next.to_string()),
    }))
}

pub(super) async fn detail(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<DownloadDetail>, ApiError> {
    Ok(Json(detail_of(&api, &parse(&id)?)?))
}

pub(super) async fn map(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<ChunkMap>, ApiError> {
    let id = parse(&id)?;
    row(&api, &id)?;
    Ok(Json(map_of(&id, api.roster.chunks(&id).await.as_ref())))
}

pub(super) async fn pause(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<Download>, ApiError> {
    let id = parse(&id)?;
    api.roster.pause(&id)?;
    api.roster.saved().await?;
    Ok(Json(Download::from(&row(&api, &id)?)))
}

pub(super) async fn resume(
    State(api): State<Api>,
    Named(id): Named,
) -> Result<Json<Download>, ApiError> {
    let id = parse(&id)?;
    resume_one(&api, &id)?;
    api.roster.saved().await?;
    Ok(Json(Download::from(&row(&api, &id)?)))
}

fn resume_one(api: &Api, id: &DownloadId) -> Result<bool, ApiError> {
    refuse_when_stopping(api)?;
    Ok(api.roster.resume(id)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveParams {
    #[serde(default)]
    files: bool,
}

pub(super) async fn remove(
    State(api): State<Api>,
    Named(id): Named,
    Params(RemoveParams { files }): Params<RemoveParams>,
) -> Result<Json<Changed>, ApiError> {
    let changed = api.roster.remove(&[parse(&id)?], files).await?;
    api.roster.saved().await?;
    Ok(Json(Changed { changed }))
}

pub(super) async fn pause_many(
    State(api): State<Api>,
    Json(which): Json<Which>,
) -> Result<Json<Changed>, ApiError> {
    let running = |state| state == RosterState::Running;
    let ids = chosen(&api, which.ids, which.all, running)?;
    let mut changed = 0;
    for id in &ids {
        changed += usize::from(api.roster.pause(id)?);
    }
    api.roster.saved().await?;
    Ok(Json(Changed { changed }))
}

pub(super) async fn resume_many(
    State(api): State<Api>,
    Json(which): Json<Which>,
) -> Result<Json<Changed>, ApiError> {
    let idle = |state| matches!(state, RosterState::Paused | RosterState::Failed);
    let ids = chosen(&api, which.ids, which.all, idle)?;
    let mut changed = 0;
    for id in &ids {
        changed += usize::from(resume_one(&api, id)?);
    }
    api.roster.saved().await?;
    Ok(Json(Changed { changed }))
}

pub(super) async fn remove_many(
    State(api): State<Api>,
    Json(which): Json<Remove>,
) -> Result<Json<Changed>, ApiError> {
    let ids = chosen(&api, which.ids, which.all, |_| true)?;
    let files = which.files.unwrap_or(false);
    let changed = api.roster.remove(&ids, files).await?;
    api.roster.saved().await?;
    Ok(Json(Changed { changed }))
}

/// Returns the IDs that a request names, all of which exist.
fn chosen(
    api: &Api,
    ids: Option<Vec<String>>,
    all: Option<bool>,
    wanted: impl Fn(RosterState) -> bool,
) -> Result<Vec<DownloadId>, ApiError> {
    match (ids, all) {
        (None, Some(true)) => Ok(api.roster.ids(wanted)),
        (Some(ids), None) => {
            let known = |id: &String| {
                let id = parse(id)?;
                row(api, &id).map(|_| id)
            };
            ids.iter().map(known).collect()
        }
        _ => {
            let message = "give exactly one of `ids` and `all: true`";
            Err(ApiError::new(Code::BadRequest, message))
        }
    }
}

pub(super) fn parse(text: &str) -> Result<DownloadId, ApiError> {
    Ok(text.parse::<DownloadId>()?)
}

pub(super) fn row(api: &Api, id: &DownloadId) -> Result<RosterRow, ApiError> {
    api.roster
        .get(id)
        .ok_or_else(|| qshare_node::NoSuchDownload.into())
}

/// Refuses to begin something that would be stopped at once.
pub(super) fn refuse_when_stopping(api: &Api) -> Result<(), ApiError> {
    match api.quit.is_cancelled() {
        true => Err(ApiError::new(Code::Stopping, "the node is stopping")),
        false => Ok(()),
    }
}

fn stage_of(row: &RosterRow) -> StageName {
    match (row.state, row.progress.stage) {
        (RosterState::Paused, _) => StageName::Paused,
        (RosterState::Failed, _) => StageName::Failed,
        (RosterState::Complete, _) | (_, Stage::Complete) => StageName::Complete,
        (RosterState::Running, Stage::Queued | Stage::Stopped) => StageName::Queued,
        (RosterState::Running, Stage::Recovering) => StageName::Recovering,
        (RosterState::Running, Stage::Searching) => StageName::Searching,
        (RosterState::Running, Stage::Fetching) => StageName::Fetching,
        (RosterState::Running, Stage::Finishing) => StageName::Finishing,
    }
}

impl From<&RosterRow> for Download {
    fn from(row: &RosterRow) -> Download {
        let progress = &row.progress;
        let failed = row.error.as_ref().map(failed);
        Download {
            id: row.id.to_string(),
            content: row.info.id().to_string(),
            name: row.name.to_string(),
            kind: FileKind::new(row.is_folder),
            path: super::absolute(row.path.clone()).display().to_string(),
            stage: stage_of(row),
            added_at: row.added_at.into(),
            ended_at: row.ended_at.map(Into::into),
            size_bytes: progress.total_bytes,
            verified_bytes: progress.verified_bytes,
            files: progress.files.map(|files| files.total),
            complete_files: progress.files.map(|files| files.complete),
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress.time_left.map(|left| left.as_secs()),
            sources: progress.sources,
            priority: row.priority.into(),
            limit_bytes_per_second: row.limit.bytes_per_second(),
            trouble: progress.trouble.as_ref().map(ToString::to_string),
            error_code: failed.as_ref().map(|error| error.code.parts().0.to_owned()),
            error: failed.map(|error| error.message),
            why: row.why.iter().map(Why::from).collect(),
        }
    }
}

impl From<&CauseShare> for Why {
    fn from(share: &CauseShare) -> Why {
        // A unit variant of an enum is written as its name.
        let cause = serde_json::to_value(share.cause);
        let cause = cause
            .ok()
            .and_then(|cause| cause.as_str().map(str::to_owned));
        Why {
            cause: cause.unwrap_or_default(),
            percent: share.percent,
        }
    }
}

/// Returns why a download failed, in the terms of the API.
fn failed(error: &Arc<DownloadError>) -> ApiError {
    let told = ApiError::from(messages::download(error, Reader::Prompt));
    match &**error {
        DownloadError::Internal(_) => told.with_code(Code::Internal),
        DownloadError::Disk(_) => told.with_code(Code::Disk),
        DownloadError::VerificationFailed { .. }
        | DownloadError::OtherDigest { .. }
        | DownloadError::InvalidFolder { .. } => told.with_code(Code::Unverified),
        DownloadError::Changed { .. } => told.with_code(Code::Changed),
        DownloadError::List(first) | DownloadError::Files { first, .. } => {
            told.with_code(failed(first).code)
        }
        _ => told,
    }
}

/// Returns the detail of a download.
pub(super) fn detail_of(api: &Api, id: &DownloadId) -> Result<DownloadDetail, ApiError> {
    let row = row(api, id)?;
    let status = api.roster.status(id);
    Ok(detail_from(&row, status.as_ref()))
}

pub(super) fn detail_from(row: &RosterRow, status: Option<&DownloadStatus>) -> DownloadDetail {
    let swarm = status.map(|status| status.swarm.clone());
    let mut swarm = swarm.unwrap_or_default();
    swarm
        .peers
        .sort_by_key(|peer| (std::cmp::Reverse(peer.received_bytes), peer.node));
    let sources = swarm.peers.iter().take(SOURCES_MAX);
    DownloadDetail {
        download: Download::from(row),
        chunks: swarm.chunks,
        verified_chunks: swarm.verified_chunks,
        open_chunks: swarm.open_chunks,
        unheld_chunks: swarm.unheld_chunks,
        in_flight_bytes: swarm.in_flight_bytes,
        reused_bytes: row.progress.reused_bytes,
        received_bytes: swarm.received_bytes,
        wasted_bytes: swarm.wasted_bytes,
        possible_bytes_per_second: swarm.possible_bytes_per_second,
        sources: sources.map(Source::from).collect(),
    }
}

impl From<&PeerView> for Source {
    fn from(peer: &PeerView) -> Source {
        let again = peer.asked_again_in.filter(|again| !again.is_zero());
        Source {
            node: peer.node.to_string(),
            address: peer.address.to_string(),
            path: peer.path.into(),
            // Of a source of earlier files of a folder, it is not known.
            rtt_ms: (!peer.rtt.is_zero()).then(|| millis(peer.rtt)),
            chunks: peer.chunks,
            wanted_chunks: peer.wanted_chunks,
            waiting: peer.waiting,
            answering: peer.answering,
            outstanding_bytes: peer.outstanding_bytes,
            queue_bytes: peer.queue_bytes,
            received_bytes: peer.received_bytes,
            verified_bytes: peer.verified_bytes,
            verified_chunks: peer.verified_chunks,
            bytes_per_second: peer.bytes_per_second,
            asked_again_in_ms: again.map(|again| again.as_millis() as u64),
            dropped: peer.dropped.clone(),
        }
    }
}

/// Returns the map of verified chunks.
pub(super) fn map_of(id: &DownloadId, known: Option<&VerifiedChunks>) -> ChunkMap {
    let runs = known.map(|known| runs(known.verified.iter()));
    ChunkMap {
        id: id.to_string(),
        chunks: known.map_or(0, |known| known.verified.len()),
        chunk_bytes: known.map_or(0, |known| known.chunk_bytes),
        verified: runs.unwrap_or_default(),
    }
}

/// Returns chunks in ascending order as runs: first chunk, number of chunks, first, number.
pub(super) fn runs(chunks: impl Iterator<Item = ChunkIndex>) -> Vec<u32> {
    let mut runs: Vec<u32> = Vec::new();
    for ChunkIndex(chunk) in chunks {
        match runs.as_mut_slice() {
            [.., first, count] if *first + *count == chunk => *count += 1,
            _ => runs.extend([chunk, 1]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_runs() {
        let of = |chunks: &[u32]| runs(chunks.iter().map(|&chunk| ChunkIndex(chunk)));
        assert_eq!(of(&[]), [0u32; 0]);
        assert_eq!(of(&[0, 1, 2, 5, 7, 8]), [0, 3, 5, 1, 7, 2]);
        assert_eq!(of(&[9]), [9, 1]);
    }
}
