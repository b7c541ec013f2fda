//! Answering other nodes: which chunks we have, their hashes, their bytes.
//!
//! Every request is a stream of its own. Which chunk request is answered next is the scheduler's
//! decision ([`Serve`]); here its decisions become bytes. Bytes in memory are bounded
//! ([`memory_budget`]): an answer is read from disk block by block, as it leaves.

mod hashes;
mod interest;
mod lookup;
mod memory_budget;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use qshare_content::{ChunkIndex, Chunks, LEAF_BYTES, tree};
use qshare_net::framed;
use qshare_storage::ReadError;
use qshare_swarm::{PeerKey, Serve, Ticket};
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Interest};
use qshare_wire::tracker::Find;
use qshare_wire::{Message, Refusal, Refused};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, trace};

use crate::config::Limits;
use crate::node::Inner;
use crate::peers::{Peer, PeerConnection};
use crate::runtime::buffer_pool::Buffer;
use crate::shares::contents::Holding;
use memory_budget::{Charged, MemoryBudget, Share};

/// Up to this many bytes are read together with what others ask for.
const SMALL_READ_BYTES: u64 = 16 * 1024;
/// As much of an answer is read at once; the largest chunk has four times as much.
const BLOCK_BYTES: u64 = 1 << 20;
/// Time from the opening of a stream to a whole request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// An answer is handed to the stream in pieces between these sizes, an eighth of what the path
/// holds; a piece that takes longer than [`PIECE_DEADLINE`] (2 KB/s) means that nobody wants it.
const PIECE_MIN_BYTES: u64 = 32 * 1024;
const PIECE_MAX_BYTES: u64 = 256 * 1024;
const PIECE_DEADLINE: Duration = Duration::from_secs(15);
/// An answer counts as blocked, and others may go on, when a piece of it takes so many times longer
/// than it would if the answers that run shared our link: it is their path that is slow.
const BLOCKED_TIMES: f64 = 2.0;
/// The same before it is known what our link carries, and between these bounds.
const BLOCKED_AFTER: Duration = Duration::from_millis(50);
const BLOCKED_AFTER_MIN: Duration = Duration::from_millis(5);
const BLOCKED_AFTER_MAX: Duration = Duration::from_millis(500);
/// The same where what holds it up is not a link but the window, which lets so much go in a round
/// trip and no more: others can use the link meanwhile.
const WINDOW_FULL_AFTER: Duration = Duration::from_millis(2);
/// On a path with a shorter round trip any window is soon large enough.
const LONG_PATH: Duration = Duration::from_millis(5);
/// An answer that is blocked for longer than this no longer keeps others from starting.
const PARKED_AFTER: Duration = Duration::from_millis(2100);

/// What is being answered, over all peers.
pub(crate) struct Uploads {
    queue: Mutex<Queue>,
    memory: Arc<MemoryBudget>,
    /// Answers under way, until they are acknowledged.
    answering: watch::Sender<usize>,
    sent_bytes: AtomicU64,
    running_max: u32,
    /// Bytes that wait to be answered, as others were last told.
    queue_told: watch::Sender<u64>,
    askers: lookup::Askers,
}

struct Queue {
    serve: Serve,
    waiting: HashMap<Ticket, Waiter>,
}

struct Waiter {
    client: PeerKey,
    /// Told when its turn comes.
    start: oneshot::Sender<()>,
    /// Told when no other of the same client is left.
    served: Arc<Notify>,
}

impl Uploads {
    pub(crate) fn new(limits: &Limits, seed: u64) -> Uploads {
        let clients_max = limits.accepted_connections_max;
        Uploads {
            running_max: limits.serve.running_max,
            queue: Mutex::new(Queue {
                serve: Serve::new(limits.serve.clone(), seed),
                waiting: HashMap::new(),
            }),
            memory: MemoryBudget::new(limits.answers_max_bytes.into(), clients_max),
            answering: watch::Sender::new(0),
            sent_bytes: AtomicU64::new(0),
            queue_told: watch::Sender::new(0),
            askers: lookup::Askers::default(),
        }
    }

    /// Payload bytes sent since the start.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Waits until nothing is being sent.
    pub(crate) async fn idle(&self) {
        let mut answering = self.answering.subscribe();
        let _ = answering.wait_for(|&count| count == 0).await;
    }

