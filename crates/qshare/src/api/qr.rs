//! QR codes as SVG.

use std::fmt::Write;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use qrcode::{Color, EcLevel, QrCode};

use super::Api;
use super::error::{ApiError, Code};
use super::extract::Json;
use super::objects::Text;

/// Longest text. A QR code holds 2,331 bytes at this level of error correction.
const TEXT_MAX_BYTES: usize = 2000;
/// Width of the white border, in modules (ISO/IEC 18004).
const QUIET_ZONE: usize = 4;

pub(super) async fn of_text(
    State(_): State<Api>,
    Json(text): Json<Text>,
) -> Result<Response, ApiError> {
    svg(&text.text)
}

/// Returns a text as QR code, black on white.
pub(super) fn svg(text: &str) -> Result<Response, ApiError> {
    let too_long = || {
        let message = format!("a QR code holds at most {TEXT_MAX_BYTES} bytes");
        ApiError::new(Code::BadRequest, message)
    };
    if text.len() > TEXT_MAX_BYTES {
        return Err(too_long());
    }
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(|_| too_long())?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("image/svg+xml")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, draw(&code)).into_response())
}

/// Draws one path, with a rectangle for each run of dark modules in a row.
fn draw(code: &QrCode) -> String {
    let (width, colors) = (code.width(), code.to_colors());
    let side = width + 2 * QUIET_ZONE;
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|one, other| one == other) {
            if run.first() == Some(&Color::Dark) {
                let (left, top) = (x + QUIET_ZONE, y + QUIET_ZONE);
                let length = run.len();
                // Writing into a string cannot fail.
                let _ = write!(path, "M{left} {top}h{length}v1h-{length}z");
            }
            x += run.len();
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
         shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{side}v{side}h-{side}z\"/>\
         <path d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_dark_modules_and_a_quiet_zone() {
        let code = QrCode::new("qshare").unwrap();
        let svg = draw(&code);
        let dark = code.to_colors();
        let dark = dark.iter().filter(|color| **color == Color::Dark).count();
        let drawn: usize = svg
            .split('h')
            .skip(1)
            .filter_map(|rest| rest.split_once("v1"))
            .filter_map(|(length, _)| length.parse::<usize>().ok())
            .sum();
        assert_eq!(drawn, dark);
        // A finder pattern, 7 modules wide, is in the corner.
        assert!(svg.contains("M4 4h7v1"), "{svg}");
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 29 29\""));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        assert!(svg(&"x".repeat(TEXT_MAX_BYTES)).is_ok());
        let error = svg(&"x".repeat(TEXT_MAX_BYTES + 1)).unwrap_err();
        assert_eq!(error.code, Code::BadRequest);
    }
}
