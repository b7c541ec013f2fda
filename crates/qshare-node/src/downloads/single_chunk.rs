//! Contents of one chunk: no hashes to fetch, no meta file, one holder suffices.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qshare_content::{ChunkIndex, Chunks, ContentInfo, NodeId};
use qshare_storage::{BatchError, Existing, SingleChunk, Target, TargetLooks};
use qshare_swarm::Span;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use super::chunk_request::{Answer, chunk_request, fetch};
use super::committer::{CommitError, CommitOptions, Committer, Expected};
use super::download::DownloadState;
use super::meter::Meter;
use super::received::report_received;
use super::request::{DownloadRequest, discard_unfinished};
use super::reuse::{copies, read_single};
use super::sources::{Blame, Holders, SourceWatch};
use crate::access::Access;
use crate::error::{AskError, DownloadError, SourceFault};
use crate::peers::{Dialler, Peer};
use crate::runtime::{BlockingBatch, blocking};
use crate::shares::{Finished, ShareStore};
use crate::vocabulary::{HolderNews, Report, Stage};

/// Deadline of one attempt at one holder, from the connection on.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);
/// A holder that has not delivered by then is hedged: another holder is asked in parallel. On any
/// path that is fast enough to rely on alone, 128 KiB take no longer.
const HEDGE_AFTER: Duration = Duration::from_secs(1);
/// A content that is wanted and no other is given up after this time, if all holders have another
/// version.
const CHANGED_AFTER: Duration = Duration::from_secs(10);
/// Limit on the holders that are asked in parallel. When a hedge needs a slot, the holder that was
/// asked first loses its own, so that silent holders cannot lock out others.
const ATTEMPTS_MAX: usize = 4;

/// Downloads contents of one chunk.
pub(super) struct SingleChunks {
    pub(super) us: NodeId,
    pub(super) dialler: Arc<Dialler>,
    pub(super) sources: SourceWatch,
    pub(super) blame: Blame,
    pub(super) shares: Arc<ShareStore>,
    pub(super) batch: Arc<BlockingBatch>,
    pub(super) looks: TargetLooks,
    pub(super) committer: Arc<Committer>,
    pub(super) received_bytes: Arc<AtomicU64>,
}

impl SingleChunks {
    /// Runs one download. Its `turn` ends with the fetching, so that other downloads can fetch
    /// while this one waits to become durable.
    pub(super) async fn run(
        &self,
        request: &DownloadRequest,
        state: &DownloadState,
        turn: OwnedSemaphorePermit,
        expected: Expected,
    ) -> Result<Report, DownloadError> {
        let (path, info) = (request.target.path(), request.info);
        let existing = {
            let target = request.target.clone();
            let look = self.looks.ask();
            self.batch.run(move || look.at(&target, &info)).await?
        };
        match existing {
            Existing::Same => {
                request.check_existing(&path).await?;
                self.adopt(request, &path).await;
                return Ok(state.already_there(path));
            }
            Existing::Directory | Existing::Special => {
                return Err(DownloadError::NotAFile { path });
            }
            Existing::Different if !request.force => {
                return Err(DownloadError::Different { path });
            }
            Existing::Different | Existing::Nothing => {}
        }
        let mut meter = Meter::default();
        let mut wasted_bytes = 0;
        let same = match info.length {
            0 => Vec::new(),
            _ => copies(request, &self.shares),
        };
        let local = match same.is_empty() {
            true => None,
            false => self.batch.run(move || read_single(info, &same)).await,
        };
        let reused_bytes = local.as_ref().map_or(0, |_| info.length);
        let file = if let Some(local) = local {
            local
        } else if info.length == 0 {
            SingleChunk::verified(info, Vec::new()).ok_or_else(|| {
                DownloadError::VerificationFailed {
                    name: request.name.clone(),
                }
            })?
        } else {
            state.set_stage(Stage::Searching);
            // Paid before the request, so that no deadline of it includes the wait.
            tokio::select! {
                () = state.stop.cancelled() => return Err(DownloadError::Stopped),
                () = state.rates.pay(request.info.length) => {}
            }
            tokio::select! {
                () = state.stop.cancelled() => return Err(DownloadError::Stopped),
                file = Box::pin(self.fetch(request, state, &mut meter, &mut wasted_bytes)) => file?,
            }
        };
        drop(turn);
        request.check_single(&file)?;
        state.set_stage(Stage::Finishing);
        discard_earlier(request).await;
        let target = request.target.clone();
        let options = CommitOptions {
            force: request.force,
            durability: request.durability,
            attributes: request.attributes,
        };
        let committed = self.committer.commit(expected, target, file, options);
        let path = committed.await.map_err(|error| match error {
            CommitError::Batch(BatchError::Different(path)) => DownloadError::Different { path },
            CommitError::Batch(BatchError::NotAFile(path)) => DownloadError::NotAFile { path },
            CommitError::Batch(BatchError::Mismatch(_)) => DownloadError::VerificationFailed {
                name: request.name.clone(),
            },
            CommitError::Batch(BatchError::Disk(error)) => error.into(),
            CommitError::Lost => DownloadError::Internal(error.to_string()),
        })?;
        self.adopt(request, &path).await;
        Ok(Report {
            content: info.id(),
            name: request.name.clone(),
            size_bytes: info.length,
            path,
            elapsed: state.elapsed(),
            resumed_bytes: 0,
            reused_bytes,
            received_bytes: info.length - reused_bytes + wasted_bytes,
            wasted_bytes,
            sources: meter.into_sources(),
            already_there: false,
            files: None,
        })
    }