    /// Counts an answer as under way until dropped.
    fn answering(&self) -> Answering<'_> {
        self.answering.send_modify(|count| *count += 1);
        Answering(self)
    }

    /// Whether requests of a peer wait to be answered.
    pub(crate) fn is_waiting(&self, peer: &Peer) -> bool {
        self.lock().serve.is_waiting(peer.key)
    }

    /// Bytes that wait to be answered.
    pub(crate) fn queue_bytes(&self) -> u64 {
        self.lock().serve.queue_bytes()
    }

    pub(crate) fn client_left(&self, peer: &Peer) {
        let mut queue = self.lock();
        queue.serve.handle_client_left(Instant::now(), peer.key);
        self.start_next(&mut queue);
    }

    /// Lets those answers start whose turn it is, and tells of the queue when it has changed.
    fn start_next(&self, queue: &mut Queue) {
        queue.start_next();
        let now = queue.serve.queue_bytes();
        self.queue_told.send_if_modified(|told| {
            // A quarter up or down is news; less is not worth a message to everybody.
            let changed = now.abs_diff(*told) > *told / 4;
            if changed {
                *told = now;
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Answering<'a>(&'a Uploads);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.send_modify(|count| *count -= 1);
    }
}

impl Queue {
    fn start_next(&mut self) {
        while let Some(ticket) = self.serve.poll_start(Instant::now()) {
            let waiter = self.stop_waiting(ticket);
            let told = waiter.is_some_and(|waiter| waiter.start.send(()).is_ok());
            if !told {
                // Whoever waited is gone.
                self.serve.handle_finished(Instant::now(), ticket, 0);
            }
        }
    }

    /// For a request that the scheduler does not count as waiting any more.
    fn stop_waiting(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket)?;
        if !self.serve.is_waiting(waiter.client) {
            waiter.served.notify_waiters();
        }
        Some(waiter)
    }
}

/// A request's place in the queue; given up when dropped.
struct Turn<'a> {
    uploads: &'a Uploads,
    ticket: Ticket,
    sent_bytes: u64,
}

impl Turn<'_> {
    /// Takes a request back; true if its answer had not started.
    fn withdraw(&self) -> bool {
        let mut queue = self.uploads.lock();
        let withdrawn = queue.serve.handle_withdraw(self.ticket);
        if withdrawn {
            queue.stop_waiting(self.ticket);
        }
        withdrawn
    }

    fn set_blocked(&self, blocked: bool) {
        let mut queue = self.uploads.lock();
        if blocked {
            queue.serve.handle_blocked(Instant::now(), self.ticket);
        } else {
            queue.serve.handle_unblocked(Instant::now(), self.ticket);
        }
        self.uploads.start_next(&mut queue);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.uploads.lock();
        queue
            .serve
            .handle_finished(Instant::now(), self.ticket, self.sent_bytes);
        queue.stop_waiting(self.ticket);
        self.uploads.start_next(&mut queue);
    }
}

/// Answers everything that `peer` asks on a connection until that is gone.
pub(crate) async fn serve(inner: Arc<Inner>, peer: Arc<Peer>, connection: quinn::Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (inner, peer) = (inner.clone(), peer.clone());
        tokio::spawn(async move { answer(&inner, &peer, send, recv).await });
    }
}

async fn answer(inner: &Arc<Inner>, peer: &Peer, mut send: SendStream, mut recv: RecvStream) {
    let request = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES);
    let Ok(Ok(frame)) = timeout(REQUEST_DEADLINE, request).await else {
        return;
    };
    let answered = match frame.kind {
        ChunkRequest::TYPE => match frame.decode() {
            Ok(request) => chunk(inner, peer, request, &mut send, &mut recv).await,
            Err(error) => Err(Refused::because(Refusal::Invalid, error.to_string())),
        },
        HashRequest::TYPE => match frame.decode() {
            Ok(request) => hashes::answer(inner, peer, request, &mut send).await,
            Err(error) => Err(Refused::because(Refusal::Invalid, error.to_string())),
        },
        Interest::TYPE => match frame.decode() {
            Ok(request) => interest::follow(inner, peer, request, &mut send, recv).await,
            Err(error) => Err(Refused::because(Refusal::Invalid, error.to_string())),
        },
        Find::TYPE => match frame.decode() {
            Ok(request) => lookup::answer(inner, peer, request, &mut send).await,
            Err(error) => Err(Refused::because(Refusal::Invalid, error.to_string())),
        },
        _ => Err(Refused::because(Refusal::Invalid, "unknown request")),
    };
    if let Err(refused) = answered {
        trace!(peer = %peer.node, ?refused, "refused");
        let _ = framed::write(&mut send, &refused).await;
    }
    let _ = send.finish();
}

