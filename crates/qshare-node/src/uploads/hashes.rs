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

use super::memory::Share;
use super::{find, refuse_read};
use crate::node::Inner;
use crate::peers::Peer;

/// A page's hashes, and those of its proof.
const PAGE_MAX_BYTES: u64 = (tree::PAGE_CHUNKS as u64 + 64) * 32;
/// A page is either taken within this time, or nobody wants it.
const DEADLINE: Duration = Duration::from_secs(15);
/// When to ask again if there is no room. A client asks for one page at a time.
const RETRY_MS: u32 = 200;

/// An encoded answer, with the room that it takes up.
struct Page {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Answers with a page of chunk hashes and what proves it.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    peer: &Peer,
    request: HashRequest,
    send: &mut SendStream,
) -> Result<(), Refused> {
    let holding = find(inner, &request.content)?;
    let room = inner.uploads.memory.try_take(peer.key, PAGE_MAX_BYTES);
    let mut share = room.ok_or_else(|| {
        let mut busy = Refused::because(Refusal::Busy, "too many pages of hashes on their way");
        busy.retry_after_ms = RETRY_MS;
        busy
    })?;
    let reader = inner.clone();
    let page = inner.blocking(move || reader.contents.hash_page(&holding, request.page));
    let page = page.await.map_err(|error| refuse_read(&error))?;
    let bytes = Frame::encode(&Hashes {
        hashes: page.hashes,
        path: page.path,
    });
    let bytes = bytes.map_err(|_| Refused::new(Refusal::Failed))?;
    share.shrink_to(bytes.len() as u64);
    let page = Bytes::from_owner(Page {
        bytes,
        _share: share,
    });
    let _answering = inner.uploads.answering();
    let taken = async {
        send.write_chunk(page).await.ok()?;
        send.finish().ok()?;
        send.stopped().await.ok()
    };
    if timeout(DEADLINE, taken).await.is_err() {
        debug!(peer = %peer.node, "a page of hashes was not taken in time");
        let _ = send.reset(VarInt::from_u32(0));
    }
    Ok(())
}
