//! Which requests are let in: the name they were sent to, where they come from, and the token.
//!
//! A page of a stranger in the same browser can send requests here. Three checks stop it:
//!
//! - `Host` must be an address or a name that is known to mean this machine. A stranger can make
//!   their own name point here (DNS rebinding), after which the browser takes their page and this
//!   server for one site; but they cannot choose the name that the browser sends.
//! - `Origin`, which browsers add where a request may change something, must be this server.
//! - The API wants the token, which is in the page's own storage and in no cookie, so that the
//!   browser adds it to no request by itself.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::debug;

use super::token::Token;

/// Longest path with its query in bytes. The longest that the API needs is a name of 4 KiB, each
/// byte of which is three when it is percent-encoded.
const PATH_MAX: usize = 16 * 1024;

/// The checks of one server.
pub(super) struct Guard {
    scheme: &'static str,
    token: Token,
    hosts: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Host,
    Origin,
    Token,
    Path,
}

impl Guard {
    pub(super) fn new(scheme: &'static str, token: Token, hosts: Vec<String>) -> Guard {
        Guard {
            scheme,
            token,
            hosts,
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        self.scheme
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if uri
            .path_and_query()
            .is_some_and(|it| it.as_str().len() > PATH_MAX)
        {
            return Err(Refusal::Path);
        }
        let host = only(headers, header::HOST).ok_or(Refusal::Host)?;
        if !self.is_ours(host) {
            return Err(Refusal::Host);
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str() != host)
        {
            return Err(Refusal::Host);
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, header::ORIGIN).ok_or(Refusal::Origin)?;
            let is_same = origin
                .strip_prefix(self.scheme)
                .and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|place| place.eq_ignore_ascii_case(host));
            // A browser that shows an answer of the gateway puts it into a sandbox, from where the
            // player asks for the rest. The capability in the path is what admits it.
            let is_player = origin == "null" && uri.path().starts_with("/d/");
            if !is_same && !is_player {
                return Err(Refusal::Origin);
            }
        }
        if !uri.path().starts_with("/api/") {
            return Ok(());
        }
        // Older browsers do not send it, which the token makes up for.
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if matches!(site, Some(b"cross-site" | b"same-site")) {
            return Err(Refusal::Origin);
        }
        let claimed = only(headers, header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match claimed {
            Some((_, claimed)) if self.token.is(claimed.trim().as_bytes()) => Ok(()),
            _ => Err(Refusal::Token),
        }
    }

    /// Returns whether `Host` names this machine. The port does not matter: a forwarded port (`ssh
    /// -L`) has another.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || (self.hosts.iter()).any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Returns the value of a header that occurs exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Refuses a request, or answers it with the headers that every answer has.
pub(super) async fn check(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = match guard.judge(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            debug!(
                ?refusal,
                path = request.uri().path(),
                "HTTP request refused"
            );
            refusal.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let gateway = headers.contains_key(header::ACCEPT_RANGES);
    if !gateway {
        headers.insert(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        );
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    if is_api {
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message, hint) = match self {
            Refusal::Host => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "the request was sent to a name that is not known to be this machine",
                "Open the page by an IP address or as localhost, or start the node with \
                 --http-host NAME",
            ),
            Refusal::Origin => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "the request comes from a page of another site",
                "Open the page at the address that the node printed",
            ),
            Refusal::Token => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the token is missing or wrong",
                "Send it as `Authorization: Bearer TOKEN`; the node prints it when it starts",
            ),
            Refusal::Path => (
                StatusCode::URI_TOO_LONG,
                "bad_request",
                "the path is too long",
                "Send long texts in the body",
            ),
        };
        let body = json!({"error": {"code": code, "message": message, "hint": hint}});
        let mut response = (status, Json(body)).into_response();
        if self == Refusal::Token {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"qshare\""),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let options = std::os::unix::fs::OpenOptionsExt::mode(
            std::fs::OpenOptions::new().write(true).create(true),
            0o600,
        )
        .open(&file);
        std::io::Write::write_all(&mut options.unwrap(), b"0123456789abcdef").unwrap();
        let token = Token::load_or_create(&file).unwrap();
        let guard = Guard::new("http", token, vec!["nas.local".into()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        guard.judge(&path.parse().unwrap(), &map)
    }

    const TOKEN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");

    #[test]
    fn only_addresses_localhost_and_given_names_are_this_machine() {
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "192.168.1.2",
            "localhost:9",
            "LOCALHOST",
            "nas.local:8080",
        ] {
            assert_eq!(judge("/", &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "",
            "[::1",
        ] {
            assert_eq!(judge("/", &[("host", host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(judge("/", &[]), Err(Refusal::Host));
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert_eq!(judge("/", &twice), Err(Refusal::Host));
        let absolute = judge("http://evil.example/", &[("host", "127.0.0.1")]);
        assert_eq!(absolute, Err(Refusal::Host));
    }

    #[test]
    fn the_api_wants_the_token_and_nothing_from_other_sites() {
        let host = ("host", "127.0.0.1:8080");
        let api = "/api/1/status";
        assert_eq!(judge(api, &[host, TOKEN]), Ok(()));
        assert_eq!(judge(api, &[host]), Err(Refusal::Token));
        for wrong in [
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Basic 0123456789abcdef",
        ] {
            let headers = [host, ("authorization", wrong)];
            assert_eq!(judge(api, &headers), Err(Refusal::Token), "{wrong}");
        }
        for origin in [
            "http://127.0.0.1:8081",
            "https://127.0.0.1:8080",
            "http://evil.example",
            "null",
        ] {
            let headers = [host, TOKEN, ("origin", origin)];
            assert_eq!(judge(api, &headers), Err(Refusal::Origin), "{origin}");
        }
        assert_eq!(judge("/d/x/y", &[host, ("origin", "null")]), Ok(()));
        let evil = [host, ("origin", "http://evil.example")];
        assert_eq!(judge("/d/x/y", &evil), Err(Refusal::Origin));
        let own = [host, TOKEN, ("origin", "http://127.0.0.1:8080")];
        assert_eq!(judge(api, &own), Ok(()));
        let elsewhere = [host, TOKEN, ("sec-fetch-site", "cross-site")];
        assert_eq!(judge(api, &elsewhere), Err(Refusal::Origin));
    }

    #[test]
    fn a_long_path_is_refused() {
        let path = format!("/{}", "x".repeat(PATH_MAX));
        assert_eq!(judge(&path, &[("host", "localhost")]), Err(Refusal::Path));
    }
}