fn find(inner: &Inner, content: &qshare_content::ContentId) -> Result<Holding, Refused> {
    inner
        .contents
        .find(content)
        .ok_or_else(|| Refused::new(Refusal::NotHere))
}

fn refuse_read(error: &ReadError) -> Refused {
    match error {
        ReadError::NotHere => Refused::new(Refusal::NotHere),
        ReadError::Changed => Refused::new(Refusal::Changed),
        // What failed is our business, and paths are nobody else's.
        ReadError::Disk(_) => Refused::new(Refusal::Failed),
    }
}

/// The subtree that a request means: its chunk, its bytes in the file, its place in the chunk.
struct Subtree {
    chunk: ChunkIndex,
    range: Range<u64>,
    index_in_chunk: u32,
}

fn subtree(chunks: &Chunks, height: u8, index: u64) -> Option<Subtree> {
    if height > chunks.height() {
        return None;
    }
    let start = index.checked_mul(LEAF_BYTES << height)?;
    let end = start
        .checked_add(LEAF_BYTES << height)?
        .min(chunks.length());
    // An empty file has one chunk of no bytes.
    if start >= chunks.length() && !(start == 0 && chunks.length() == 0) {
        return None;
    }
    let chunk = ChunkIndex(u32::try_from(start / chunks.chunk_bytes()).ok()?);
    let per_chunk = 1u64 << (chunks.height() - height);
    let index_in_chunk = u32::try_from(index % per_chunk).ok()?;
    Some(Subtree {
        chunk,
        range: start..end,
        index_in_chunk,
    })
}

