//! Serves HTTP on connections, with bounds on their number and on their patience. The control
//! socket and the web page use it alike.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::error::{ApiError, Code};

/// Connections of one listener at once.
const CONNECTIONS_MAX: usize = 128;
/// Connections beyond that which are told so; others are dropped.
const REFUSALS_MAX: usize = 32;
/// Deadline for the head of a request. An idle connection is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Time for answers to end when the node stops.
const GRACE: Duration = Duration::from_secs(1);
/// Pause after an error of `accept`, which would otherwise repeat at once: the process has too many
/// files open, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the connections of one listener.
#[derive(Clone)]
pub(crate) struct Connections {
    router: Router,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    /// Creates the connections of a listener, which end when `stop` is cancelled.
    pub(crate) fn new(router: Router, stop: CancellationToken) -> Connections {
        Connections {
            router,
            slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Serves a connection in a task of its own. One too many is told to try again later.
    pub(crate) fn serve(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (slot, router) = match self.slots.clone().try_acquire_owned() {
            Ok(slot) => (slot, self.router.clone()),
            Err(_) => match self.refusals.clone().try_acquire_owned() {
                Ok(slot) => (slot, Router::new().fallback(busy)),
                Err(_) => return,
            },
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            serve(io, router, stop).await;
            drop(slot);
        });
    }

    /// Waits until all connections have ended, which they do soon after `stop`.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn busy() -> axum::response::Response {
    let message = "too many connections are open";
    let refused = ApiError::new(Code::Busy, message).hint("Try again in a few seconds");
    ([(axum::http::header::CONNECTION, "close")], refused).into_response()
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.ok()
        }
    };
    if let Some(Err(error)) = ended {
        debug!(%error, "an HTTP connection broke off");
    }
}

/// Accepts connections of this user and of root until `stop` is cancelled.
pub(crate) async fn on_unix(listener: UnixListener, router: Router, stop: CancellationToken) {
    let connections = Connections::new(router, stop.clone());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => match super::socket::is_trusted(&stream) {
                Ok(true) => connections.serve(stream),
                Ok(false) => debug!("another user's connection to the control socket was closed"),
                Err(error) => debug!(%error, "the control socket's peer is unknown"),
            },
            Err(error) => pause(&error).await,
        }
    }
    connections.ended().await;
}

/// Waits after an error of `accept`.
pub(crate) async fn pause(error: &io::Error) {
    debug!(%error, "cannot accept a connection");
    sleep(ACCEPT_PAUSE).await;
}
