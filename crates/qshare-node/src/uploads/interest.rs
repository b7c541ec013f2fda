//! Telling others which chunks we have, as we get more, and how much waits here.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::{Bitmap, ChunkIndex};
use qshare_net::framed;
use qshare_wire::Refused;
use qshare_wire::limits::HAVE_MORE_MAX;
use qshare_wire::peer::{Have, HaveMore, Interest};
use quinn::{RecvStream, SendStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::find;
use crate::contents::{Active, Holding};
use crate::node::Inner;
use crate::peers::Peer;

/// Pause after the queue was told, before it is told again with no chunks to tell.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

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

async fn tell(
    inner: &Inner,
    peer: &Peer,
    holding: &Holding,
    send: &mut SendStream,
) -> Result<(), quinn::WriteError> {
    let mut queue = inner.uploads.queue_told.subscribe();
    let (chunks, mut news) = subscribe(holding);
    framed::write(send, &have_message(inner, chunks.as_ref())).await?;
    loop {
        let next = tokio::select! {
            biased;
            next = news.next() => next,
            Ok(()) = queue.changed() => Ok(Arc::from([])),
        };
        let told = match (next, holding) {
            (Ok(batch), Holding::Active(active)) => what_to_tell(active, peer, &batch),
            (Ok(_), _) => Told::Some(Vec::new()),
            (Err(RecvError::Lagged(_)), _) => Told::All,
            (Err(RecvError::Closed), _) => {
                news.0 = None;
                continue;
            }
        };
        queue.mark_unchanged();
        match told {
            Told::All => {
                let (all, fresh) = subscribe(holding);
                news = fresh;
                framed::write(send, &have_message(inner, all.as_ref())).await?;
            }
            Told::Some(chunks) => {
                let only_queue = chunks.is_empty();
                let more = HaveMore {
                    chunks: chunks.iter().map(|chunk| chunk.0).collect(),
                    queue_bytes: inner.uploads.queue_bytes(),
                };
                framed::write(send, &more).await?;
                if only_queue {
                    sleep(QUEUE_PAUSE).await;
                }
            }
            Told::Nothing => {}
        }
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