async fn chunk(
    inner: &Arc<Inner>,
    peer: &Peer,
    request: ChunkRequest,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Refused> {
    let holding = find(inner, &request.content)?;
    let chunks = Chunks::of_length(holding.info().length);
    let wanted = subtree(&chunks, request.height, request.index)
        .ok_or_else(|| Refused::new(Refusal::Invalid))?;
    if !holding.has(wanted.chunk) {
        return Err(Refused::new(Refusal::NotYet));
    }
    let bytes = wanted.range.end - wanted.range.start;
    let (mut turn, mut start) = take_turn(inner, peer, &request, wanted.chunk, bytes)?;
    let mut stopped = std::pin::pin!(send.stopped());
    let mut withdrawable = true;
    loop {
        tokio::select! {
            biased;
            started = &mut start => {
                started.map_err(|_| Refused::new(Refusal::Failed))?;
                break;
            }
            _ = &mut stopped => return Ok(()),
            reset = recv.received_reset(), if withdrawable => {
                withdrawable = false;
                if matches!(reset, Ok(Some(_))) && turn.withdraw() {
                    return Err(Refused::new(Refusal::Withdrawn));
                }
            }
        }
    }

    let _answering = inner.uploads.answering();
    let reader = Reader {
        inner,
        peer,
        holding,
        chunks,
        chunk: wanted.chunk,
    };
    let first = tokio::select! {
        biased;
        first = reader.first(&turn, &wanted, &request) => first?,
        _ = &mut stopped => return Ok(()),
    };

    let _busy = peer.busy();
    let First { data, path, later } = first;
    let head = ChunkData { bytes, path };
    if framed::write(send, &head).await.is_err() {
        return Ok(());
    }
    let link = peer.link();
    let mut rest = data;
    let mut unread = later;
    while !rest.is_empty() {
        let piece_bytes = keep_little_unsent(inner, &link);
        let piece = rest.split_to(rest.len().min(piece_bytes));
        let length = piece.len() as u64;
        let written = tokio::select! {
            biased;
            written = write_piece(&turn, &link, send, piece) => written,
            // quinn does not reset by itself when the other side stops listening.
            _ = &mut stopped => false,
        };
        if !written {
            let _ = send.reset(VarInt::from_u32(0));
            return Ok(());
        }
        turn.sent_bytes += length;
        inner
            .uploads
            .sent_bytes
            .fetch_add(length, Ordering::Relaxed);
        if rest.is_empty() && !unread.is_empty() {
            let block = tokio::select! {
                biased;
                block = reader.block(&turn, &mut unread) => block.ok(),
                _ = &mut stopped => None,
            };
            let Some(block) = block else {
                // It was said that data follows: all that can be said now is that it does not.
                let _ = send.reset(VarInt::from_u32(0));
                return Ok(());
            };
            rest = block;
        }
    }
    let _ = send.finish();
    let stats = link.connection.stats();
    trace!(
        peer = %peer.node,
        chunk = wanted.chunk.0,
        rtt = ?stats.path.rtt,
        window = stats.path.cwnd,
        lost = stats.path.lost_packets,
        sent = stats.path.sent_packets,
        shrunk = stats.path.congestion_events,
        blocked = stats.frame_tx.data_blocked,
        queue = inner.uploads.queue_bytes(),
        "answered"
    );
    // The next answer may start; the memory is free as this one is acknowledged.
    drop(turn);
    if timeout(2 * PIECE_DEADLINE, stopped).await.is_err() {
        debug!(peer = %peer.node, "an answer was not acknowledged in time");
        let _ = send.reset(VarInt::from_u32(0));
    }
    Ok(())
}

/// Lets a connection take little more than its path holds. What waits in its buffers instead could
/// not be put in another order any more, and an answer that is under way would look finished.
/// Returns the size of the next piece.
fn keep_little_unsent(inner: &Inner, link: &PeerConnection) -> usize {
    let path = link.connection.stats().path;
    let piece_bytes = (path.cwnd / 8).clamp(PIECE_MIN_BYTES, PIECE_MAX_BYTES);
    let is_long = link.shortest_round_trip() >= LONG_PATH;
    let held_bytes = match is_long && link.is_losing(path.lost_packets) {
        true => held_up_bytes(path.cwnd),
        false => path.cwnd,
    };
    let max_bytes = inner.limits.transport.send_window_bytes;
    let window_bytes = (held_bytes + piece_bytes).min(max_bytes);
    link.connection.set_send_window(window_bytes);
    piece_bytes as usize
}

/// What a connection holds while so much is in flight and some is lost: quinn keeps what has
/// arrived until all that stands before it in its stream has, too, which takes another round trip.
fn held_up_bytes(in_flight_bytes: u64) -> u64 {
    in_flight_bytes * 2
}

/// Queues a request; the receiver hears when its turn comes.
fn take_turn<'a>(
    inner: &'a Inner,
    peer: &Peer,
    request: &ChunkRequest,
    chunk: ChunkIndex,
    bytes: u64,
) -> Result<(Turn<'a>, oneshot::Receiver<()>), Refused> {
    let (starter, start) = oneshot::channel();
    let mut queue = inner.uploads.lock();
    let queued =
        queue
            .serve
            .handle_request(Instant::now(), peer.key, request.content, chunk, bytes);
    let ticket = queued.map_err(|busy| {
        let mut refused = Refused::new(Refusal::Busy);
        refused.retry_after_ms = u32::try_from(busy.retry_after.as_millis()).unwrap_or(u32::MAX);
        refused
    })?;
    let waiter = Waiter {
        client: peer.key,
        start: starter,
        served: peer.served.clone(),
    };
    queue.waiting.insert(ticket, waiter);
    inner.uploads.start_next(&mut queue);
    Ok((
        Turn {
            uploads: &inner.uploads,
            ticket,
            sent_bytes: 0,
        },
        start,
    ))
}

/// Reads what is to be answered with, block by block.
struct Reader<'a> {
    inner: &'a Arc<Inner>,
    peer: &'a Peer,
    holding: Holding,
    chunks: Chunks,
    chunk: ChunkIndex,
}

