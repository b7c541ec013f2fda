//! Contents of one chunk: no hashes to fetch, no meta file, one holder suffices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, Chunks, ContentInfo, NodeId};
use qshare_storage::{BatchError, Existing, SingleChunk};
use qshare_swarm::Span;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use super::committer::Expected;
use super::meter::Meter;
use super::request::{Answer, chunk_request, fetch};
use super::sources::holders::Holders;
use super::sources::static_sources;
use super::{DownloadRequest, Shared};
use crate::error::DownloadError;
use crate::lan;
use crate::node::Inner;
use crate::peers::{Peer, reach};
use crate::trackers::session::{HolderNews, watch};
use crate::vocabulary::{NodeEvent, Report, Stage};

/// Time for one attempt at one holder, once connected.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// A holder that has not delivered by then gets company: 128 KiB take no longer on any path that
/// is worth waiting for alone.
const HEDGE_AFTER: Duration = Duration::from_secs(1);
/// Holders that are asked at once, at most.
const ATTEMPTS_MAX: usize = 4;

pub(super) async fn run(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
    turn: OwnedSemaphorePermit,
    expected: Expected,
) -> Result<Report, DownloadError> {
    let (path, info) = (request.target.path(), request.info);
    let existing = {
        let target = request.target.clone();
        let look = move || Existing::at(&target, &info);
        inner.batch.run(look).await?
    };
    match existing {
        Existing::Same => {
            inner.take_in(request, &path, Vec::new()).await;
            return Ok(Report::already_there(
                request,
                path,
                shared.started.elapsed(),
            ));
        }
        Existing::Directory | Existing::Special => return Err(not_a_file(path)),
        Existing::Different if !request.force => return Err(different(path)),
        Existing::Different | Existing::Nothing => {}
    }
    let mut meter = Meter::default();
    let mut wasted_bytes = 0;
    let whole = if info.length == 0 {
        SingleChunk::verified(info, Vec::new()).ok_or_else(|| {
            DownloadError::VerificationFailed {
                name: request.name.clone(),
            }
        })?
    } else {
        shared.set_stage(Stage::Searching);
        tokio::select! {
            () = shared.stop.cancelled() => return Err(DownloadError::Stopped),
            whole = Box::pin(get(inner, request, &mut meter, &mut wasted_bytes)) => whole?,
        }
    };
    // Others may fetch while this one waits to become durable.
    drop(turn);
    shared.set_stage(Stage::Finishing);
    let (target, force, durability) = (request.target.clone(), request.force, request.durability);
    let committed = inner
        .committer
        .commit(expected, target, whole, force, durability)
        .await;
    let path = match committed.ok_or(DownloadError::Stopped)? {
        Ok(path) => path,
        Err(BatchError::Different(path)) => return Err(different(path)),
        Err(BatchError::NotAFile(path)) => return Err(not_a_file(path)),
        Err(BatchError::Mismatch(_)) => {
            return Err(DownloadError::VerificationFailed {
                name: request.name.clone(),
            });
        }
        Err(BatchError::Disk(error)) => return Err(error.into()),
    };
    inner.take_in(request, &path, Vec::new()).await;
    Ok(Report {
        content: info.id(),
        name: request.name.clone(),
        size_bytes: info.length,
        path,
        elapsed: shared.started.elapsed(),
        resumed_bytes: 0,
        received_bytes: info.length + wasted_bytes,
        wasted_bytes,
        sources: meter.into_sources(),
        already_there: false,
    })
}

fn not_a_file(path: std::path::PathBuf) -> DownloadError {
    let why = "not a regular file, and never replaced; -o writes elsewhere";
    DownloadError::InTheWay {
        path,
        why: why.into(),
    }
}

pub(super) fn different(path: std::path::PathBuf) -> DownloadError {
    let why = "a different file is already there; --force replaces it, -o writes elsewhere";
    DownloadError::InTheWay {
        path,
        why: why.into(),
    }
}