    async fn adopt(&self, request: &DownloadRequest, path: &std::path::Path) {
        self.shares
            .adopt(finished(request, path.to_path_buf()))
            .await;
    }

    /// Asks holders, known ones first, until one delivers. One holder is asked at a time, and is
    /// hedged if it has not delivered for a while.
    async fn fetch(
        &self,
        request: &DownloadRequest,
        state: &DownloadState,
        meter: &mut Meter,
        wasted_bytes: &mut u64,
    ) -> Result<SingleChunk, DownloadError> {
        let info = request.info;
        let mut holders = Holders::new(self.us, request.holders.clone(), &request.nodes);
        let mut news: Option<mpsc::Receiver<HolderNews>> = None;
        let mut attempts = Attempts::default();
        let mut patience = Patience::new(Instant::now(), request.give_up_after);
        let mut next_attempt = Instant::now();
        loop {
            let now = Instant::now();
            if next_attempt <= now {
                if holders.any_ready(now)
                    && let Some(node) = attempts.make_room()
                {
                    let fault = AskError::TimedOut(HEDGE_AFTER * ATTEMPTS_MAX as u32);
                    debug!(peer = %node, "has not delivered; its slot goes to another holder");
                    holders.failed(&node, now, fault.into());
                }
                if let Some((node, addresses)) = holders.next_to_dial(now, ATTEMPTS_MAX) {
                    let dialler = self.dialler.clone();
                    attempts.start(
                        node,
                        attempt(dialler, node, addresses, info, request.access()),
                    );
                    next_attempt = now + HEDGE_AFTER;
                } else {
                    news.get_or_insert_with(|| request.watch(&self.sources));
                }
            }
            let ends_when_changed =
                request.is_private() || (request.is_pinned() && state.elapsed() >= CHANGED_AFTER);
            if attempts.is_empty() && holders.all_changed() && ends_when_changed {
                let name = request.name.clone();
                return Err(DownloadError::Changed { name });
            }
            if patience.is_over(now, holders.any_untried()) {
                return Err(holders.no_source(&request.name));
            }
            if attempts.is_empty() && !holders.any_untried() {
                state.set_trouble(Some(holders.faults()));
            }
            let hedge = Some(next_attempt).filter(|&at| at > now);
            let wake = [holders.poll_timeout(), patience.until(), hedge]
                .into_iter()
                .flatten()
                .min();
            let wake = wake
                .unwrap_or(now + ATTEMPT_DEADLINE)
                .max(now + Duration::from_millis(1));
            tokio::select! {
                Some(ended) = attempts.next() => {
                    let (node, result) = ended?;
                    next_attempt = Instant::now();
                    match result {
                        Ok((peer, file)) => {
                            self.received_bytes.fetch_add(info.length, Ordering::Relaxed);
                            meter.credit(&peer, info.length, 1);
                            if request.reports_received() {
                                report_received(vec![peer], &request.access()).await;
                            }
                            return Ok(file);
                        }
                        Err(SourceFault::Corrupt) => {
                            *wasted_bytes += info.length;
                            holders.ban(&node);
                            self.blame.corrupt(node, info.id());
                        }
                        Err(fault) => {
                            debug!(peer = %node, %fault, "did not deliver");
                            holders.failed(&node, Instant::now(), fault);
                        }
                    }
                }
                Some(update) = next_news(&mut news) => holders.handle_news(update),
                () = sleep_until(wake.into()) => {}
            }
        }
    }
}

/// Deletes the unfinished download of the version that this one supersedes.
async fn discard_earlier(request: &DownloadRequest) {
    let Some(earlier) = request.supersedes else {
        return;
    };
    let target = request.target.clone();
    let discarded = blocking(move || match target.part_path().exists() {
        true => discard_unfinished(&target, earlier),
        false => Ok(false),
    });
    if let Err(error) = discarded.await {
        debug!(%error, "the unfinished download of an earlier version was not deleted");
    }
}

/// Returns what the shares need to adopt a finished download.
fn finished(request: &DownloadRequest, path: PathBuf) -> Finished {
    Finished {
        name: request.name.clone(),
        info: request.info,
        path,
        hashes: Vec::new(),
        is_beneath: matches!(request.target, Target::Beneath { .. }),
        keep_serving: request.keep_serving,
        share_key: request.share_key.clone(),
        member: request.membership(),
    }
}

/// Time after which a download without a source ends. The time restarts while there are holders
/// that were never tried.
struct Patience {
    patience: Option<Duration>,
    until: Option<Instant>,
}