/// The beginning of an answer.
struct First {
    data: Bytes,
    path: Vec<qshare_content::Hash>,
    /// What is to be read when that has left.
    later: Range<u64>,
}

impl Reader<'_> {
    async fn first(
        &self,
        turn: &Turn<'_>,
        wanted: &Subtree,
        request: &ChunkRequest,
    ) -> Result<First, Refused> {
        let mut later = wanted.range.clone();
        let (data, path) = match usize::from(request.path_levels) {
            0 => (self.block(turn, &mut later).await?, Vec::new()),
            levels => {
                self.with_path(turn, wanted, request.height, levels, &mut later)
                    .await?
            }
        };
        Ok(First { data, path, later })
    }

    /// The next block of `unread`, which is shorter by it then.
    async fn block(&self, turn: &Turn<'_>, unread: &mut Range<u64>) -> Result<Bytes, Refused> {
        let (share, range) = self.room_for_block(turn, unread).await;
        Ok(Charged::answer(self.read(range).await?, share))
    }

    /// A block's beginning with the audit path of all that is wanted, which needs the hashes of the
    /// whole chunk. The rest of the chunk is not held for as long as this takes to leave.
    async fn with_path(
        &self,
        turn: &Turn<'_>,
        wanted: &Subtree,
        height: u8,
        levels: usize,
        unread: &mut Range<u64>,
    ) -> Result<(Bytes, Vec<qshare_content::Hash>), Refused> {
        let whole = self.chunks.range(self.chunk);
        let (share, range) = self.room_for_block(turn, unread).await;
        let _work = turn.uploads.memory.work(whole.end - whole.start).await;
        let read = self.read(whole.clone()).await?;
        let (chunks, index) = (self.chunks, wanted.index_in_chunk);
        let block = (range.start - whole.start) as usize..(range.end - whole.start) as usize;
        let prove = move || {
            let leaves = tree::leaf_hashes(&read);
            let mut path = tree::subtree_path(&chunks, leaves, height, index);
            path.truncate(levels);
            let block: Box<[u8]> = read.get(block).unwrap_or_default().into();
            (Charged::answer(block, share), path)
        };
        Ok(self.inner.blocking(prove).await)
    }

    /// Room for the next block of `unread`, and what that is.
    async fn room_for_block(
        &self,
        turn: &Turn<'_>,
        unread: &mut Range<u64>,
    ) -> (Share, Range<u64>) {
        let most_bytes = (unread.end - unread.start).min(BLOCK_BYTES);
        let share = room(turn, self.peer, most_bytes).await;
        let range = unread.start..unread.start + share.bytes();
        unread.start = range.end;
        (share, range)
    }

    async fn read(&self, range: Range<u64>) -> Result<Buffer, Refused> {
        let bytes = range.end - range.start;
        let (reader, holding, chunk) = (self.inner.clone(), self.holding.clone(), self.chunk);
        let content = holding.info().id();
        let read = move || {
            let mut data = reader.buffers.take(bytes as usize);
            let contents = &reader.contents;
            contents.read_into(&holding, chunk, range.start, &mut data)?;
            Ok(data)
        };
        let read = match bytes <= SMALL_READ_BYTES {
            true => self.inner.batch.run(read).await,
            false => self.inner.blocking(read).await,
        };
        read.map_err(|error: ReadError| {
            debug!(%content, %error, "cannot read");
            refuse_read(&error)
        })
    }
}

/// Room for so many bytes, or for as many as there are for this client now; whoever waits for it
/// keeps nobody from being answered who has any.
async fn room(turn: &Turn<'_>, peer: &Peer, most_bytes: u64) -> Share {
    let memory = &turn.uploads.memory;
    if let Some(share) = memory.try_take(peer.key, most_bytes) {
        return share;
    }
    turn.set_blocked(true);
    let mut share = std::pin::pin!(memory.take(peer.key, most_bytes));
    let taken = match timeout(PARKED_AFTER, &mut share).await {
        Ok(share) => share,
        Err(_) => {
            turn.uploads.start_next(&mut turn.uploads.lock());
            share.await
        }
    };
    turn.set_blocked(false);
    taken
}

