//! How long a server waits for a client that reads nothing, or pauses within a request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Longest pause within the body of a request.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A connection whose writes fail after the client has read nothing for too long.
pub(super) struct Patient<S> {
    stream: S,
    pause_max: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, pause_max: Duration) -> Patient<S> {
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
pub(crate) async fn limit_body(request: Request, next: Next) -> Response {
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
