//! The gateway: reads of single contents by plain HTTP, for players, browsers and curl.
//!
//! `GET /d/CAPABILITY/NAME` needs no token. The capability is a random number that the API makes
//! for one content: it lets its holder read that content until it expires or is revoked, and
//! nothing else. The bytes are verified; those that this node lacks are fetched in order, ahead of
//! the reader, and only for as long as somebody reads.

mod capabilities;
mod file_type;
mod folder;
mod range;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qshare_node::content::manifest::FolderList;
use qshare_node::content::{AssetName, ContentInfo, NodeAddress, ShareKey};
use qshare_node::{
    Contact, ContentReader, DownloadRequest, FolderReader, Node, StreamError, Target,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::debug;

use capabilities::Capabilities;
pub(crate) use capabilities::{Capability, Secret, TooMany};
use range::Wanted;

/// Where the gateway's paths begin.
const PREFIX: &str = "/d/";

/// What a browser may do with an answer that it shows: play and display it. The sandbox gives it an
/// origin of its own, so that it is never this server to the browser.
const POLICY: &str = "sandbox; default-src 'none'; media-src 'self'; img-src 'self'; \
     style-src 'unsafe-inline'";

/// How long a read waits for a source.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a path that stay as they are: unreserved characters of RFC 3986, and the slash.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// A content that can be read, and where it may be fetched.
#[derive(Clone)]
pub(crate) struct Readable {
    /// Its name, which decides its content type.
    pub(crate) name: AssetName,
    /// Length and root.
    pub(crate) info: ContentInfo,
    /// The key of a private share.
    pub(crate) share_key: Option<ShareKey>,
    /// Of a folder, its files; then the rest is about the list of them.
    pub(crate) list: Option<Arc<FolderList>>,
    /// Of a folder of other nodes, how its files are fetched.
    pub(crate) remote: Option<Arc<FolderReader>>,
    /// Nodes that a link named.
    pub(crate) nodes: Vec<NodeAddress>,
    /// Nodes that a lookup found.
    pub(crate) holders: Vec<Contact>,
}

/// The gateway of a node. Clones are the same.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    node: Node,
    capabilities: Capabilities<Readable>,
}

impl Gateway {
    pub(crate) fn new(node: Node) -> Gateway {
        Gateway(Arc::new(Inner {
            node,
            capabilities: Capabilities::new(),
        }))
    }

    /// Makes a capability for a content that ends after `valid`.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when there are a thousand.
    pub(crate) fn make(
        &self,
        content: Readable,
        valid: Duration,
    ) -> Result<Capability<Readable>, TooMany> {
        let now = SystemTime::now();
        self.0.capabilities.make(content, now, valid)
    }

    /// Returns the capabilities that have not expired, soonest to expire first.
    pub(crate) fn list(&self) -> Vec<Capability<Readable>> {
        self.0.capabilities.list(SystemTime::now())
    }

    /// Ends a capability, and the answers that are under way; returns false if there is none.
    pub(crate) fn revoke(&self, secret: Secret) -> bool {
        self.0.capabilities.revoke(secret)
    }

    fn open(&self, content: &Readable, range: Range<u64>) -> Result<ContentReader, StreamError> {
        let of_folder = content.remote.as_ref();
        let of_folder = of_folder.and_then(|folder| {
            let list = folder.list();
            let id = content.info.id();
            folder.request(list.find_file(&id, |_| true)?)
        });
        if let Some(request) = of_folder {
            let request = request.give_up_after(PATIENCE);
            return self.0.node.read(request, range);
        }
        let target = Target::beneath(std::path::Path::new("."), content.name.clone());
        let request = DownloadRequest::new(content.name.clone(), content.info, target)
            .nodes(content.nodes.clone())
            .holders(content.holders.clone())
            .share_key(content.share_key.clone())
            .give_up_after(PATIENCE);
        self.0.node.read(request, range)
    }
}

/// Returns the path of a capability: `/d/CAPABILITY/NAME`; of a folder, with a slash at the end.
pub(crate) fn path_of(capability: &Capability<Readable>) -> String {
    let name = utf8_percent_encode(capability.content.name.as_str(), IN_PATHS);
    let end = capability.content.list.as_ref().map_or("", |_| "/");
    format!("{PREFIX}{}/{name}{end}", capability.secret.to_text())
}

/// Sets the headers of every answer, where no other layer does: a browser must not guess another
/// type, nor tell other sites the address.
pub(crate) async fn harden(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// What a path below a capability leads to.
enum Place {
    Content(Readable),
    /// The page of a folder.
    Page(Arc<FolderList>),
}

impl Readable {
    /// Returns what a name leads to. It decides the content type, so the client has no say in it.
    fn at(&self, name: &str) -> Option<Place> {
        let rest = name.strip_prefix(self.name.as_str())?;
        let Some(list) = &self.list else {
            return rest.is_empty().then(|| Place::Content(self.clone()));
        };
        let path = rest.strip_prefix('/')?;
        if path.is_empty() {
            return Some(Place::Page(list.clone()));
        }
        let file = list.file(folder::find(list, path)?)?;
        Some(Place::Content(Readable {
            name: file.name,
            info: file.info,
            list: None,
            ..self.clone()
        }))
    }
}

/// Returns the routes of the gateway.
pub(crate) fn routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/d/{capability}/{*name}", get(read))
        .with_state(gateway)
}

