//! Folders through the gateway: a page that lists the files, and the files at their paths.

use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use percent_encoding::utf8_percent_encode;
use qshare_node::content::manifest::FolderList;

use super::{IN_PATHS, POLICY};

/// Files in one page. More are reached by their paths.
const LISTED_MAX: u32 = 10_000;

/// Returns the number of a file in a folder by its path.
pub(super) fn find(list: &FolderList, path: &str) -> Option<u32> {
    (0..list.file_count()).find(|&at| list.name(at) == Some(path))
}

/// Answers with a page that lists a folder's files. Their names are a stranger's text.
pub(super) fn page(name: &str, list: &FolderList) -> Response {
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{0}</title><style>body{{font:1rem/1.6 system-ui;margin:2rem;max-width:60rem}}\
         li{{display:flex;gap:1rem;justify-content:space-between;overflow-wrap:anywhere}}\
         ul{{padding:0}}</style><h1>{0}</h1><ul>",
        escaped(name)
    );
    for at in 0..list.file_count().min(LISTED_MAX) {
        let (Some(path), Some(info)) = (list.name(at), list.info(at)) else {
            continue;
        };
        page += &format!(
            "<li><a href=\"{}\">{}</a><span>{}</span></li>",
            utf8_percent_encode(path, IN_PATHS),
            escaped(path),
            crate::output::bytes(info.length)
        );
    }
    page += "</ul>";
    if list.file_count() > LISTED_MAX {
        page += &format!("<p>and {} more</p>", list.file_count() - LISTED_MAX);
    }
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = HeaderValue::from_static(POLICY);
    let caching = HeaderValue::from_static("private, no-cache");
    (
        [
            (header::CONTENT_TYPE, html),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, caching),
        ],
        page,
    )
        .into_response()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_no_markup() {
        assert_eq!(
            escaped("<b a=\"1\" c='2'>&"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;"
        );
    }
}
