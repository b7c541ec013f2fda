//! Accepts connections and answers HTTP on them, within bounds. It serves the control socket, the
//! web page and a tracker's pages for its operator.
//!
//! | bound | value |
//! |---|---|
//! | connections | [`places`]: 256 for each server, shared fairly among networks |
//! | TLS handshake, head of a request | [`HEAD_MAX`] |
//! | bytes of the head, headers | [`BUFFER_MAX`], [`HEADERS_MAX`] |
//! | pause within a request's body | [`patience`]: 30 s |
//! | pause of a client that does not read | [`Door::WRITE_PAUSE_MAX`] |

mod patience;
mod places;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use patience::Patient;
pub(crate) use patience::limit_body;
use places::{Place, Places};

/// Time for the TLS handshake, and for the head of the next request. An idle connection is closed
/// after it, too.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Buffer of a connection, which bounds the head of a request: 16 KiB of path, and headers.
const BUFFER_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// Connections beyond the limit that get an answer which says so; further ones are dropped.
const REFUSALS_MAX: usize = 32;
/// Pause after `accept` failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for answers under way when the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// Where connections come from.
pub(crate) trait Door: Send + Sync + 'static {
    /// A connection that was accepted.
    type Accepted: Send + 'static;
    /// A connection on which HTTP is spoken.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Longest time that a client may read nothing while an answer waits for it. A player that
    /// pauses for longer asks for the rest with a range.
    const WRITE_PAUSE_MAX: Duration = Duration::from_secs(120);

    /// Waits for a connection, and returns it with the client's address. May be cancelled.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Accepted, IpAddr)>> + Send;

    /// Checks who the client is, and prepares the connection: a TLS handshake, for example.
    fn open(
        &self,
        accepted: Self::Accepted,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain HTTP on TCP.
impl Door for TcpListener {
    type Accepted = TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, from) = TcpListener::accept(self).await?;
        Ok((stream, from.ip()))
    }

    async fn open(&self, accepted: TcpStream) -> io::Result<TcpStream> {
        Ok(accepted)
    }
}

/// Why a connection is answered.
enum Admission {
    /// It has a place.
    Place(Place),
    /// It has none, and is told so.
    Refusal { _slot: OwnedSemaphorePermit },
}

impl Admission {
    /// Waits until the connection has to make room for another network's.
    async fn ended(&self) {
        match self {
            Admission::Place(place) => place.yielded.cancelled().await,
            Admission::Refusal { .. } => std::future::pending().await,
        }
    }
}

/// Serves until `stop` is cancelled, then gives answers under way a moment to end.
pub(crate) async fn serve<D: Door>(door: D, routes: Router, stop: CancellationToken) {
    let door = Arc::new(door);
    let places = Arc::new(Places::new());
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let tasks = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(door.accept()).await {
        let (accepted, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (admission, routes) = match places.take(from) {
            Some(place) => (Admission::Place(place), routes.clone()),
            None => match refusals.clone().try_acquire_owned() {
                Ok(slot) => (
                    Admission::Refusal { _slot: slot },
                    Router::new().fallback(busy),
                ),
                Err(_) => {
                    debug!(%from, "HTTP connection dropped: too many from its network");
                    continue;
                }
            },
        };
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move {
            let served = async {
                let opened = timeout(HEAD_MAX, door.open(accepted));
                match stop.run_until_cancelled(opened).await {
                    Some(Ok(Ok(stream))) => {
                        let stream = Patient::new(stream, D::WRITE_PAUSE_MAX);
                        answer(stream, routes, HEAD_MAX, &stop).await;
                    }
                    Some(Ok(Err(error))) => debug!(%from, %error, "HTTP connection refused"),
                    Some(Err(_)) => debug!(%from, "TLS handshake timed out"),
                    None => {}
                }
            };
            tokio::select! {
                () = served => {}
                () = admission.ended() => debug!(%from, "HTTP connection yields"),
            }
        });
    }
    tasks.close();
    let _ = timeout(GRACE * 2, tasks.wait()).await;
}

async fn busy() -> Response {
    let body = json!({"error": {
        "code": "busy",
        "message": "too many connections are open",
        "hint": "Try again in a few seconds",
    }});
    let close = [(header::CONNECTION, "close")];
    (StatusCode::TOO_MANY_REQUESTS, close, Json(body)).into_response()
}

async fn answer<S>(stream: Patient<S>, routes: Router, head_max: Duration, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_max)
        .max_buf_size(BUFFER_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// Serves until the test ends.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(serve(listener, routes, CancellationToken::new()));
        address
    }

    async fn all_of(mut stream: impl AsyncRead + Unpin) -> String {
        let mut answer = Vec::new();
        // A connection that is reset has an answer, too: what came before.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_too_many_is_told_so_and_one_that_ends_makes_room() {
        let address = server().await;
        let mut open = Vec::new();
        for _ in 0..256 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            open.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let refused = all_of(stream).await;
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(refused.contains("\"code\":\"busy\""), "{refused}");
        drop(open);
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            if answer.ends_with(b"200") {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_head_is_left() {
        let stop = CancellationToken::new();
        for sent in [&REQUEST[..0], &REQUEST[..20]] {
            let (ours, mut theirs) = tokio::io::duplex(1000);
            theirs.write_all(sent).await.unwrap();
            let routes = Router::new().route("/", get(|| async { "here" }));
            let head_max = Duration::from_millis(10);
            // It ends although the client keeps the connection open.
            answer(Patient::new(ours, GRACE), routes, head_max, &stop).await;
            let answered = all_of(theirs).await;
            assert!(!answered.contains("200"), "{answered}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let address = server().await;
        // hyper takes what it reads at once, which may be somewhat more than the limit.
        let long = format!("X: {}\r\n\r\n", "x".repeat(4 * BUFFER_MAX));
        let many = "X: x\r\n".repeat(HEADERS_MAX + 1) + "\r\n";
        for headers in [long, many] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}");
            let _ = stream.write_all(head.as_bytes()).await;
            let answer = all_of(stream).await;
            // The reset of a connection with unread bytes may overtake the answer.
            let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 431");
            assert!(is_refused, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_socket_of_the_file_system_is_served_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let routes = Router::new().route("/", get(|| async { "here" }));
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, routes, stop.clone()));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // An idle connection does not keep the server from ending.
        stop.cancel();
        served.await.unwrap();
        all_of(stream).await;
    }
}
