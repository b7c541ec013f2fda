//! One chunk request: one span of a chunk, from one peer, over one stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use qshare_content::{Chunks, ContentId, Hash, LEAF_BYTES};
use qshare_net::framed::{self, BrokenStream, ReadError};
use qshare_swarm::Span;
use qshare_wire::peer::{ChunkData, ChunkRequest, Sending};
use qshare_wire::{Message, Refused, WireError};
use quinn::{Connection, VarInt};
use tokio::sync::oneshot;

use super::rates::Rates;

/// Buffers of data that are read from the stream at once.
const PIECES: usize = 32;
/// Progress is reported after this many bytes, and for slow answers after this time. Reports a
/// hundred times as often would cost as much as copying the data.
const TELL_BYTES: u64 = 128 * 1024;
const TELL_AFTER: Duration = Duration::from_millis(20);

/// How a request ended.
pub(super) enum Answer<B> {
    /// All bytes and their audit path arrived; they are not verified yet.
    Data { bytes: B, path: Vec<Hash> },
    /// The peer refused.
    Refused(Refused),
    /// The peer was lost, or its answer was invalid.
    Broken(ReadError),
}

/// The progress of a request.
pub(super) enum Step {
    /// The answer has started; the peer says what limits its sending.
    Started(Sending),
    /// This many more bytes were received.
    Progress(u64),
}

/// Returns the request for a span. A whole chunk needs no audit path, because its hash is known.
pub(super) fn chunk_request(content: ContentId, chunks: &Chunks, span: Span) -> ChunkRequest {
    let path_levels = if span.is_whole(chunks) {
        0
    } else {
        chunks.height().saturating_sub(span.height)
    };
    ChunkRequest {
        content,
        height: span.height.min(chunks.height()),
        index: span.range(chunks).start / (LEAF_BYTES << span.height.min(chunks.height())),
        path_levels,
        extensions: Vec::new(),
    }
}

/// Sends a request, and reads the answer of exactly `expected_bytes` into a buffer that `buffer`
/// makes. Dropping the future abandons the request; `withdraw` withdraws it if the peer has not
/// started to answer. With `rates`, data is read no faster than they allow.
pub(super) async fn fetch<B: AsMut<[u8]> + Send, F: Future<Output = ()> + Send>(
    connection: &Connection,
    request: &ChunkRequest,
    expected_bytes: u64,
    buffer: impl FnOnce(usize) -> B + Send,
    withdraw: oneshot::Receiver<()>,
    on_step: impl FnMut(Step) -> F + Send,
    rates: Option<&Rates>,
) -> Answer<B> {
    let fetched = try_fetch(
        connection,
        request,
        expected_bytes,
        buffer,
        withdraw,
        on_step,
        rates,
    );
    match fetched.await {
        Ok((bytes, path)) => Answer::Data { bytes, path },
        Err(ReadError::Refused(refused)) => Answer::Refused(refused),
        Err(error) => Answer::Broken(error),
    }
}

async fn try_fetch<B: AsMut<[u8]> + Send, F: Future<Output = ()> + Send>(
    connection: &Connection,
    request: &ChunkRequest,
    expected_bytes: u64,
    buffer: impl FnOnce(usize) -> B + Send,
    mut withdraw: oneshot::Receiver<()>,
    mut on_step: impl FnMut(Step) -> F + Send,
    rates: Option<&Rates>,
) -> Result<(B, Vec<Hash>), ReadError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    framed::write(&mut send, request).await?;
    let head: ChunkData = {
        let mut head = std::pin::pin!(framed::read(&mut recv));
        tokio::select! {
            biased;
            head = &mut head => head?,
            Ok(()) = &mut withdraw => {
                let _ = send.reset(VarInt::from_u32(0));
                head.await?
            }
        }
    };
    if head.bytes != expected_bytes || head.path.len() != usize::from(request.path_levels) {
        return Err(WireError::Mismatch(ChunkData::NAME).into());
    }
    on_step(Step::Started(Sending::from_code(head.sending))).await;
    let expected =
        usize::try_from(expected_bytes).map_err(|_| WireError::Mismatch(ChunkData::NAME))?;
    let mut bytes = buffer(expected);
    let mut rest = bytes.as_mut();
    let (mut told, mut untold) = (Instant::now(), 0);
    let mut pieces = [const { Bytes::new() }; PIECES];
    while !rest.is_empty() {
        let packets = rates.map_or(PIECES, |rates| rates.turn_packets().min(PIECES));
        let read = recv.read_chunks(&mut pieces[..packets]).await?;
        let Some(count) = read else {
            return Err(BrokenStream::Unfinished.into());
        };
        let mut read_bytes = 0;
        for piece in pieces.iter_mut().take(count) {
            // Bytes beyond the answer are ignored.
            let length = piece.len().min(rest.len());
            let (filled, later) = rest.split_at_mut(length);
            filled.copy_from_slice(&piece[..length]);
            rest = later;
            untold += length as u64;
            read_bytes += length as u64;
            *piece = Bytes::new();
        }
        if rest.is_empty() || untold >= TELL_BYTES || told.elapsed() >= TELL_AFTER {
            on_step(Step::Progress(untold)).await;
            (told, untold) = (Instant::now(), 0);
        }
        if let Some(rates) = rates {
            rates.pay(read_bytes).await;
        }
    }
    Ok((bytes, head.path))
}
