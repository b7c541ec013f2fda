//! Accepts TCP connections and answers HTTP on them, within bounds for strangers.
//!
//! | bound | value |
//! |---|---|
//! | connections | [`CONNECTIONS_MAX`], shared fairly among networks |
//! | TLS handshake, request head | [`HEAD_MAX`] |
//! | pause within a request's body | [`BODY_PAUSE_MAX`] |
//! | pause of a client that does not read | [`WRITE_PAUSE_MAX`] |

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use qshare_node::content::fair::{Claim, FairShares, Network, User};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at once. A browser opens six; a connection costs at most some 100 KiB.
const CONNECTIONS_MAX: u64 = 256;
/// Time for the TLS handshake, and for the head of the next request.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Longest pause within the body of a request.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest time that a client may read nothing while an answer waits for it. A player that pauses
/// for longer asks for the rest with a range.
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(120);
/// Buffer of a connection, which bounds the head of a request: 16 KiB of path, and headers.
const BUFFER_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// Pause after `accept` failed, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for answers under way when the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// Serves until `stop` is cancelled.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Router,
    stop: CancellationToken,
) {
    let places = Arc::new(Places::new());
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take(from) else {
            debug!(%from, "HTTP connection refused: too many from its network");
            continue;
        };
        let (tls, routes, stop) = (tls.clone(), routes.clone(), stop.clone());
        tasks.spawn(async move {
            let served = async {
                match tls {
                    None => serve(stream, routes, &stop).await,
                    Some(tls) => match timeout(HEAD_MAX, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve(stream, routes, &stop).await,
                        Ok(Err(error)) => debug!(%from, %error, "TLS handshake failed"),
                        Err(_) => debug!(%from, "TLS handshake timed out"),
                    },
                }
            };
            tokio::select! {
                () = served => {}
                () = place.yielded.cancelled() => debug!(%from, "HTTP connection yields"),
            }
        });
    }
    tasks.close();
    let _ = timeout(GRACE, tasks.wait()).await;
}

async fn serve<S>(stream: S, routes: Router, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(
            TokioIo::new(Patient::new(stream, WRITE_PAUSE_MAX)),
            TowerToHyperService::new(routes),
        );
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

/// The connections, which networks share fairly.
struct Places {
    state: Mutex<PlacesState>,
}

struct PlacesState {
    shares: FairShares<u64>,
    yielding: HashMap<u64, CancellationToken>,
    next: u64,
}

/// The place of a connection, given back when it is dropped.
struct Place {
    places: Arc<Places>,
    user: User<u64>,
    /// Cancelled when the connection has to make room for another network's.
    yielded: CancellationToken,
}

impl Places {
    fn new() -> Places {
        Places {
            state: Mutex::new(PlacesState {
                shares: FairShares::new(CONNECTIONS_MAX),
                yielding: HashMap::new(),
                next: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PlacesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Places>, from: SocketAddr) -> Option<Place> {
        let mut state = self.lock();
        state.next += 1;
        let user = User {
            network: Network::of(from.ip()),
            id: state.next,
        };
        loop {
            match state.shares.claim(user, 1) {
                Claim::Granted => break,
                Claim::Refused => return None,
                Claim::Yields(other) => {
                    state.shares.forget(other);
                    if let Some(yielding) = state.yielding.remove(&other.id) {
                        yielding.cancel();
                    }
                }
            }
        }
        let yielded = CancellationToken::new();
        state.yielding.insert(user.id, yielded.clone());
        Some(Place {
            places: self.clone(),
            user,
            yielded,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.shares.forget(self.user);
        state.yielding.remove(&self.user.id);
    }
}

/// A connection whose writes fail after the client has read nothing for too long.
struct Patient<S> {
    stream: S,
    pause_max: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, pause_max: Duration) -> Patient<S> {
        Patient {
            stream,
            pause_max,
            waiting: None,
        }
    }

    fn bound<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let pause_max = self.pause_max;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause_max)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.bound(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bound(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bound(closed, context)
    }
}

/// Ends a request whose body pauses for longer than [`BODY_PAUSE_MAX`].
pub(super) async fn limit_body(request: Request, next: Next) -> Response {
    let request = request.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::new(TimedBody::new(body, BODY_PAUSE_MAX)),
    });
    next.run(request).await
}

/// A body that fails when it pauses for too long.
struct TimedBody {
    body: Body,
    pause_max: Duration,
    waiting: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(body: Body, pause_max: Duration) -> TimedBody {
        TimedBody {
            body,
            pause_max,
            waiting: Box::pin(tokio::time::sleep(pause_max)),
        }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let end = Instant::now() + self.pause_max;
            self.waiting.as_mut().reset(end);
            return Poll::Ready(frame);
        }
        ready!(self.waiting.as_mut().poll(context));
        let timed_out = io::Error::new(io::ErrorKind::TimedOut, "the body pauses for too long");
        Poll::Ready(Some(Err(axum::Error::new(timed_out))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn from(last: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, last, 1], 7))
    }

    #[test]
    fn a_network_with_many_connections_yields_to_another() {
        let places = Arc::new(Places::new());
        let greedy: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| places.take(from(1)).unwrap())
            .collect();
        assert!(places.take(from(1)).is_none(), "its own network is full");
        let other = places.take(from(2));
        assert!(other.is_some());
        let yielded = greedy.iter().filter(|place| place.yielded.is_cancelled());
        assert_eq!(yielded.count(), 1);
        drop(greedy);
        assert!(places.take(from(1)).is_some());
        assert_eq!(places.lock().yielding.len(), 1);
    }

    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn a_client_that_does_not_read_loses_its_connection() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut patient = Patient::new(ours, SHORT);
        patient.write_all(&[0; 1000]).await.unwrap();
        let refused = patient.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        theirs.read_exact(&mut [0; 500]).await.unwrap();
        patient.write_all(&[0; 500]).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_pauses_for_too_long_fails() {
        let pending = tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let body = Body::new(http_body_util::StreamBody::new(pending));
        let read = http_body_util::BodyExt::collect(TimedBody::new(body, SHORT)).await;
        assert!(read.is_err());
    }
}
