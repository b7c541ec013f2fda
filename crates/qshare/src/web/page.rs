//! The files of the page, which are part of the program, and the headers that confine them.

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::IntoResponse;
use axum::routing::get;

/// What the page may do: load its own files, and talk to its own server. Images from `blob:` are QR
/// codes. With trusted types, a text that is assigned as markup is an error.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A page that uses features such as the camera does not come from here.
const PERMISSIONS: &str = "camera=(), microphone=(), geolocation=(), usb=(), serial=(), \
     payment=(), display-capture=(), clipboard-read=()";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal: $kind:expr, $file:literal;)*) => {
        &[$(($path, $kind, include_str!(concat!("page/", $file)))),*]
    };
}

/// Path, content type and text of each file.
const FILES: &[(&str, &str, &str)] = files! {
    "/": HTML, "index.html";
    "/style.css": CSS, "style.css";
    "/icon.svg": SVG, "icon.svg";
    "/app.js": SCRIPT, "app.js";
    "/dialogs.js": SCRIPT, "dialogs.js";
    "/dom.js": SCRIPT, "dom.js";
    "/downloads.js": SCRIPT, "downloads.js";
    "/draw.js": SCRIPT, "draw.js";
    "/find.js": SCRIPT, "find.js";
    "/format.js": SCRIPT, "format.js";
    "/model.js": SCRIPT, "model.js";
    "/node.js": SCRIPT, "node.js";
    "/shares.js": SCRIPT, "shares.js";
    "/transport.js": SCRIPT, "transport.js";
};

/// Returns the routes of the page.
pub(super) fn routes() -> Router {
    FILES
        .iter()
        .fold(Router::new(), |router, &(path, kind, text)| {
            router.route(path, get(move || async move { file(kind, text) }))
        })
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(PAGE_POLICY),
        ),
        // The files change with the program, whose next version may listen on the same port.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static(PERMISSIONS),
        ),
    ];
    let headers: HeaderMap = headers.into_iter().collect();
    (headers, Bytes::from_static(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/page");
        let there: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let served = FILES.iter().map(|(path, _, _)| match *path {
            "/" => "index.html".to_owned(),
            path => path[1..].to_owned(),
        });
        assert_eq!(served.collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_has_no_inline_scripts_or_styles() {
        for (path, kind, text) in FILES {
            // Names of XML vocabularies are not loaded.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in ["http://", "https://", "innerHTML", "outerHTML", "eval("] {
                assert!(!text.contains(forbidden), "{path}: {forbidden}");
            }
            if *kind == HTML {
                for forbidden in ["style=", "<style", "onclick", "javascript:"] {
                    assert!(!text.contains(forbidden), "{path}: {forbidden}");
                }
            }
        }
    }
}
