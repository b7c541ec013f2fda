//! How a peer answers requests, and misbehaves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qshare_content::{Chunks, LEAF_BYTES};
use qshare_net::{Session, framed};
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::{Message, Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::time::{sleep, timeout};

use super::{Manner, Shared};

/// Requests that a peer answers before it misbehaves.
const ANSWERS_BEFORE: usize = 4;
/// A node that grants no further stream for this long has reached its limit.
const STREAM_DEADLINE: Duration = Duration::from_millis(500);
/// More streams than any node should grant.
const STREAMS_MAX: usize = 10_000;
/// Interval between two claims to have everything.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

pub(super) type Ending = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Opens streams until the other side grants no more.
pub(super) async fn open_all(shared: &Shared, session: &Session) -> Vec<(SendStream, RecvStream)> {
    let mut opened = Vec::new();
    while let Ok(Ok(mut stream)) = timeout(STREAM_DEADLINE, session.connection.open_bi()).await {
        // A stream exists for the other side only once a byte was sent on it.
        if opened.len() >= STREAMS_MAX || stream.0.write_all(&[1]).await.is_err() {
            break;
        }
        opened.push(stream);
        shared.counts.opened.store(opened.len(), Ordering::Relaxed);
    }
    opened
}

/// Answers the request on a stream, in the peer's manner.
///
/// An error means that the requester ended the stream.
pub(super) async fn answer(shared: &Shared, mut send: SendStream, mut recv: RecvStream) -> Ending {
    let frame = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await?;
    match frame.kind {
        Interest::TYPE => count(&shared.counts.interests),
        HashRequest::TYPE => count(&shared.counts.hash_requests),
        ChunkRequest::TYPE => count(&shared.counts.chunk_requests),
        _ => count(&shared.counts.strays),
    }
    match shared.manner {
        Manner::Silent => return std::future::pending().await,
        Manner::Junk => {
            return send_junk(&mut send).await;
        }
        Manner::HugeFrame => {
            send.write_all(&[0xff, 0xff, 0xff, 0xff, 33, 0]).await?;
            return flood(shared, &mut send).await;
        }
        _ => {}
    }
    match (frame.kind, shared.manner) {
        (HashRequest::TYPE, Manner::JunkHashes) | (ChunkRequest::TYPE, Manner::JunkChunks) => {
            return send_junk(&mut send).await;
        }
        _ => {}
    }
    match frame.kind {
        Interest::TYPE => tell_what_it_has(shared, &frame.decode()?, send, recv).await,
        HashRequest::TYPE => tell_hashes(shared, &frame.decode()?, send).await,
        ChunkRequest::TYPE => send_chunk(shared, &frame.decode()?, send, recv).await,
        _ => Ok(()),
    }
}

/// Sends a frame of an unknown type, then one whose body cannot be decoded.
async fn send_junk(send: &mut SendStream) -> Ending {
    send.write_all(&[3, 0, 0, 0, 0xff, 0xff, 1, 2, 3]).await?;
    let [low, high] = HaveMore::TYPE.to_le_bytes();
    send.write_all(&[4, 0, 0, 0, low, high, 0xff, 0xff, 0xff, 0xff])
        .await?;
    Ok(())
}

async fn tell_what_it_has(
    shared: &Shared,
    request: &Interest,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Ending {
    let asset = shared.assets.get(&request.content).ok_or("unknown")?;
    let count = Chunks::of_length(asset.info.length).count();
    let bitmap = match shared.manner {
        Manner::NonsenseHave => vec![0xff; 64 * 1024],
        Manner::HasNothing => vec![0; count.div_ceil(8) as usize],
        _ => Vec::new(),
    };
    let have = Have {
        complete: bitmap.is_empty(),
        bitmap,
        queue_bytes: 0,
        extensions: Vec::new(),
    };
    framed::write(&mut send, &have).await?;
    let more = |chunks| HaveMore {
        chunks,
        queue_bytes: 0,
    };
    match shared.manner {
        Manner::NeverYet => framed::write(&mut send, &more(vec![count, u32::MAX])).await?,
        Manner::FloodsHave => {
            let all = more((0..count).collect());
            while framed::write(&mut send, &all).await.is_ok() {}
            shared.counts.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        Manner::JunkNews => {
            send_junk(&mut send).await?;
            // The requester ends the stream when it drops the peer.
            let _ = recv.read_chunk(1, true).await;
            shared.counts.cut_off.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Manner::ClaimsAgain => loop {
            framed::write(&mut send, &have).await?;
            sleep(CLAIM_PAUSE).await;
        },
        _ => {}
    }
    // Wait until the requester ends the stream.
    let _ = recv.read_chunk(1, true).await;
    Ok(())
}

async fn tell_hashes(shared: &Shared, request: &HashRequest, mut send: SendStream) -> Ending {
    let asset = shared.assets.get(&request.content).ok_or("unknown")?;
    let (mut hashes, path) = asset.page(request.page);
    match shared.manner {
        Manner::WrongHashes => hashes[0].0[0] ^= 1,
        Manner::WrongLaterHashes if request.page > 0 => hashes[0].0[0] ^= 1,
        Manner::NoHashes => {
            framed::write(&mut send, &Refused::new(Refusal::NotHere)).await?;
            send.finish()?;
            return Ok(());
        }
        _ => {}
    }
    framed::write(&mut send, &Hashes { hashes, path }).await?;
    send.finish()?;
    Ok(())
}

async fn send_chunk(
    shared: &Shared,
    request: &ChunkRequest,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Ending {
    let asset = shared.assets.get(&request.content).ok_or("unknown")?;
    let chunks = Chunks::of_length(asset.info.length);
    let start = request.index * (LEAF_BYTES << request.height);
    let end = (start + (LEAF_BYTES << request.height)).min(asset.info.length);
    shared
        .asked
        .lock()
        .unwrap()
        .push((request.content, start..end));
    let refusal = match shared.manner {
        Manner::AlwaysBusy => Some(Refusal::Busy),
        Manner::NotHere => Some(Refusal::NotHere),
        Manner::NeverYet => Some(Refusal::NotYet),
        Manner::AlwaysWithdrawn => Some(Refusal::Withdrawn),
        Manner::ClaimsAgain => {
            let begun = shared.begun.fetch_add(1, Ordering::Relaxed);
            (begun >= ANSWERS_BEFORE).then_some(Refusal::NotHere)
        }
        Manner::StallsInTheEnd => {
            let begun = shared.begun.fetch_add(1, Ordering::Relaxed);
            if begun >= chunks.count() as usize * 99 / 100 {
                return std::future::pending().await;
            }
            None
        }
        Manner::FloodsHave | Manner::JunkNews => return std::future::pending().await,
        Manner::Gated => {
            // A withdrawn request is confirmed, as a node does, and uses no permit.
            tokio::select! {
                permit = shared.gate.acquire() => {
                    permit?.forget();
                    None
                }
                _ = recv.received_reset() => Some(Refusal::Withdrawn),
            }
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        framed::write(&mut send, &Refused::new(refusal)).await?;
        send.finish()?;
        return Ok(());
    }
    let mut bytes = asset.read(start..end);
    let mut head = ChunkData {
        bytes: bytes.len() as u64,
        path: asset.audit_path(request),
        sending: 0,
    };
    match shared.manner {
        Manner::WrongBytes => bytes[0] ^= 1,
        Manner::WrongLength => {
            bytes.extend_from_slice(&[0; 1000]);
            head.bytes += 1000;
        }
        _ => {}
    }
    framed::write(&mut send, &head).await?;
    match shared.manner {
        Manner::Trickle => {
            for byte in bytes {
                send.write_all(&[byte]).await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
        Manner::StallsMidChunk => {
            send.write_all(&bytes[..bytes.len() / 2]).await?;
            return std::future::pending().await;
        }
        Manner::StallsNearEnd => {
            send.write_all(&bytes[..bytes.len() * 99 / 100]).await?;
            return std::future::pending().await;
        }
        Manner::Endless => {
            send.write_all(&bytes).await?;
            count(&shared.counts.answered);
            return flood(shared, &mut send).await;
        }
        _ => send.write_all(&bytes).await?,
    }
    send.finish()?;
    count(&shared.counts.answered);
    // The requester ends its half with the answer; further bytes would be a second request.
    if let Ok(Some(_)) = recv.read_chunk(1, true).await {
        count(&shared.counts.strays);
    }
    Ok(())
}

/// Sends until the receiver ends the stream.
async fn flood(shared: &Shared, send: &mut SendStream) -> Ending {
    let piece = [0x55; 16 * 1024];
    while send.write_all(&piece).await.is_ok() {
        let flooded = &shared.counts.flooded_bytes;
        flooded.fetch_add(piece.len(), Ordering::Relaxed);
    }
    count(&shared.counts.cut_off);
    Ok(())
}

pub(super) fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}
