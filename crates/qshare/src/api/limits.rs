//! Rate limits of the node, and priority and limit of a download.

use axum::extract::State;
use qshare_node::{RateLimit, RateLimits};

use super::Api;
use super::downloads::{parse, row};
use super::error::{ApiError, Code};
use super::extract::{Json, Named};
use super::objects::{Download, DownloadChange, Limits, LimitsChange};

/// Returns the limits in force.
pub(super) fn in_force(api: &Api) -> Limits {
    let limits = api.node.rate_limits();
    Limits {
        up_bytes_per_second: limits.up.bytes_per_second(),
        down_bytes_per_second: limits.down.bytes_per_second(),
    }
}

pub(super) async fn get(State(api): State<Api>) -> Json<Limits> {
    Json(in_force(&api))
}

pub(super) async fn change(
    State(api): State<Api>,
    Json(change): Json<LimitsChange>,
) -> Result<Json<Limits>, ApiError> {
    let before = api.node.rate_limits();
    let up = limit("up_bytes_per_second", change.up_bytes_per_second)?;
    let down = limit("down_bytes_per_second", change.down_bytes_per_second)?;
    api.node.set_rate_limits(RateLimits {
        up: up.unwrap_or(before.up),
        down: down.unwrap_or(before.down),
    });
    Ok(Json(in_force(&api)))
}

pub(super) async fn change_download(
    State(api): State<Api>,
    Named(id): Named,
    Json(change): Json<DownloadChange>,
) -> Result<Json<Download>, ApiError> {
    let id = parse(&id)?;
    let limit = limit("limit_bytes_per_second", change.limit_bytes_per_second)?;
    let priority = change.priority.map(Into::into);
    api.roster.set_rates(&id, priority, limit)?;
    api.roster.saved().await?;
    Ok(Json(Download::from(&row(&api, &id)?)))
}

/// Returns a limit; 0 stands for none.
fn limit(field: &str, bytes_per_second: Option<u64>) -> Result<Option<RateLimit>, ApiError> {
    let Some(bytes_per_second) = bytes_per_second else {
        return Ok(None);
    };
    match RateLimit::from_bytes(bytes_per_second) {
        Ok(limit) => Ok(Some(limit)),
        Err(error) => {
            let message = format!("`{field}` is not a rate limit: {error}");
            Err(ApiError::new(Code::BadRequest, message))
        }
    }
}
