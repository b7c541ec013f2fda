//! Announcements on the control stream. The tracker acknowledges each batch.

use std::sync::atomic::{AtomicBool, Ordering};

use qshare_content::FileMetadata;
use qshare_net::framed::{self, BrokenStream, IncomingBody, ReadError};
use qshare_registry::{Announced, AnnouncedTopic, EntryKey, NotAnnouncing, Refused};
use qshare_wire::private::{AnnounceTopics, TopicEntry};
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind};
use qshare_wire::{Frame, FrameHeader, Message, Refusal};
use quinn::RecvStream;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::{Client, SessionError};
use crate::fair_budget::Reservation;
use crate::member::Control;

/// Entries that cost as much as one request. Inserting an entry into the registry takes a few
/// microseconds, a lookup a few hundred.
const ENTRIES_PER_REQUEST: f64 = 200.0;

/// Minimum rate at which an announcement must arrive, averaged over a transfer deadline. Any link
/// fast enough to share files exceeds this rate.
const ANNOUNCEMENT_MIN_BYTES_PER_SECOND: u32 = 4 << 10;

/// Bytes of a batch that must have arrived before the tracker enlarges the node's receive window.
const WINDOW_AFTER_BYTES: usize = 8 << 10;

/// Memory that a decoded entry takes beyond its encoded size. An entry takes about 40 bytes on the
/// wire and 200 in memory.
const ENTRY_EXTRA_BYTES: u64 = 160;

/// Receives announcements until the stream ends.
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
        // The charge precedes the read, so the tracker reads more slowly from a node that announces
        // too fast.
        sleep(client.charge(1.0)).await;
        let (frame, memory) = receive_body(client, recv, header).await?;
        let batch = match frame.kind {
            Announce::TYPE => frame.decode().map(Batch::Entries),
            AnnounceTopics::TYPE => frame.decode().map(Batch::Topics),
            _ => {
                let reason = "unknown type of frame";
                let refused = qshare_wire::Refused::because(Refusal::Invalid, reason);
                write(client, send, &refused).await?;
                continue;
            }
        };
        let batch = batch.map_err(|error| SessionError::Protocol(error.to_string()))?;
        drop(frame);
        let (sequence, count) = batch.measure();
        if sequence != next_sequence {
            return Err(SessionError::Protocol(format!(
                "announcement {sequence} in place of {next_sequence}"
            )));
        }
        next_sequence += 1;
        memory.count(count as u64 * ENTRY_EXTRA_BYTES);
        sleep(client.charge(count as f64 / ENTRIES_PER_REQUEST)).await;
        let acknowledged = match batch {
            Batch::Entries(announce) => apply(client, announce).await?,
            Batch::Topics(announce) => apply_topics(client, announce).await?,
        };
        drop(memory);
        write(client, send, &acknowledged).await?;
    }
    Ok(())
}

/// A batch of an announcement.
enum Batch {
    Entries(Announce),
    Topics(AnnounceTopics),
}

impl Batch {
    /// Returns the batch's number, and how many entries or topics it adds and removes.
    fn measure(&self) -> (u64, usize) {
        match self {
            Batch::Entries(batch) => (batch.sequence, batch.entries.len() + batch.removed.len()),
            Batch::Topics(batch) => (batch.sequence, batch.topics.len() + batch.removed.len()),
        }
    }
}

/// Receives a frame's body and reserves memory for it as its bytes arrive. Fails if the body
/// arrives at less than the minimum rate.
async fn receive_body(
    client: &Client,
    recv: &mut RecvStream,
    header: FrameHeader,
) -> Result<(Frame, Reservation), SessionError> {
    let budget = &client.services.announcements;
    let full = SessionError::Overloaded("the tracker has no memory for announcements");
    let Ok(memory) = budget.try_reserve(client.user, 0, client.evicted.clone()) else {
        return Err(full);
    };
    let mut window = None;
    // Whether the batch waits for memory rather than for bytes from the node.
    let is_starved = AtomicBool::new(false);
    let interval = client.services.limits.transfer_deadline;
    let least = f64::from(ANNOUNCEMENT_MIN_BYTES_PER_SECOND) * interval.as_secs_f64();
    let mut body = IncomingBody::new(header);
    while !body.is_complete() {
        let before = body.arrived_bytes();
        let in_interval = timeout(interval, async {
            while !body.is_complete() && ((body.arrived_bytes() - before) as f64) < least {
                is_starved.store(true, Ordering::Relaxed);
                let grown = memory.grow(body.growth_bytes() as u64).await;
                is_starved.store(false, Ordering::Relaxed);
                if grown.is_err() {
                    return Err(SessionError::Overloaded(
                        "the tracker needs its memory for others",
                    ));
                }
                match body.read_more(recv).await {
                    Ok(()) => {}
                    Err(ReadError::Broken(BrokenStream::Unfinished)) => {
                        let reason = "half a frame on the control stream";
                        return Err(SessionError::Protocol(reason.into()));
                    }
                    Err(_) => return Err(SessionError::Gone),
                }
                if window.is_none() && body.arrived_bytes() >= WINDOW_AFTER_BYTES {
                    window = LargeWindow::open(client);
                }
            }
            Ok(())
        });
        match in_interval.await {
            Ok(received) => received?,
            Err(_) if is_starved.load(Ordering::Relaxed) => return Err(full),
            Err(_) => {
                let reason = "a frame arrived at less than 4 KiB/s";
                return Err(SessionError::Protocol(reason.into()));
            }
        }
    }
    Ok((body.into_frame(), memory))
}

