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
use tokio::time::{Instant, sleep_until};

use super::find;
use crate::contents::Holding;
use crate::node::Inner;

/// What is new is collected for this long before it is told.
const BATCH: Duration = Duration::from_millis(20);

/// Tells which chunks we have, and as we get more, until the asker closes its half.
pub(super) async fn follow(
    inner: &Arc<Inner>,
    request: Interest,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Refused> {
    let holding = find(inner, &request.content)?;
    let watch_asker = async {
        // The asker has nothing more to say; it closes, resets or is lost.
        let _ = recv.read_chunk(1, true).await;
    };
    tokio::select! {
        () = watch_asker => {}
        () = inner.stopping.cancelled() => {}
        // Ends only when the stream is broken.
        _ = tell(inner, &holding, send) => {}
    }
    Ok(())
}

/// New chunks of a content: none, ever, of one that is complete.
struct News(Option<broadcast::Receiver<ChunkIndex>>);

impl News {
    async fn next(&mut self) -> Result<ChunkIndex, RecvError> {
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
            let (verified, news) = active.subscribe();
            (Some(verified), News(Some(news)))
        }
    }
}

async fn tell(
    inner: &Inner,
    holding: &Holding,
    send: &mut SendStream,
) -> Result<(), quinn::WriteError> {
    let mut queue = inner.uploads.queue_told.subscribe();
    let (chunks, mut news) = subscribe(holding);
    framed::write(send, &have_message(inner, chunks.as_ref())).await?;
    loop {
        let mut chunks = Vec::new();
        let mut fell_behind = false;
        let mut handle = |news: &mut News, next: Result<ChunkIndex, RecvError>| match next {
            Ok(chunk) if chunks.len() < HAVE_MORE_MAX => chunks.push(chunk.0),
            Ok(_) | Err(RecvError::Lagged(_)) => fell_behind = true,
            Err(RecvError::Closed) => news.0 = None,
        };
        tokio::select! {
            next = news.next() => handle(&mut news, next),
            Ok(()) = queue.changed() => {}
        }
        let until = Instant::now() + BATCH;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                next = news.next() => handle(&mut news, next),
            }
        }
        queue.mark_unchanged();
        if fell_behind {
            let (all, fresh) = subscribe(holding);
            news = fresh;
            framed::write(send, &have_message(inner, all.as_ref())).await?;
        } else {
            let queue_bytes = inner.uploads.queue_bytes();
            framed::write(
                send,
                &HaveMore {
                    chunks,
                    queue_bytes,
                },
            )
            .await?;
        }
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
