//! Rate limits of the node, and priority and limit of a download.

use axum::extract::State;

use super::Api;
use super::error::{ApiError, Code};
use super::extract::{Json, Named};
use super::objects::{Download, DownloadChange, Limits, LimitsChange};

/// Returns the limits in force.
pub(super) fn in_force(_: &Api) -> Limits {
    Limits::default()
}

pub(super) async fn get(State(api): State<Api>) -> Json<Limits> {
    Json(in_force(&api))
}

pub(super) async fn change(
    State(api): State<Api>,
    Json(change): Json<LimitsChange>,
) -> Result<Json<Limits>, ApiError> {
    match change {
        LimitsChange {
            up_bytes_per_second: None | Some(0),
            down_bytes_per_second: None | Some(0),
        } => Ok(Json(in_force(&api))),
        _ => Err(not_supported()),
    }
}

pub(super) async fn change_download(
    State(_): State<Api>,
    Named(_): Named,
    Json(_): Json<DownloadChange>,
) -> Result<Json<Download>, ApiError> {
    Err(not_supported())
}

fn not_supported() -> ApiError {
    ApiError::new(Code::NotSupported, "this node has no rate limits")
}