/// A larger receive window, open while a batch arrives.
struct LargeWindow<'a> {
    client: &'a Client,
    _memory: Reservation,
}

impl<'a> LargeWindow<'a> {
    /// Opens the window. Returns None if there is no memory for the bytes that the node may then
    /// have in flight.
    fn open(client: &'a Client) -> Option<LargeWindow<'a>> {
        let limits = &client.services.limits;
        let bytes = limits.announcement_window_bytes;
        let budget = &client.services.announcements;
        let memory = budget.try_reserve(client.user, bytes.into(), client.evicted.clone());
        let _memory = memory.ok()?;
        client.connection.set_receive_window(bytes.into());
        Some(LargeWindow { client, _memory })
    }
}

impl Drop for LargeWindow<'_> {
    fn drop(&mut self) {
        let bytes = self.client.services.limits.transport.receive_window_bytes;
        self.client.connection.set_receive_window(bytes.into());
    }
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
            .begin_announcement(client.node, client.id)
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
        .withdraw(client.node, client.id, &removed)
        .await
        .map_err(|_| SessionError::Gone)?;
    let offered = entries.len();
    let may_announce = client.services.access.may_announce(&client.node);
    let entries: Vec<Announced> = match may_announce {
        true => entries.into_iter().map(announced).collect(),
        false => Vec::new(),
    };
    let refused = registry
        .announce(client.node, client.id, &entries)
        .await
        .map_err(|_| SessionError::Gone)?;
    if stage == AnnounceStage::FullEnd {
        let dropped =
            registry
                .end_announcement(client.node, client.id)
                .map_err(|error| match error {
                    NotAnnouncing::Gone(_) => SessionError::Gone,
                    NotAnnouncing::NotBegun => SessionError::Protocol(error.to_string()),
                })?;
        debug!(dropped, "announced everything");
    }
    registry.flushed(client.node).await;
    Ok(acknowledge(
        client,
        sequence,
        offered,
        may_announce,
        &refused,
    ))
}

async fn apply_topics(
    client: &Client,
    announce: AnnounceTopics,
) -> Result<AnnounceAck, SessionError> {
    let registry = &client.services.registry;
    registry
        .withdraw_topics(client.node, client.id, &announce.removed)
        .await
        .map_err(|_| SessionError::Gone)?;
    let offered = announce.topics.len();
    let may_announce = client.services.access.may_announce(&client.node);
    let topics: Vec<AnnouncedTopic> = match may_announce {
        true => announce.topics.iter().map(announced_topic).collect(),
        false => Vec::new(),
    };
    let refused = registry
        .announce_topics(client.node, client.id, &topics)
        .await
        .map_err(|_| SessionError::Gone)?;
    registry.flushed(client.node).await;
    let sequence = announce.sequence;
    Ok(acknowledge(
        client,
        sequence,
        offered,
        may_announce,
        &refused,
    ))
}

/// Counts the entries of a batch and acknowledges it.
fn acknowledge(
    client: &Client,
    sequence: u64,
    offered: usize,
    may_announce: bool,
    refused: &[Refused],
) -> AnnounceAck {
    let count = match may_announce {
        true => refused.len(),
        false => offered,
    };
    client.services.metrics.announced(offered, count);
    AnnounceAck {
        sequence,
        refused: u32::try_from(count).unwrap_or(u32::MAX),
        reason: match count > 0 && !may_announce {
            true => "only listed nodes may announce at this tracker".into(),
            false => reason(refused).into(),
        },
    }
}

fn announced_topic(entry: &TopicEntry) -> AnnouncedTopic {
    AnnouncedTopic {
        topic: entry.topic,
        complete: entry.complete,
    }
}

/// Converts an entry to the registry's form. Flags have no meaning yet. Malformed metadata states
/// nothing: the file itself is as good as any.
fn announced(entry: Entry) -> Announced {
    Announced {
        name: entry.name,
        info: entry.info,
        is_collection: entry.kind == EntryKind::Collection,
        complete: entry.complete,
        metadata: FileMetadata::decode(&entry.metadata).unwrap_or_default(),
    }
}

fn reason(refused: &[Refused]) -> String {
    let first = refused.first();
    first.map_or_else(String::new, |first| first.refusal.to_string())
}

/// Reads the next frame's header. Returns None if the stream ends cleanly.
async fn read_header(recv: &mut RecvStream) -> Result<Option<FrameHeader>, SessionError> {
    match framed::read_header(recv).await {
        Ok(header) => Ok(Some(header)),
        Err(ReadError::Ended) => Ok(None),
        Err(ReadError::Broken(BrokenStream::Unfinished)) => {
            let reason = "half a frame on the control stream";
            Err(SessionError::Protocol(reason.into()))
        }
        Err(_) => Err(SessionError::Gone),
    }
}

/// Writes a message to the node. Fails if the node does not accept it within the transfer deadline.
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
