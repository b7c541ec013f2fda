//! Reports to a follower which chunks this node has, new chunks as they come, and the length of its
//! queue.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, ContentId};
use qshare_net::framed;
use qshare_wire::Refused;
use qshare_wire::limits::HAVE_MORE_MAX;
use qshare_wire::peer::{Have, HaveMore, Interest};
use quinn::{RecvStream, SendStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::queue::UploadQueue;
use super::refuse::find;
use super::unlock::UnlockedTopics;
use crate::peers::Peer;
use crate::shares::{Holding, PartialContent, ShareStore};

/// Pause after a message before one that reports only the length of the queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(100);
/// A follower whose requests wait here cannot use more chunks before they are answered. New chunks
/// are reported to it with the last answer, or after this time, because it may look for rare
/// chunks.
const OCCUPIED_PAUSE: Duration = Duration::from_millis(200);

/// The contents that are followed on one connection, each at most once.
#[derive(Default)]
pub(super) struct Interests {
    by_content: Mutex<HashMap<ContentId, CancellationToken>>,
}

/// One followed content. Dropping it ends the interest.
pub(super) struct Following<'a> {
    interests: &'a Interests,
    content: ContentId,
    replaced: CancellationToken,
}

impl Interests {
    /// Begins to follow a content. Ends an earlier interest in it on this connection, because the
    /// end of that one's stream may arrive only after the new interest.
    pub(super) fn begin(&self, content: ContentId) -> Following<'_> {
        let replaced = CancellationToken::new();
        if let Some(older) = self.lock().insert(content, replaced.clone()) {
            older.cancel();
        }
        Following {
            interests: self,
            content,
            replaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContentId, CancellationToken>> {
        self.by_content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Following<'_> {
    /// Returns the token that is cancelled when a newer interest takes this one's place.
    pub(super) fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        // If this interest was replaced, the entry belongs to the newer one.
        if !self.replaced.is_cancelled() {
            self.interests.lock().remove(&self.content);
        }
    }
}

/// Answers interests.
pub(super) struct InterestAnswers {
    pub(super) shares: Arc<ShareStore>,
    pub(super) queue: Arc<UploadQueue>,
    pub(super) stopping: CancellationToken,
}

impl InterestAnswers {
    /// Reports the chunks that this node has, and new ones as they come, until the follower closes
    /// its half of the stream or follows the same content anew.
    pub(super) async fn follow(
        &self,
        peer: &Peer,
        interests: &Interests,
        unlocked: &UnlockedTopics,
        request: Interest,
        send: &mut SendStream,
        mut recv: RecvStream,
    ) -> Result<(), Refused> {
        let holding = find(&self.shares, unlocked, &request.content)?;
        let _receiving = self.shares.audiences().begin(&request.content);
        let following = interests.begin(request.content);
        // A task of its own, so that messages to the follower do not wake it.
        let closed = AbortOnDropHandle::new(tokio::spawn(async move {
            // The follower sends nothing more; it closes, resets or is lost.
            let _ = recv.read_chunk(1, true).await;
        }));
        tokio::select! {
            biased;
            // Ends only when the stream is broken.
            _ = self.tell(peer, &holding, send) => {}
            _ = closed => {}
            () = following.replaced.cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
        Ok(())
    }

    async fn tell(
        &self,
        peer: &Peer,
        holding: &Holding,
        send: &mut SendStream,
    ) -> Result<(), quinn::WriteError> {
        let mut queue = self.queue.byte_changes();
        let drained = self.queue.drained(peer.key);
        let (chunks, mut batches) = subscribe(holding);
        framed::write(send, &self.have_message(chunks.as_ref())).await?;
        let mut told_at = Instant::now();
        let mut untold = Untold::default();
        loop {
            let mut served = pin!(drained.notified());
            served.as_mut().enable();
            let due = untold.due(told_at, self.queue.is_waiting(peer.key));
            let now = Instant::now();
            if due.is_none_or(|due| due > now) {
                tokio::select! {
                    biased;
                    next = batches.next() => match next {
                        // The download ended; the reported chunks remain valid.
                        Err(RecvError::Closed) => batches.0 = None,
                        next => untold.add(next),
                    },
                    Ok(()) = queue.changed() => untold.queue = true,
                    () = served, if untold.since.is_some() => {}
                    () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
                }
                continue;
            }
            queue.mark_unchanged();
            let message = match (std::mem::take(&mut untold), holding) {
                (Untold { lost: true, .. }, _) => Worth::All,
                (Untold { chunks, .. }, Holding::Partial(partial)) => {
                    worth_telling(partial, peer, &chunks)
                }
                _ => Worth::Chunks(Vec::new()),
            };
            match message {
                Worth::All => {
                    let (all, fresh) = subscribe(holding);
                    batches = fresh;
                    framed::write(send, &self.have_message(all.as_ref())).await?;
                }
                Worth::Chunks(chunks) => {
                    let more = HaveMore {
                        chunks: chunks.iter().map(|chunk| chunk.0).collect(),
                        queue_bytes: self.queue.bytes(),
                    };
                    framed::write(send, &more).await?;
                }
                Worth::Nothing => continue,
            }
            told_at = Instant::now();
        }
    }

    /// Returns the message with all chunks that this node has; None stands for the whole content.
    fn have_message(&self, chunks: Option<&Bitmap>) -> Have {
        let complete = chunks.is_none_or(Bitmap::is_full);
        let bitmap = chunks.filter(|_| !complete).map(Bitmap::to_bytes);
        Have {
            complete,
            bitmap: bitmap.unwrap_or_default(),
            queue_bytes: self.queue.bytes(),
            extensions: Vec::new(),
        }
    }
}

/// Batches of new chunks. A complete content has none.
struct Batches(Option<broadcast::Receiver<Arc<[ChunkIndex]>>>);

impl Batches {
    async fn next(&mut self) -> Result<Arc<[ChunkIndex]>, RecvError> {
        match &mut self.0 {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }
}

fn subscribe(holding: &Holding) -> (Option<Bitmap>, Batches) {
    match holding {
        Holding::Shared(_) | Holding::File(_) | Holding::Member(..) | Holding::Memory(_) => {
            (None, Batches(None))
        }
        Holding::Partial(partial) => {
            let (verified, batches) = partial.subscribe();
            (Some(verified), Batches(Some(batches)))
        }
    }
}

/// Changes that have not been reported to a follower.
#[derive(Default)]
struct Untold {
    chunks: Vec<ChunkIndex>,
    /// When the first unreported batch arrived.
    since: Option<Instant>,
    /// Batches were missed, so all chunks must be reported.
    lost: bool,
    /// Whether the length of the queue has changed.
    queue: bool,
}

impl Untold {
    fn add(&mut self, batch: Result<Arc<[ChunkIndex]>, RecvError>) {
        match batch {
            Ok(batch) => self.chunks.extend_from_slice(&batch),
            Err(_) => self.lost = true,
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// Returns when to report the changes.
    fn due(&self, told_at: Instant, is_occupied: bool) -> Option<Instant> {
        match (self.since, is_occupied) {
            (Some(since), false) => Some(since),
            (Some(since), true) => Some(since + OCCUPIED_PAUSE),
            (None, _) => self.queue.then_some(told_at + QUEUE_PAUSE),
        }
    }
}

/// The changes that justify a message.
enum Worth {
    Nothing,
    Chunks(Vec<ChunkIndex>),
    All,
}

/// Selects the changes to report. In a swarm, the peer already has about half of the chunks that
/// this node gets, and these are not reported. That this node became complete is reported to every
/// peer.
fn worth_telling(partial: &PartialContent, peer: &Peer, batch: &[ChunkIndex]) -> Worth {
    let unknown = partial.availability.not_held_by(peer.key, batch);
    if partial.is_complete() && !batch.is_empty() || unknown.len() > HAVE_MORE_MAX {
        Worth::All
    } else if unknown.is_empty() && !batch.is_empty() {
        Worth::Nothing
    } else {
        Worth::Chunks(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_wait_while_the_follower_has_requests_here_and_queue_lengths_always_wait() {
        let start = Instant::now();
        let mut untold = Untold::default();
        assert_eq!(untold.due(start, false), None);
        untold.queue = true;
        assert_eq!(untold.due(start, false), Some(start + QUEUE_PAUSE));
        untold.add(Ok(Arc::from([ChunkIndex(1)])));
        let since = untold.since.unwrap();
        untold.add(Ok(Arc::from([ChunkIndex(2)])));
        assert_eq!(untold.due(start, false), Some(since));
        assert_eq!(untold.due(start, true), Some(since + OCCUPIED_PAUSE));
        assert_eq!(untold.chunks, [ChunkIndex(1), ChunkIndex(2)]);
        untold.add(Err(RecvError::Lagged(3)));
        assert!(untold.lost);
    }

    #[test]
    fn a_content_is_followed_once_on_a_connection() {
        let interests = Interests::default();
        let (a, b) = (ContentId([1; 32]), ContentId([2; 32]));
        let first = interests.begin(a);
        let other = interests.begin(b);
        let second = interests.begin(a);
        assert!(first.replaced.is_cancelled());
        assert!(!second.replaced.is_cancelled() && !other.replaced.is_cancelled());
        drop(first);
        assert_eq!(interests.lock().len(), 2, "the newer interest stays");
        drop((second, other));
        assert_eq!(interests.lock().len(), 0);
    }
}
