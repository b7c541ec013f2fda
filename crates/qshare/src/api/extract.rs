//! Parameters and bodies of requests, with typed failures; bodies of answers.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{ApiError, Code};

/// Longest body of a request, except for uploads.
pub(crate) const BODY_MAX_BYTES: usize = 1 << 20;
/// Deadline for the whole body of a request, except for uploads.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body. A response with it forbids caching.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let mut headers = HeaderMap::new();
                let json = HeaderValue::from_static("application/json");
                headers.insert(CONTENT_TYPE, json);
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                (headers, body).into_response()
            }
            Err(error) => {
                let code = Code::Internal.parts().1;
                tracing::error!(%error, "cannot encode an answer");
                code.into_response()
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Json<T>, ApiError> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let media_type = kind.split(';').next().unwrap_or("").trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let message = "the body is not declared as JSON";
            return Err(ApiError::new(Code::UnsupportedMediaType, message)
                .hint("Send the header Content-Type: application/json"));
        }
        let body = read(request.into_body()).await?;
        // The error of serde_json says what is wrong at which place, and repeats no values but
        // short ones of a wrong type.
        let parsed = serde_json::from_slice(&body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = match error.classify() {
                serde_json::error::Category::Data => without_values(&error),
                _ => "it is not JSON".to_owned(),
            };
            let message = format!("cannot read the body at line {line}, column {column}: {what}");
            ApiError::new(Code::BadRequest, message)
        })?;
        Ok(Json(parsed))
    }
}

/// Describes a field that is missing, unknown or of the wrong type. A value of a wrong type is not
/// repeated: it might be a link.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    // Only the names of fields are repeated, not values.
    match text.starts_with("invalid ") || text.starts_with("unknown variant ") {
        true => match text.rsplit_once(", expected ") {
            Some((_, expected)) => format!("expected {expected}"),
            None => "a field has a value of the wrong type".to_owned(),
        },
        false => text.to_owned(),
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, ApiError> {
    let whole = Limited::new(body, BODY_MAX_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Err(_) => {
            let message = format!(
                "the body did not arrive within {} s",
                BODY_TIMEOUT.as_secs()
            );
            Err(ApiError::new(Code::BadRequest, message))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {BODY_MAX_BYTES} bytes");
            Err(ApiError::new(Code::TooLarge, message))
        }
        Ok(Err(_)) => Err(ApiError::new(Code::BadRequest, "the body is incomplete")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// The parameters of a request.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Params(params)),
            Err(error) => {
                let cause = std::error::Error::source(&error);
                let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
                let message = format!("a parameter is invalid: {cause}");
                Err(ApiError::new(Code::BadRequest, message))
            }
        }
    }
}

/// The variable part of a route's path.
pub(crate) struct Named(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Named(text)),
            Err(_) => {
                let message = "the path is not percent-encoded UTF-8";
                Err(ApiError::new(Code::BadRequest, message))
            }
        }
    }
}

/// Where a page begins, and how long it may be.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    pub(crate) after: Option<String>,
    limit: Option<usize>,
}

/// Limits of a page.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;

impl Paging {
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        page_limit(self.limit)
    }
}

/// Returns how many rows a page may have.
pub(crate) fn page_limit(given: Option<usize>) -> Result<usize, ApiError> {
    match given.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => {
            let message = format!("`limit` must be between 1 and {PAGE_MAX}");
            Err(ApiError::new(Code::BadRequest, message))
        }
    }
}

/// Describes a cursor that no page returned.
pub(crate) fn no_cursor() -> ApiError {
    let message = "`after` is not a cursor that a page returned as `next`";
    ApiError::new(Code::BadRequest, message)
}
