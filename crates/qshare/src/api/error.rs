//! Failures as typed JSON.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qshare_node::{DiskError, NoSuchDownload, RemoveError};

use super::extract::Json;
use super::objects::{Failed, FailedBecause};
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};

/// The code of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadRequest,
    #[allow(dead_code, reason = "only HTTP on TCP has tokens")]
    Unauthorized,
    #[allow(dead_code, reason = "only HTTP on TCP has other origins")]
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    Ambiguous,
    TooLarge,
    UnsupportedMediaType,
    Busy,
    Internal,
    NotSupported,
    Unreachable,
    Unverified,
    Changed,
    Stopping,
    Disk,
}

impl Code {
    /// All codes, in the order of docs/api.md.
    #[cfg(test)]
    pub(crate) const ALL: [Code; 17] = [
        Code::BadRequest,
        Code::Unauthorized,
        Code::Forbidden,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::Ambiguous,
        Code::TooLarge,
        Code::UnsupportedMediaType,
        Code::Busy,
        Code::Internal,
        Code::NotSupported,
        Code::Unreachable,
        Code::Unverified,
        Code::Changed,
        Code::Stopping,
        Code::Disk,
    ];

    /// Returns the code as it is written in JSON, and its HTTP status.
    pub(crate) fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Code::BadRequest => ("bad_request", StatusCode::BAD_REQUEST),
            Code::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Code::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Code::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Code::Conflict => ("conflict", StatusCode::CONFLICT),
            Code::Ambiguous => ("ambiguous", StatusCode::CONFLICT),
            Code::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Code::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            Code::Busy => ("busy", StatusCode::TOO_MANY_REQUESTS),
            Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Code::NotSupported => ("not_supported", StatusCode::NOT_IMPLEMENTED),
            Code::Unreachable => ("unreachable", StatusCode::BAD_GATEWAY),
            Code::Unverified => ("unverified", StatusCode::BAD_GATEWAY),
            Code::Changed => ("changed", StatusCode::CONFLICT),
            Code::Stopping => ("stopping", StatusCode::SERVICE_UNAVAILABLE),
            Code::Disk => ("disk", StatusCode::INSUFFICIENT_STORAGE),
        }
    }
}

impl From<Exit> for Code {
    fn from(exit: Exit) -> Code {
        match exit {
            Exit::Failed => Code::Conflict,
            Exit::Usage => Code::BadRequest,
            Exit::NotFound => Code::NotFound,
            Exit::Unreachable | Exit::Unverified | Exit::Refused => Code::Unreachable,
            Exit::Disk => Code::Disk,
            Exit::Interrupted => Code::Stopping,
        }
    }
}

/// A failure of a request.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> ApiError {
        ApiError {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Returns a failure with another code.
    pub(crate) fn with_code(self, code: Code) -> ApiError {
        ApiError { code, ..self }
    }
}

impl From<Failure> for ApiError {
    /// The first line of a failure names it, the others are the remedy.
    fn from(failure: Failure) -> ApiError {
        let (message, hint) = match failure.message.split_once('\n') {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (failure.message, None),
        };
        ApiError {
            code: failure.exit.into(),
            message,
            hint,
        }
    }
}

impl From<NoSuchDownload> for ApiError {
    fn from(error: NoSuchDownload) -> ApiError {
        ApiError::new(Code::NotFound, error.to_string()).hint("`qshare status` lists them")
    }
}

impl From<DiskError> for ApiError {
    fn from(error: DiskError) -> ApiError {
        ApiError::from(messages::disk(&error, Reader::Prompt)).with_code(Code::Disk)
    }
}

impl From<RemoveError> for ApiError {
    fn from(error: RemoveError) -> ApiError {
        match error {
            RemoveError::NoSuchDownload(error) => error.into(),
            RemoveError::Disk(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, status) = self.code.parts();
        let body = Failed {
            error: FailedBecause {
                code: code.to_owned(),
                message: self.message,
                hint: self.hint,
            },
        };
        (status, Json(body)).into_response()
    }
}
