//! The control stream: what a node announces, batch by batch, each acknowledged.

use qshare_net::framed;
use qshare_registry::{Announced, EntryKey, NotAnnouncing, Refused};
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind};
use qshare_wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, Message, Refusal};
use quinn::{ReadExactError, RecvStream};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::{Client, SessionError};
use crate::member::Control;

/// Entries that cost as much as one request: putting one into the registry takes some
/// microseconds, a lookup some hundred.
const ENTRIES_PER_REQUEST: f64 = 200.0;

/// Takes announcements until the stream ends.
pub(crate) async fn receive_announcements(
    client: &Client,
    send: &Control,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let mut next_sequence = 0;
    while let Some(header) = read_header(recv).await? {
        if header.check(Announce::BODY_MAX_BYTES).is_err() {
            return Err(SessionError::Protocol(format!(
                "a frame of {} bytes on the control stream",
                header.length_bytes
            )));
        }
        // Charged before it is read: who announces too fast is read more slowly.
        sleep(client.charge(1.0)).await;
        let room = client
            .services
            .announcements
            .reserve(header.length_bytes as usize)
            .await;
        let body = timeout(
            client.services.limits.transfer_deadline,
            read_body(recv, header),
        );
        let frame = body
            .await
            .map_err(|_| SessionError::Protocol("a frame that was begun and not ended".into()))??;
        if frame.kind != Announce::TYPE {
            let unknown = qshare_wire::Refused::because(Refusal::Invalid, "unknown type of frame");
            write(client, send, &unknown).await?;
            continue;
        }
        let announce: Announce = frame
            .decode()
            .map_err(|error| SessionError::Protocol(error.to_string()))?;
        drop(frame);
        if announce.sequence != next_sequence {
            return Err(SessionError::Protocol(format!(
                "announcement {} in place of {next_sequence}",
                announce.sequence
            )));
        }
        next_sequence += 1;
        let weight = (announce.entries.len() + announce.removed.len()) as f64;
        sleep(client.charge(weight / ENTRIES_PER_REQUEST)).await;
        let acknowledged = apply(client, announce).await?;
        drop(room);
        write(client, send, &acknowledged).await?;
    }
    Ok(())
}

async fn apply(client: &Client, announce: Announce) -> Result<AnnounceAck, SessionError> {
    let registry = &client.services.registry;
    let Announce {
        sequence,
        stage,
        entries,
        removed,
        ..
    } = announce;
    if stage == AnnounceStage::FullBegin {
        registry
            .begin_announcement(client.id)
            .map_err(|_| SessionError::Gone)?;
    }
    let removed: Vec<EntryKey> = removed
        .into_iter()
        .map(|key| EntryKey {
            name: key.name,
            content: key.content,
        })
        .collect();
    registry
        .withdraw(client.id, &removed)
        .await
        .map_err(|_| SessionError::Gone)?;
    let announced = entries.len();
    let files: Vec<Announced> = entries.into_iter().filter_map(file).collect();
    let refused = registry
        .announce(client.id, &files)
        .await
        .map_err(|_| SessionError::Gone)?;
    if stage == AnnounceStage::FullEnd {
        let dropped = registry
            .end_announcement(client.id)
            .map_err(|error| match error {
                NotAnnouncing::Gone(_) => SessionError::Gone,
                NotAnnouncing::NotBegun => SessionError::Protocol(error.to_string()),
            })?;
        debug!(dropped, "announced everything");
    }
    let reserved = announced - files.len();
    Ok(AnnounceAck {
        sequence,
        refused: u32::try_from(refused.len() + reserved).unwrap_or(u32::MAX),
        reason: reason(&refused, reserved).into(),
    })
}

/// An entry as the registry keeps it. Flags and metadata have no meaning yet.
fn file(entry: Entry) -> Option<Announced> {
    match entry.kind {
        EntryKind::File => Some(Announced {
            name: entry.name,
            info: entry.info,
            complete: entry.complete,
        }),
        EntryKind::Collection => None,
    }
}

fn reason(refused: &[Refused], reserved: usize) -> String {
    match refused.first() {
        Some(first) => first.refusal.to_string(),
        None if reserved > 0 => "collections are not kept yet".into(),
        None => String::new(),
    }
}

/// The next frame's header; None where the stream ends in good order.
async fn read_header(recv: &mut RecvStream) -> Result<Option<FrameHeader>, SessionError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match recv.read_exact(&mut header).await {
        Ok(()) => Ok(Some(FrameHeader::parse(header))),
        Err(ReadExactError::FinishedEarly(0)) => Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => Err(SessionError::Protocol(
            "half a frame on the control stream".into(),
        )),
        Err(ReadExactError::ReadError(_)) => Err(SessionError::Gone),
    }
}

async fn read_body(recv: &mut RecvStream, header: FrameHeader) -> Result<Frame, SessionError> {
    let mut body = vec![0; header.length_bytes as usize];
    recv.read_exact(&mut body)
        .await
        .map_err(|_| SessionError::Gone)?;
    Ok(Frame {
        kind: header.kind,
        body,
    })
}

/// Writes to the node, which has some time to take it.
async fn write<M: Message>(
    client: &Client,
    control: &Control,
    message: &M,
) -> Result<(), SessionError> {
    let written = async {
        let mut send = control.lock().await;
        framed::write(&mut send, message).await
    };
    timeout(client.services.limits.transfer_deadline, written)
        .await
        .map_err(|_| SessionError::Protocol("acknowledgements are not read".into()))?
        .map_err(|_| SessionError::Gone)
}
