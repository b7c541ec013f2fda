//! Fetches one span: requests, receives, verifies and writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qshare_content::Chunks;
use qshare_swarm::{RequestId, Span};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::super::chunk_request::{Answer, chunk_request, fetch};
use super::super::rates::Rates;
use super::event::{Event, resume};
use super::store::Store;
use crate::access::Access;
use crate::peers::Peer;
use crate::runtime::BufferPool;

/// A span to fetch, with everything that the task needs.
pub(super) struct FetchSpan {
    pub(super) request: RequestId,
    pub(super) peer: Arc<Peer>,
    pub(super) access: Access,
    pub(super) chunks: Chunks,
    pub(super) span: Span,
    pub(super) store: Store,
    pub(super) memory: Arc<Semaphore>,
    pub(super) buffers: Arc<BufferPool>,
    pub(super) writes: TaskTracker,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) withdraw: oneshot::Receiver<()>,
    pub(super) rates: Arc<Rates>,
    pub(super) work: Arc<LocalWork>,
}

/// Time that threads spent on received data.
#[derive(Debug, Default)]
pub(super) struct LocalWork {
    hashing_us: AtomicU64,
    all_us: AtomicU64,
}

impl LocalWork {
    pub(super) fn add_hashing(&self, time: Duration) {
        self.hashing_us.fetch_add(micros(time), Ordering::Relaxed);
    }

    pub(super) fn add_all(&self, time: Duration) {
        self.all_us.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// Returns the times of hashing and of writing since the last call.
    pub(super) fn take(&self) -> (Duration, Duration) {
        let hashing = self.hashing_us.swap(0, Ordering::Relaxed);
        let all = self.all_us.swap(0, Ordering::Relaxed);
        let writing = all.saturating_sub(hashing);
        (
            Duration::from_micros(hashing),
            Duration::from_micros(writing),
        )
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Fetches one span, and has it verified and written on a blocking thread.
pub(super) async fn fetch_span(job: FetchSpan) {
    let FetchSpan {
        request,
        peer,
        access,
        chunks,
        span,
        store,
        memory,
        buffers,
        writes,
        events,
        withdraw,
        rates,
        work,
    } = job;
    let asked = chunk_request(access.wire_id(), &chunks, span);
    let expected = span.size(&chunks);
    // Other downloads may have reserved much of the memory, too. The largest chunk always fits.
    let permits = u32::try_from(expected).unwrap_or(u32::MAX);
    let Ok(permit) = memory.acquire_many_owned(permits).await else {
        return;
    };
    let on_step = |step| {
        let events = events.clone();
        async move {
            let _ = events.send(Event::Step { request, step }).await;
        }
    };
    let busy = peer.busy();
    let connection = peer.connection();
    if let Err(fault) = peer.unlock(&connection, &access).await {
        drop(busy);
        let broken = Event::Broken {
            request,
            cause: fault.to_string(),
            moved: !Arc::ptr_eq(&connection, &peer.connection()),
        };
        let _ = events.send(broken).await;
        return;
    }
    let buffer = |length| buffers.take(length);
    let answer = fetch(
        &connection.connection,
        &asked,
        expected,
        buffer,
        withdraw,
        on_step,
        Some(&rates),
    );
    let answer = answer.await;
    drop(busy);
    let (bytes, path) = match answer {
        Answer::Data { bytes, path } => (bytes, path),
        Answer::Refused(refused) => {
            let _ = events.send(Event::Refused { request, refused }).await;
            return;
        }
        Answer::Broken(cause) => {
            let moved = !Arc::ptr_eq(&connection, &peer.connection());
            let broken = Event::Broken {
                request,
                cause: cause.to_string(),
                moved,
            };
            let _ = events.send(broken).await;
            return;
        }
    };
    let _ = events.send(Event::Received { request }).await;
    let verdict = writes.spawn_blocking(move || {
        let verdict = store.verify_and_write(request, &chunks, span, (bytes, &path), &work);
        drop(permit);
        verdict
    });
    match verdict.await {
        Ok(event) => _ = events.send(event).await,
        Err(lost) => resume(lost),
    }
}
