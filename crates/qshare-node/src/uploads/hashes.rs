//! Pages of chunk hashes, charged like answers: up to 128 KiB each, and quickly asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use qshare_content::tree;
use qshare_wire::peer::{HashRequest, Hashes};
use qshare_wire::{Frame, Refusal, Refused};
use quinn::{SendStream, VarInt};
use tokio::time::timeout;
use tracing::debug;

use super::memory_budget::{Charged, Share};
use super::{find, refuse_read};
use crate::node::Inner;
use crate::peers::Peer;
use crate::shares::contents::Holding;

/// A page's hashes, and those of its proof.
const PAGE_MAX_BYTES: u64 = (tree::PAGE_CHUNKS as u64 + 64) * 32;
/// A page is either taken within this time, or nobody wants it.
const DEADLINE: Duration = Duration::from_secs(15);
/// When to ask again if there is no room. A client asks for one page at a time.
const RETRY_MS: u32 = 200;

/// Answers with a page of chunk hashes and what proves it.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    peer: &Peer,
    request: HashRequest,
    send: &mut SendStream,
) -> Result<(), Refused> {
    let holding = find(inner, &request.content)?;
    let memory = &inner.uploads.memory;
    let room = memory.try_take(peer.key, PAGE_MAX_BYTES);
    let share = room.ok_or_else(|| {
        let mut busy = Refused::because(Refusal::Busy, "too many pages of hashes on their way");
        busy.retry_after_ms = RETRY_MS;
        busy
    })?;
    let (first, length) = part(inner, &holding, request.page, 0, share).await?;
    let _answering = inner.uploads.answering();
    let taken = async {
        let mut sent = first.len();
        send.write_chunk(first).await.ok()?;
        while sent < length {
            let share = memory.take(peer.key, (length - sent) as u64).await;
            let next = part(inner, &holding, request.page, sent, share).await;
            let (next, _) = next.ok().filter(|(next, _)| !next.is_empty())?;
            sent += next.len();
            send.write_chunk(next).await.ok()?;
        }
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    match timeout(DEADLINE, taken).await {
        Ok(Some(_)) => {}
        Ok(None) => _ = send.reset(VarInt::from_u32(0)),
        Err(_) => {
            debug!(peer = %peer.node, "a page of hashes was not taken in time");
            let _ = send.reset(VarInt::from_u32(0));
        }
    }
    Ok(())
}

/// As much of an encoded page, from a byte of it on, as there is room for, and the length of all of
/// it. The page is made anew for each part, so that nothing is held beyond its room.
async fn part(
    inner: &Arc<Inner>,
    holding: &Holding,
    page: u32,
    from: usize,
    mut share: Share,
) -> Result<(Bytes, usize), Refused> {
    let _work = inner.uploads.memory.work(PAGE_MAX_BYTES).await;
    let (reader, holding) = (inner.clone(), holding.clone());
    let page = inner.blocking(move || reader.contents.hash_page(&holding, page));
    let page = page.await.map_err(|error| refuse_read(&error))?;
    let message = Hashes {
        hashes: page.hashes,
        path: page.path,
    };
    let mut bytes = Frame::encode(&message).map_err(|_| Refused::new(Refusal::Failed))?;
    let length = bytes.len();
    let end = length.min(from.saturating_add(share.bytes() as usize));
    if from > 0 || end < length {
        bytes = bytes.get(from..end).unwrap_or_default().to_vec();
    }
    share.shrink_to(bytes.len() as u64);
    Ok((Charged::answer(bytes, share), length))
}
