//! What a browser is told about a file: its content type, and whether to show or to save it.

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of a parameter value that are not encoded: `attr-char` of RFC 8187.
const NOT_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

const UNKNOWN: &str = "application/octet-stream";

/// Types that a browser shows without running anything in them, by extension. All others are
/// saved: HTML, SVG and XML could hold scripts.
const SHOWN: &[(&str, &str)] = &[
    ("aac", "audio/aac"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("log", "text/plain; charset=utf-8"),
    ("m4a", "audio/mp4"),
    ("m4v", "video/mp4"),
    ("md", "text/plain; charset=utf-8"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("oga", "audio/ogg"),
    ("ogg", "audio/ogg"),
    ("ogv", "video/ogg"),
    ("opus", "audio/ogg"),
    ("png", "image/png"),
    ("srt", "text/plain; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
];

/// Types that are saved.
const SAVED: &[(&str, &str)] = &[
    ("csv", "text/csv; charset=utf-8"),
    ("epub", "application/epub+zip"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("json", "application/json"),
    ("pdf", "application/pdf"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("xhtml", "application/xhtml+xml"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// The headers of a file.
pub(super) struct FileType {
    /// `Content-Type`.
    pub(super) content_type: &'static str,
    /// `Content-Disposition`, with the file's name.
    pub(super) disposition: HeaderValue,
}

/// Returns the headers for a file by its name.
pub(super) fn of(name: &str) -> FileType {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    let find = |types: &'static [(&str, &'static str)]| {
        let mut types = types.iter();
        types.find(|(known, _)| extension.eq_ignore_ascii_case(known))
    };
    let (kind, content_type) = match (find(SHOWN), find(SAVED)) {
        (Some((_, content_type)), _) => ("inline", *content_type),
        (None, Some((_, content_type))) => ("attachment", *content_type),
        (None, None) => ("attachment", UNKNOWN),
    };
    FileType {
        content_type,
        disposition: disposition(kind, file),
    }
}

/// Returns the header with the name twice: in ASCII for old clients, and encoded (RFC 8187).
fn disposition(kind: &str, file: &str) -> HeaderValue {
    let plain: String = file
        .chars()
        .map(|c| match c {
            ' '..='~' if !matches!(c, '"' | '\\' | '%') => c,
            _ => '_',
        })
        .collect();
    let encoded = utf8_percent_encode(file, NOT_ENCODED);
    let text = format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    // The text is printable ASCII.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_shown_and_documents_that_hold_scripts_are_saved() {
        for (name, content_type, kind) in [
            ("a/film.webm", "video/webm", "inline"),
            ("SONG.MP3", "audio/mpeg", "inline"),
            ("readme.txt", "text/plain; charset=utf-8", "inline"),
            ("x.html", "text/html; charset=utf-8", "attachment"),
            ("x.SVG", "image/svg+xml", "attachment"),
            ("x.xml", "application/xml", "attachment"),
            ("x.xhtml", "application/xhtml+xml", "attachment"),
            ("x.js", UNKNOWN, "attachment"),
            ("noextension", UNKNOWN, "attachment"),
            ("webm", UNKNOWN, "attachment"),
        ] {
            let found = of(name);
            assert_eq!(found.content_type, content_type, "{name}");
            let disposition = found.disposition.to_str().unwrap();
            assert!(disposition.starts_with(kind), "{name}: {disposition}");
        }
    }

    #[test]
    fn a_name_is_encoded_and_has_a_plain_form() {
        let shown = of("dir/na\"ïve; 数.txt").disposition;
        assert_eq!(
            shown.to_str().unwrap(),
            "inline; filename=\"na__ve; _.txt\"; \
             filename*=UTF-8''na%22%C3%AFve%3B%20%E6%95%B0.txt"
        );
    }
}