/// Asks holders, the known ones first, until one delivers. One is asked at a time, but whoever
/// keeps us waiting is not waited for: the next is asked beside it.
async fn get(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    meter: &mut Meter,
    wasted_bytes: &mut u64,
) -> Result<SingleChunk, DownloadError> {
    let mut holders = Holders::new(inner.endpoint.id(), request);
    let mut news: Option<mpsc::Receiver<HolderNews>> = None;
    let mut attempts = JoinSet::new();
    let give_up = request
        .give_up_after
        .map(|patience| Instant::now() + patience);
    let mut next_attempt = Instant::now();
    loop {
        let now = Instant::now();
        if next_attempt <= now {
            if let Some((node, addresses)) = holders.next_to_dial(now, ATTEMPTS_MAX) {
                // With somebody else to turn to, the first need not be waited for to the end.
                attempts.spawn(attempt(inner.clone(), node, addresses, request.info));
                next_attempt = now + HEDGE_AFTER;
            } else {
                news.get_or_insert_with(|| watch_all(inner, request));
            }
        }
        if give_up.is_some_and(|at| at <= now) {
            return Err(no_source(request, &holders));
        }
        let hedge = Some(next_attempt).filter(|&at| at > now);
        let wake = [holders.poll_timeout(), give_up, hedge]
            .into_iter()
            .flatten()
            .min();
        let wake = wake
            .unwrap_or(now + ATTEMPT_DEADLINE)
            .max(now + Duration::from_millis(1));
        tokio::select! {
            Some(ended) = attempts.join_next() => {
                let Ok((node, result)) = ended else { continue };
                next_attempt = Instant::now();
                match result {
                    Ok((peer, whole)) => {
                        inner.count_received(request.info.length);
                        meter.credit(&peer, request.info.length, 1);
                        return Ok(whole);
                    }
                    Err(Failure::Lied) => {
                        *wasted_bytes += request.info.length;
                        holders.ban(&node);
                        blame(inner, node, request);
                    }
                    Err(Failure::Other(cause)) => {
                        debug!(peer = %node, %cause, "did not deliver");
                        holders.failed(&node, Instant::now(), cause);
                    }
                }
            }
            Some(update) = next_news(&mut news) => holders.handle_news(update),
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// The next word about holders; never, until somebody asked for it.
async fn next_news(news: &mut Option<mpsc::Receiver<HolderNews>>) -> Option<HolderNews> {
    match news {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Asks every tracker who holds the content, and the nodes on this network, from now on; and looks
/// for the nodes that the request names.
pub(super) fn watch_all(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
) -> mpsc::Receiver<HolderNews> {
    let (sender, receiver) = mpsc::channel(64);
    for link in &inner.trackers {
        let content = request.info.id();
        inner
            .tasks
            .spawn(watch(inner.clone(), link.clone(), content, sender.clone()));
    }
    let around = lan::watch(inner.clone(), request.info.id(), sender.clone());
    inner.tasks.spawn(around);
    for node in request
        .nodes
        .iter()
        .filter(|node| static_sources::is_name(node))
    {
        let resolve = static_sources::resolve(node.clone(), sender.clone());
        inner.tasks.spawn(resolve);
    }
    receiver
}

pub(super) fn no_source(request: &DownloadRequest, holders: &Holders) -> DownloadError {
    let name = request.name.clone();
    if holders.any_banned() {
        DownloadError::VerificationFailed { name }
    } else {
        DownloadError::NoSource {
            name,
            detail: holders.describe_failures(),
        }
    }
}

pub(super) fn blame(inner: &Arc<Inner>, node: NodeId, request: &DownloadRequest) {
    let content = request.info.id();
    debug!(peer = %node, content = content.short(), "sent bytes that failed verification");
    inner.peers.note_lie(node);
    let _ = inner.events.send(NodeEvent::PeerLied { node, content });
}

enum Failure {
    Lied,
    Other(String),
}

/// Asks one holder for all of it, and checks what it sends.
async fn attempt(
    inner: Arc<Inner>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    info: ContentInfo,
) -> (NodeId, Result<(Arc<Peer>, SingleChunk), Failure>) {
    let peer = match reach(&inner, node, &addresses).await {
        Ok(peer) => peer,
        Err(cause) => return (node, Err(Failure::Other(cause))),
    };
    let chunks = Chunks::of_length(info.length);
    let request = chunk_request(info.id(), &chunks, Span::whole(&chunks, ChunkIndex(0)));
    let (_keep, withdraw) = oneshot::channel();
    let busy = peer.busy();
    let connection = peer.connection();
    let asked = fetch(
        &connection,
        &request,
        info.length,
        |length| vec![0; length],
        withdraw,
        |_| async {},
    );
    let answered = timeout(ATTEMPT_DEADLINE, asked).await;
    drop(busy);
    let result = match answered {
        Err(_) => Err(Failure::Other("it did not answer in time".into())),
        Ok(Answer::Broken(cause)) => Err(Failure::Other(cause)),
        Ok(Answer::Refused(refused)) => Err(Failure::Other(format!(
            "it refused: {:?}",
            refused.refusal()
        ))),
        // 128 KiB at most: hashing it here costs less than handing it to another thread.
        Ok(Answer::Data { bytes, .. }) => match SingleChunk::verified(info, bytes) {
            Some(whole) => Ok((peer, whole)),
            None => Err(Failure::Lied),
        },
    };
    (node, result)
}
