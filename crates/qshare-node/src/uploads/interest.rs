//! Telling others which chunks we have, as we get more, and how much waits here.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex};
use qshare_net::framed;
use qshare_wire::Refused;
use qshare_wire::limits::HAVE_MORE_MAX;
use qshare_wire::peer::{Have, HaveMore, Interest};
use quinn::{RecvStream, SendStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep_until;
use tokio_util::task::AbortOnDropHandle;

use super::find;
use crate::node::Inner;
use crate::peers::Peer;
use crate::shares::contents::{Active, Holding};

/// Pause after something was told, before the queue is told with no chunks to tell.
const QUEUE_PAUSE: Duration = Duration::from_millis(100);
/// Who has requests waiting here has no use for more of our chunks before they are answered. It is
/// told together with the last of them, or after this time, for it may look for what is rare.
const OCCUPIED_PAUSE: Duration = Duration::from_millis(200);

/// Tells which chunks we have, and as we get more, until the asker closes its half.
pub(super) async fn follow(
    inner: &Arc<Inner>,
    peer: &Peer,
    request: Interest,
    send: &mut SendStream,
    mut recv: RecvStream,
) -> Result<(), Refused> {
    let holding = find(inner, &request.content)?;
    // A task of its own, so that what is told does not wake it.
    let asker = AbortOnDropHandle::new(tokio::spawn(async move {
        // The asker has nothing more to say; it closes, resets or is lost.
        let _ = recv.read_chunk(1, true).await;
    }));
    tokio::select! {
        biased;
        // Ends only when the stream is broken.
        _ = tell(inner, peer, &holding, send) => {}
        _ = asker => {}
        () = inner.stopping.cancelled() => {}
    }
    Ok(())
}

/// New chunks of a content: none, ever, of one that is complete.
struct News(Option<broadcast::Receiver<Arc<[ChunkIndex]>>>);

impl News {
    async fn next(&mut self) -> Result<Arc<[ChunkIndex]>, RecvError> {
        match &mut self.0 {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }
}

fn subscribe(holding: &Holding) -> (Option<Bitmap>, News) {
    match holding {
        Holding::Shared(_) | Holding::File(_) => (None, News(None)),
        Holding::Active(active) => {
            let (verified, news) = active.have.subscribe();
            (Some(verified), News(Some(news)))
        }
    }
}

/// What a follower was not told yet.
#[derive(Default)]
struct Untold {
    chunks: Vec<ChunkIndex>,
    /// When the first of them came.
    since: Option<Instant>,
    /// News were lost: all is to be told anew.
    lost: bool,
    queue: bool,
}

impl Untold {
    fn add(&mut self, news: Result<Arc<[ChunkIndex]>, RecvError>) {
        match news {
            Ok(batch) => self.chunks.extend_from_slice(&batch),
            Err(_) => self.lost = true,
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// When to tell it.
    fn due(&self, told_at: Instant, is_occupied: bool) -> Option<Instant> {
        match (self.since, is_occupied) {
            (Some(since), false) => Some(since),
            (Some(since), true) => Some(since + OCCUPIED_PAUSE),
            (None, _) => self.queue.then_some(told_at + QUEUE_PAUSE),
        }
    }
}

async fn tell(
    inner: &Inner,
    peer: &Peer,
    holding: &Holding,
    send: &mut SendStream,
) -> Result<(), quinn::WriteError> {
    let mut queue = inner.uploads.queue_told.subscribe();
    let (chunks, mut news) = subscribe(holding);
    framed::write(send, &have_message(inner, chunks.as_ref())).await?;
    let mut told_at = Instant::now();
    let mut untold = Untold::default();
    loop {
        let mut served = pin!(peer.served.notified());
        served.as_mut().enable();
        let due = untold.due(told_at, inner.uploads.is_waiting(peer));
        let now = Instant::now();
        if due.is_none_or(|due| due > now) {
            tokio::select! {
                biased;
                next = news.next() => match next {
                    // Ended; what was told stays true.
                    Err(RecvError::Closed) => news.0 = None,
                    next => untold.add(next),
                },
                Ok(()) = queue.changed() => untold.queue = true,
                () = served, if untold.since.is_some() => {}
                () = sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            }
            continue;
        }
        queue.mark_unchanged();
        let told = match (std::mem::take(&mut untold), holding) {
            (Untold { lost: true, .. }, _) => Told::All,
            (Untold { chunks, .. }, Holding::Active(active)) => what_to_tell(active, peer, &chunks),
            _ => Told::Some(Vec::new()),
        };
        match told {
            Told::All => {
                let (all, fresh) = subscribe(holding);
                news = fresh;
                framed::write(send, &have_message(inner, all.as_ref())).await?;
            }
            Told::Some(chunks) => {
                let more = HaveMore {
                    chunks: chunks.iter().map(|chunk| chunk.0).collect(),
                    queue_bytes: inner.uploads.queue_bytes(),
                };
                framed::write(send, &more).await?;
            }
            Told::Nothing => continue,
        }
        told_at = Instant::now();
    }
}

/// What is worth a message.
enum Told {
    Nothing,
    Some(Vec<ChunkIndex>),
    All,
}

/// Half of the chunks that a node gets in a crowd are no news to any other that it talks to. That
/// it has become a source of everything is news to all.
fn what_to_tell(active: &Active, peer: &Peer, batch: &[ChunkIndex]) -> Told {
    let news = active.have.news_to(peer.key, batch);
    if active.have.is_complete() && !batch.is_empty() || news.len() > HAVE_MORE_MAX {
        Told::All
    } else if news.is_empty() && !batch.is_empty() {
        Told::Nothing
    } else {
        Told::Some(news)
    }
}

/// All that we have; None stands for everything.
fn have_message(inner: &Inner, chunks: Option<&Bitmap>) -> Have {
    let complete = chunks.is_none_or(Bitmap::is_full);
    let bitmap = chunks.filter(|_| !complete).map(Bitmap::to_bytes);
    Have {
        complete,
        bitmap: bitmap.unwrap_or_default(),
        queue_bytes: inner.uploads.queue_bytes(),
        extensions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_wait_for_those_who_have_requests_here_and_queues_for_all() {
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
}