impl Patience {
    fn new(now: Instant, patience: Option<Duration>) -> Patience {
        Patience {
            patience,
            until: patience.and_then(|patience| now.checked_add(patience)),
        }
    }

    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn is_over(&mut self, now: Instant, any_untried: bool) -> bool {
        let is_due = self.until.is_some_and(|until| until <= now);
        if is_due && any_untried {
            *self = Patience::new(now, self.patience);
        }
        is_due && !any_untried
    }
}

type Attempted = (NodeId, Result<(Arc<Peer>, SingleChunk), SourceFault>);

/// The running attempts, oldest first.
#[derive(Default)]
struct Attempts {
    running: JoinSet<Attempted>,
    order: VecDeque<(NodeId, AbortHandle)>,
}

impl Attempts {
    fn start(&mut self, node: NodeId, attempt: impl Future<Output = Attempted> + Send + 'static) {
        let handle = self.running.spawn(attempt);
        self.order.push_back((node, handle));
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// If all slots are taken, gives up the oldest attempt and returns its holder.
    fn make_room(&mut self) -> Option<NodeId> {
        if self.order.len() < ATTEMPTS_MAX {
            return None;
        }
        let (node, handle) = self.order.pop_front()?;
        handle.abort();
        Some(node)
    }

    /// Waits for the end of an attempt that was not given up. Returns None if no attempt is
    /// running.
    async fn next(&mut self) -> Option<Result<Attempted, DownloadError>> {
        loop {
            match self.running.join_next().await? {
                Ok(ended) => {
                    self.order.retain(|(node, _)| *node != ended.0);
                    return Some(Ok(ended));
                }
                Err(lost) if lost.is_panic() => {
                    return Some(Err(DownloadError::Internal(lost.to_string())));
                }
                // The attempt was given up.
                Err(_) => {}
            }
        }
    }
}

/// Waits for a change of the holders. Stays pending until the holders are watched.
async fn next_news(news: &mut Option<mpsc::Receiver<HolderNews>>) -> Option<HolderNews> {
    match news {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Requests the whole content from one holder, and verifies the answer.
async fn attempt(
    dialler: Arc<Dialler>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    info: ContentInfo,
    access: Access,
) -> Attempted {
    let peer = match dialler.reach(node, &addresses).await {
        Ok(peer) => peer,
        Err(fault) => return (node, Err(fault.into())),
    };
    let chunks = Chunks::of_length(info.length);
    let whole = Span::whole(&chunks, ChunkIndex(0));
    let request = chunk_request(access.wire_id(), &chunks, whole);
    let (_keep, withdraw) = oneshot::channel();
    let busy = peer.busy();
    let connection = peer.connection();
    if let Err(fault) = peer.unlock(&connection, &access).await {
        drop(busy);
        return (node, Err(fault));
    }
    let asked = fetch(
        &connection.connection,
        &request,
        info.length,
        |length| vec![0; length],
        withdraw,
        |_| async {},
        None,
    );
    let answered = timeout(ATTEMPT_DEADLINE, asked).await;
    drop(busy);
    let result = match answered {
        Err(_) => Err(AskError::TimedOut(ATTEMPT_DEADLINE).into()),
        Ok(Answer::Broken(error)) => Err(AskError::from(error).into()),
        Ok(Answer::Refused(refused)) => Err(AskError::Refused(refused).into()),
        // At most 128 KiB: hashing them here costs less than handing them to another thread.
        Ok(Answer::Data { bytes, .. }) => match SingleChunk::verified(info, bytes) {
            Some(file) => Ok((peer, file)),
            None => Err(SourceFault::Corrupt),
        },
    };
    (node, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    #[test]
    fn patience_starts_again_while_holders_are_untried() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(start, Some(10 * second));
        assert!(!patience.is_over(start + 9 * second, false));
        assert!(!patience.is_over(start + 10 * second, true));
        assert!(!patience.is_over(start + 19 * second, false));
        assert!(patience.is_over(start + 20 * second, false));
        let mut endless = Patience::new(start, None);
        assert!(!endless.is_over(start + 1000 * second, false));
        assert_eq!(Patience::new(start, Some(Duration::MAX)).until(), None);
    }

    #[tokio::test]
    async fn the_oldest_of_silent_holders_gives_up_its_slot() {
        let mut attempts = Attempts::default();
        for byte in 0..ATTEMPTS_MAX as u8 {
            assert_eq!(attempts.make_room(), None);
            attempts.start(node(byte), std::future::pending());
        }
        assert_eq!(attempts.make_room(), Some(node(0)));
        let honest = async { (node(9), Err(SourceFault::Lost)) };
        attempts.start(node(9), honest);
        let deadline = Duration::from_secs(10);
        let ended = timeout(deadline, attempts.next()).await.unwrap();
        assert_eq!(ended.unwrap().unwrap().0, node(9));
        assert_eq!(attempts.order.len(), ATTEMPTS_MAX - 1);
    }

    #[tokio::test]
    async fn a_panic_in_an_attempt_ends_the_download_with_an_error() {
        let mut attempts = Attempts::default();
        attempts.start(node(1), async { panic!("on purpose") });
        let ended = attempts.next().await.unwrap();
        assert!(matches!(ended, Err(DownloadError::Internal(_))));
    }
}