/// How long a piece may wait for its path before others may go on, where our link would let
/// `share_of_link` bytes of it go a second. Where nothing queues on a long path, its link is not full.
fn blocked_after(
    piece_bytes: usize,
    share_of_link: Option<f64>,
    round_trip: Duration,
    shortest: Duration,
) -> Duration {
    if shortest >= LONG_PATH && round_trip < shortest * 3 / 2 {
        return WINDOW_FULL_AFTER;
    }
    share_of_link.map_or(BLOCKED_AFTER, |share| {
        let seconds = BLOCKED_TIMES * piece_bytes as f64 / share;
        let bounds = (
            BLOCKED_AFTER_MIN.as_secs_f64(),
            BLOCKED_AFTER_MAX.as_secs_f64(),
        );
        Duration::from_secs_f64(seconds.clamp(bounds.0, bounds.1))
    })
}

/// Hands one piece to the stream; false when nobody takes it.
async fn write_piece(
    turn: &Turn<'_>,
    link: &PeerConnection,
    send: &mut SendStream,
    piece: Bytes,
) -> bool {
    let answers = f64::from(turn.uploads.running_max.max(1));
    let blocked_after = blocked_after(
        piece.len(),
        qshare_net::link_rate(&link.connection).map(|rate| rate / answers),
        link.connection.rtt(),
        link.shortest_round_trip(),
    );
    let mut write = std::pin::pin!(send.write_chunk(piece));
    if let Ok(written) = timeout(blocked_after, &mut write).await {
        return written.is_ok();
    }
    turn.set_blocked(true);
    let mut written = timeout(PARKED_AFTER, &mut write).await;
    if written.is_err() {
        turn.uploads.start_next(&mut turn.uploads.lock());
        written = timeout(PIECE_DEADLINE, write).await;
    }
    turn.set_blocked(false);
    matches!(written, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use qshare_swarm::ServeConfig;

    #[tokio::test]
    async fn a_client_hears_when_its_last_request_stops_waiting() {
        let mut queue = Queue {
            serve: Serve::new(ServeConfig::default(), 1),
            waiting: HashMap::new(),
        };
        let client = PeerKey(1);
        let notify = Arc::new(Notify::new());
        let root = tree::leaf_hash(&[]);
        let content = qshare_content::ContentInfo { length: 1, root }.id();
        let mut starts = Vec::new();
        for chunk in 0..2 {
            let now = Instant::now();
            let asked =
                queue
                    .serve
                    .handle_request(now, client, content, ChunkIndex(chunk), 1 << 20);
            let (start, started) = oneshot::channel();
            starts.push(started);
            let served = notify.clone();
            queue.waiting.insert(
                asked.unwrap(),
                Waiter {
                    client,
                    start,
                    served,
                },
            );
        }
        let mut heard = Box::pin(notify.notified());
        heard.as_mut().enable();
        queue.start_next();
        let left = *queue.waiting.keys().next().unwrap();
        assert_eq!(queue.waiting.len(), 1, "one runs at a time");
        assert!(timeout(Duration::ZERO, &mut heard).await.is_err());
        assert!(queue.serve.handle_withdraw(left));
        queue.stop_waiting(left);
        timeout(Duration::from_secs(10), heard).await.unwrap();
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn others_go_on_at_once_where_only_the_window_is_full() {
        let after = |round_trip, shortest| blocked_after(32 << 10, None, round_trip, shortest);
        assert_eq!(after(42 * MS, 40 * MS), WINDOW_FULL_AFTER);
        // Something queues: the link is full.
        assert_eq!(after(70 * MS, 40 * MS), BLOCKED_AFTER);
        // A local network, before anything is known of its queue.
        assert_eq!(after(MS, MS), BLOCKED_AFTER);
    }

    #[test]
    fn others_go_on_where_the_path_of_one_is_slower_than_its_share_of_our_link() {
        let after = |mbit: f64| blocked_after(25_000, Some(mbit * 1e6 / 8.0), MS, MS);
        // 25 kB take 4 ms at 50 Mbit/s.
        assert_eq!(after(50.0), 8 * MS);
        assert_eq!(after(10.0), 40 * MS);
        assert_eq!(after(10_000.0), BLOCKED_AFTER_MIN);
        assert_eq!(after(0.1), BLOCKED_AFTER_MAX);
    }
}
