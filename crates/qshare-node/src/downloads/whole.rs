//! Contents of one chunk: no hashes to fetch, no meta file, one holder suffices.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, Chunks, ContentInfo, NodeId, tree};
use qshare_storage::{DiskError, WholeError};
use qshare_swarm::Span;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use super::holders::Holders;
use super::meter::Meter;
use super::request::{Answer, chunk_request, fetch};
use super::{DownloadRequest, Shared};
use crate::error::DownloadError;
use crate::node::Inner;
use crate::peers::{Peer, reach};
use crate::report::{NodeEvent, Report, Stage};
use crate::tracker_link::{HolderNews, watch};

/// Time for one attempt at one holder, once connected.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    shared: &Arc<Shared>,
    turn: OwnedSemaphorePermit,
) -> Result<Report, DownloadError> {
    let (path, info) = (request.target.path(), request.info);
    let standing = {
        let path = path.clone();
        inner.blocking(move || standing(&path, &info)).await?
    };
    match standing {
        Standing::Same => {
            inner.take_in(request, &path, Vec::new()).await;
            return Ok(Report::already_there(
                request,
                path,
                shared.started.elapsed(),
            ));
        }
        Standing::Different if !request.force => return Err(different(path)),
        Standing::Different | Standing::Nothing => {}
    }
    let mut meter = Meter::default();
    let mut wasted_bytes = 0;
    let bytes = if info.length == 0 {
        Vec::new()
    } else {
        shared.set_stage(Stage::Searching);
        tokio::select! {
            () = shared.stop.cancelled() => return Err(DownloadError::Stopped),
            bytes = get(inner, request, &mut meter, &mut wasted_bytes) => bytes?,
        }
    };
    // Others may fetch while this one waits to become durable.
    drop(turn);
    shared.set_stage(Stage::Finishing);
    let (target, force, sync) = (request.target.clone(), request.force, request.sync);
    let committed = inner
        .committer
        .commit(target, info, bytes, force, sync)
        .await;
    let path = match committed.ok_or(DownloadError::Stopped)? {
        Ok(path) => path,
        Err(WholeError::Different(path)) => return Err(different(path)),
        Err(WholeError::Mismatch(_)) => {
            return Err(DownloadError::VerificationFailed {
                name: request.name.clone(),
            });
        }
        Err(WholeError::Disk(error)) => return Err(error.into()),
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

enum Standing {
    Nothing,
    Same,
    Different,
}

/// What is at the target now.
fn standing(path: &Path, info: &ContentInfo) -> Result<Standing, DiskError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        Err(error) => return Err(DiskError::new("look at", path, error)),
        Ok(there) if !there.is_file() || there.len() != info.length => {
            return Ok(Standing::Different);
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| DiskError::new("read", path, error))?;
    let same = bytes.len() as u64 == info.length
        && tree::chunk_hash(&Chunks::of_length(info.length), &bytes) == info.root;
    Ok(if same {
        Standing::Same
    } else {
        Standing::Different
    })
}

pub(super) fn different(path: std::path::PathBuf) -> DownloadError {
    let why = "a different file is already there; --force replaces it, -o writes elsewhere";
    DownloadError::InTheWay {
        path,
        why: why.into(),
    }
}

/// Tries holders one after the other, the known ones first, until one delivers.
async fn get(
    inner: &Arc<Inner>,
    request: &DownloadRequest,
    meter: &mut Meter,
    wasted_bytes: &mut u64,
) -> Result<Vec<u8>, DownloadError> {
    let mut holders = Holders::new(inner.endpoint.id(), &request.holders);
    let mut news: Option<mpsc::Receiver<HolderNews>> = None;
    let begun = Instant::now();
    loop {
        if let Some((node, addresses)) = holders.next_to_dial(Instant::now(), 1) {
            let peer = match reach(inner, node, &addresses).await {
                Ok(peer) => peer,
                Err(cause) => {
                    holders.failed(&node, Instant::now(), cause);
                    continue;
                }
            };
            match attempt(&peer, request.info).await {
                Ok(bytes) => {
                    inner.count_received(bytes.len() as u64);
                    meter.credit(&peer, bytes.len() as u64, 1);
                    return Ok(bytes);
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
            continue;
        }
        let give_up = request.give_up_after.map(|patience| begun + patience);
        if give_up.is_some_and(|at| at <= Instant::now()) {
            return Err(no_source(request, &holders));
        }
        let receiver = news.get_or_insert_with(|| watch_all(inner, request));
        let wake = [holders.poll_timeout(), give_up]
            .into_iter()
            .flatten()
            .min();
        let wake = wake.unwrap_or_else(|| Instant::now() + ATTEMPT_DEADLINE);
        tokio::select! {
            Some(update) = receiver.recv() => holders.handle_news(update),
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// Asks every tracker who holds the content, from now on.
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
    warn!(peer = %node, content = content.short(), "sent bytes that failed verification");
    inner.peers.note_lie(node);
    let _ = inner.events.send(NodeEvent::PeerLied { node, content });
}

enum Failure {
    Lied,
    Other(String),
}

async fn attempt(peer: &Arc<Peer>, info: ContentInfo) -> Result<Vec<u8>, Failure> {
    let chunks = Chunks::of_length(info.length);
    let span = Span::whole(&chunks, ChunkIndex(0));
    let request = chunk_request(info.id(), &chunks, span);
    let (_keep, withdraw) = oneshot::channel();
    let asked = fetch(
        &peer.connection,
        &request,
        info.length,
        withdraw,
        |_| async {},
    );
    match timeout(ATTEMPT_DEADLINE, asked).await {
        Err(_) => Err(Failure::Other("it did not answer in time".into())),
        Ok(Answer::Broken(cause)) => Err(Failure::Other(cause)),
        Ok(Answer::Refused(refused)) => Err(Failure::Other(format!(
            "it refused: {:?}",
            refused.refusal()
        ))),
        // 128 KiB at most: hashing it here costs less than handing it to another thread.
        Ok(Answer::Data { bytes, .. }) if tree::chunk_hash(&chunks, &bytes) == info.root => {
            Ok(bytes)
        }
        Ok(Answer::Data { .. }) => Err(Failure::Lied),
    }
}