/// Why there is no answer with a content.
#[derive(Debug)]
enum Refusal {
    /// No such capability, or not with this name.
    Unknown,
    /// The bytes cannot be had.
    Unreadable(StreamError),
}

async fn read(
    State(gateway): State<Gateway>,
    Path((secret, name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let capability = Secret::parse(&secret)
        .and_then(|secret| gateway.0.capabilities.get(secret, SystemTime::now()))
        .ok_or(Refusal::Unknown)?;
    let content = match capability.content.at(&name).ok_or(Refusal::Unknown)? {
        Place::Content(content) => content,
        Place::Page(list) => return Ok(folder::page(capability.content.name.as_str(), &list)),
    };
    let length = content.info.length;
    let tag = format!("\"{}\"", content.info.id());
    let wanted = range::wanted(&headers, length, &tag);
    let is_sandboxed = (headers.get(header::ORIGIN)).is_some_and(|origin| origin == "null");
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if is_sandboxed {
        // The sandbox of `POLICY` makes a browser's player ask as a stranger.
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("null"),
        );
    }
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A cache asks again each time, so that a revoked capability is of no use.
    let caching = HeaderValue::from_static("private, no-cache");
    headers.insert(header::CACHE_CONTROL, caching);
    headers.insert(header::ETAG, text(tag));
    let part = match wanted {
        Wanted::NotModified => {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        Wanted::Mismatch => {
            *answer.status_mut() = StatusCode::PRECONDITION_FAILED;
            return Ok(answer);
        }
        Wanted::Unsatisfiable => {
            headers.insert(header::CONTENT_RANGE, text(format!("bytes */{length}")));
            *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(answer);
        }
        Wanted::Whole => 0..length,
        Wanted::Part(part) => {
            let (first, last) = (part.start, part.end - 1);
            headers.insert(
                header::CONTENT_RANGE,
                text(format!("bytes {first}-{last}/{length}")),
            );
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            part
        }
    };
    let headers = answer.headers_mut();
    let kind = file_type::of(name.as_str());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(kind.content_type),
    );
    headers.insert(header::CONTENT_DISPOSITION, kind.disposition);
    headers.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    if method != Method::HEAD && !part.is_empty() {
        let reader = gateway.open(&content, part).map_err(Refusal::Unreadable)?;
        *answer.body_mut() = body(reader, &capability)
            .await
            .map_err(Refusal::Unreadable)?;
    }
    Ok(answer)
}

/// Returns a header's value of a text in printable ASCII.
fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Waits for the first bytes and returns them with all others. The task that reads is one chunk
/// ahead of the connection; it ends with the client, and with the capability.
async fn body(
    mut reader: ContentReader,
    capability: &Capability<Readable>,
) -> Result<Body, StreamError> {
    let Some(first) = reader.next().await? else {
        return Ok(Body::empty());
    };
    let (chunks, received) = mpsc::channel::<Result<Bytes, StreamError>>(1);
    let revoked = capability.revoked.clone();
    let left = capability.expires_at.duration_since(SystemTime::now());
    tokio::spawn(async move {
        let expired = tokio::time::sleep(left.unwrap_or_default());
        let reading = async {
            let mut next = Ok(Some(first));
            loop {
                let (bytes, is_end) = match next {
                    Ok(Some(bytes)) => (Ok(bytes), false),
                    Ok(None) => return,
                    Err(error) => {
                        debug!(%error, "gateway: the answer ends early");
                        (Err(error), true)
                    }
                };
                if chunks.send(bytes).await.is_err() || is_end {
                    return;
                }
                next = reader.next().await;
            }
        };
        // A body that ends before its length tells the client that something is missing.
        tokio::select! {
            () = reading => {}
            () = chunks.closed() => debug!("gateway: the client left"),
            () = revoked.cancelled() => debug!("gateway: the capability was revoked"),
            () = expired => debug!("gateway: the capability expired"),
        }
    });
    Ok(Body::from_stream(ReceiverStream::new(received)))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Refusal::Unknown => (
                StatusCode::NOT_FOUND,
                "This address is not valid: it has expired, was revoked, or is incomplete.\n"
                    .to_owned(),
            ),
            Refusal::Unreadable(
                error @ (StreamError::TooManyContents { .. } | StreamError::TooManyReaders { .. }),
            ) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let retry = [(header::RETRY_AFTER, "2")];
                return (status, retry, format!("{error}\n")).into_response();
            }
            Refusal::Unreadable(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")),
        };
        (status, words).into_response()
    }
}
