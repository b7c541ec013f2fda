//! A scripted peer: it announces files like a node, then serves or misbehaves as a test says, and
//! counts the requests that it gets.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qshare_content::{AssetName, Chunks, ContentId, ContentInfo, Hash, LEAF_BYTES, NodeId, tree};
use qshare_net::{DialTarget, Endpoint, Identity, Session, accept, dial, framed};
use qshare_wire::hello::Role;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind};
use qshare_wire::{CloseCode, Message, Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::files;
use crate::process::eventually;
use crate::tracker_client::{endpoint, greeting};

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Chunk size of files of 2 GiB and more.
const LARGEST_CHUNK_BYTES: u64 = 4 << 20;
/// Requests that a peer answers before it misbehaves.
const ANSWERS_BEFORE: usize = 4;
/// A node that grants no further stream for this long has reached its limit.
const STREAM_DEADLINE: Duration = Duration::from_millis(500);
/// More streams than any node should grant.
const STREAMS_MAX: usize = 10_000;
/// Interval between two claims to have everything.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
/// Time to deliver a goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);

/// How a peer behaves towards downloaders. Everything else it does correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As a node should.
    Honest,
    /// Answers no chunk request until [`TestPeer::allow`] permits it.
    Gated,
    /// Alters a byte of every chunk.
    WrongBytes,
    /// Refuses every request as busy, to be retried at once.
    AlwaysBusy,
    /// Refuses every request with *not here*, although it announced the content.
    NotHere,
    /// Claims to have everything, then refuses every request with *not yet*.
    NeverYet,
    /// Answers a few requests, then refuses all others with *not here* while it keeps claiming to
    /// have everything.
    ClaimsAgain,
    /// Confirms a withdrawal of every request, although none was withdrawn.
    AlwaysWithdrawn,
    /// Announces that it has everything, then sends an empty `Have`.
    HasNothing,
    /// Has every chunk, but refuses to send hashes.
    NoHashes,
    /// Opens as many streams to each client as it may, and sends no request on any.
    OpensStreams,
    /// Claims to have chunks beyond the end of the file.
    NonsenseHave,
    /// Repeats the same `HaveMore` as fast as it can, and answers nothing.
    FloodsHave,
    /// Sends one byte per second.
    Trickle,
    /// Stops sending in the middle of every chunk.
    StallsMidChunk,
    /// Stops sending when the last 1 % of a chunk is missing.
    StallsNearEnd,
    /// Answers until the last 1 % of the file is missing, then answers nothing.
    StallsInTheEnd,
    /// Accepts every stream and answers nothing.
    Silent,
    /// Keeps sending after the end of every chunk.
    Endless,
    /// Answers with frames that cannot be decoded.
    Junk,
    /// Sends a correct `Have`, then frames that cannot be decoded.
    JunkNews,
    /// Answers hash requests with frames that cannot be decoded.
    JunkHashes,
    /// Answers chunk requests with frames that cannot be decoded.
    JunkChunks,
    /// Sends the header of a frame of 4 GiB.
    HugeFrame,
    /// Alters a chunk hash in every page.
    WrongHashes,
    /// Sends the first page of hashes correctly, and alters a chunk hash in later pages.
    WrongLaterHashes,
    /// Answers a chunk request with another length.
    WrongLength,
}

/// Requests that a peer received.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that completed Hello.
    pub connections: AtomicUsize,
    /// Streams with an `Interest`.
    pub interests: AtomicUsize,
    /// See [`Counts::interests`].
    pub hash_requests: AtomicUsize,
    /// See [`Counts::interests`].
    pub chunk_requests: AtomicUsize,
    /// Other requests, and bytes after a chunk request on its stream.
    pub strays: AtomicUsize,
    /// Chunk requests answered completely.
    pub answered: AtomicUsize,
    /// Floods that the receiver ended.
    pub cut_off: AtomicUsize,
    /// Bytes of floods that the receiver read.
    pub flooded_bytes: AtomicUsize,
    /// Streams that the peer opened.
    pub opened: AtomicUsize,
}

/// A file that a peer has.
#[derive(Debug)]
struct Asset {
    name: AssetName,
    info: ContentInfo,
    body: Body,
    hashes: Vec<Hash>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    /// Zeros, for files that do not fit into memory.
    Zeros,
}

impl Asset {
    fn of_bytes(name: &str, bytes: &[u8]) -> Asset {
        Asset {
            name: AssetName::new(name).unwrap(),
            info: files::info(bytes),
            body: Body::Bytes(bytes.to_vec()),
            hashes: files::chunk_hashes(bytes),
        }
    }

    /// Makes a file of `chunk_count` chunks of the largest size, all zeros.
    fn of_zeros(name: &str, chunk_count: u32) -> Asset {
        let length = u64::from(chunk_count) * LARGEST_CHUNK_BYTES;
        let chunks = Chunks::of_length(length);
        assert_eq!(chunks.count(), chunk_count);
        let chunk = vec![0; LARGEST_CHUNK_BYTES as usize];
        let hashes = vec![tree::chunk_hash(&chunks, &chunk); chunk_count as usize];
        let root = tree::root_of_chunks(&chunks, &hashes);
        Asset {
            name: AssetName::new(name).unwrap(),
            info: ContentInfo { length, root },
            body: Body::Zeros,
            hashes,
        }
    }

    fn read(&self, range: Range<u64>) -> Vec<u8> {
        match &self.body {
            Body::Bytes(bytes) => bytes[range.start as usize..range.end as usize].to_vec(),
            Body::Zeros => vec![0; (range.end - range.start) as usize],
        }
    }
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    assets: HashMap<ContentId, Asset>,
    counts: Counts,
    asked: Mutex<Vec<(ContentId, Range<u64>)>>,
    gate: Semaphore,
    /// Answers begun, where their number is limited.
    begun: AtomicUsize,
}

/// A peer that runs in a thread until the value is dropped.
pub struct TestPeer {
    /// Its id.
    pub id: NodeId,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestPeer {
    /// Starts a peer that announces one file.
    pub fn start(manner: Manner, tracker: SocketAddr, name: &str, bytes: &[u8]) -> TestPeer {
        TestPeer::with_files(manner, tracker, &[(name, bytes)])
    }

    /// Starts a peer that announces several files. Returns once the tracker has all of them.
    pub fn with_files(manner: Manner, tracker: SocketAddr, files: &[(&str, &[u8])]) -> TestPeer {
        let asset = |&(name, bytes): &(&str, &[u8])| Asset::of_bytes(name, bytes);
        TestPeer::with_assets(manner, tracker, files.iter().map(asset).collect())
    }

    /// Starts a peer that announces one file of `chunk_count` chunks of the largest size, all
    /// zeros.
    pub fn with_zeros(
        manner: Manner,
        tracker: SocketAddr,
        name: &str,
        chunk_count: u32,
    ) -> TestPeer {
        TestPeer::with_assets(manner, tracker, vec![Asset::of_zeros(name, chunk_count)])
    }

    fn with_assets(manner: Manner, tracker: SocketAddr, assets: Vec<Asset>) -> TestPeer {
        let assets = assets.into_iter().map(|asset| (asset.info.id(), asset));
        let shared = Arc::new(Shared {
            manner,
            assets: assets.collect(),
            counts: Counts::default(),
            asked: Mutex::default(),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
        });
        let identity = Identity::ephemeral().unwrap();
        let id = identity.id();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let ours = shared.clone();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let endpoint = endpoint(&identity);
                let session = announce(&endpoint, tracker, &ours).await;
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(&endpoint, &ours) => {}
                    _ = stopped => {}
                }
                endpoint.close(CloseCode::Goodbye, GOODBYE_DEADLINE).await;
                drop(session);
            });
        });
        is_ready.recv().unwrap();
        TestPeer {
            id,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns its counters.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Waits until it has received `requests` chunk requests.
    pub fn until_asked(&self, requests: usize) {
        let asked = &self.counts().chunk_requests;
        eventually("requests to the test's peer", || {
            (asked.load(Ordering::Relaxed) >= requests).then_some(())
        });
    }

    /// Waits until it has answered `requests` chunk requests.
    pub fn until_answered(&self, requests: usize) {
        let answered = &self.counts().answered;
        eventually("answers of the test's peer", || {
            (answered.load(Ordering::Relaxed) >= requests).then_some(())
        });
    }

    /// Permits a gated peer to answer `requests` more chunk requests.
    pub fn allow(&self, requests: usize) {
        self.shared.gate.add_permits(requests);
    }

    /// Permits a gated peer to answer every further request.
    pub fn open(&self) {
        self.allow(1_000_000);
    }

    /// Withdraws unused permits.
    pub fn close(&self) {
        self.shared.gate.forget_permits(usize::MAX);
    }

    /// Returns the requested byte ranges of each content since the last call.
    pub fn take_asked(&self) -> Vec<(ContentId, Range<u64>)> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn announce(endpoint: &Endpoint, tracker: SocketAddr, shared: &Shared) -> Session {
    let greeting = greeting(Role::Node, None);
    let target = DialTarget::Tracker(None);
    let session = dial(endpoint, &greeting, target, tracker, DIAL_DEADLINE).await;
    let mut session = session.unwrap();
    let entries = shared.assets.values().map(|asset| Entry {
        name: asset.name.clone(),
        kind: EntryKind::File,
        info: asset.info,
        complete: true,
        flags: 0,
        metadata: Vec::new(),
    });
    let batches = [
        (AnnounceStage::FullBegin, entries.collect()),
        (AnnounceStage::FullEnd, vec![]),
    ];
    for (sequence, (stage, entries)) in (0..).zip(batches) {
        let batch = Announce {
            sequence,
            stage,
            entries,
            removed: Vec::new(),
            extensions: Vec::new(),
        };
        framed::write(&mut session.control_send, &batch)
            .await
            .unwrap();
        let ack: AnnounceAck = framed::read(&mut session.control_recv).await.unwrap();
        assert_eq!((ack.sequence, ack.refused), (sequence, 0), "{}", ack.reason);
    }
    session
}

async fn serve(endpoint: &Endpoint, shared: &Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let (us, shared) = (endpoint.id(), shared.clone());
        tokio::spawn(async move {
            let Ok(session) = accept(us, &greeting(Role::Node, None), incoming).await else {
                return;
            };
            count(&shared.counts.connections);
            let _opened = match shared.manner {
                Manner::OpensStreams => open_all(&shared, &session).await,
                _ => Vec::new(),
            };
            while let Ok((send, recv)) = session.connection.accept_bi().await {
                let shared = shared.clone();
                // An error means that the requester ended the stream.
                tokio::spawn(async move {
                    let _ = answer(&shared, send, recv).await;
                });
            }
        });
    }
}

type Ending = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Opens streams until the other side grants no more.
async fn open_all(shared: &Shared, session: &Session) -> Vec<(SendStream, RecvStream)> {
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

async fn answer(shared: &Shared, mut send: SendStream, mut recv: RecvStream) -> Ending {
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
    let chunks = Chunks::of_length(asset.info.length);
    let range = tree::page_chunks(&chunks, request.page);
    let mut hashes = asset.hashes[range.start as usize..range.end as usize].to_vec();
    let page_roots = (0..tree::page_count(&chunks)).map(|page| {
        let range = tree::page_chunks(&chunks, page);
        tree::page_root(
            &chunks,
            &asset.hashes[range.start as usize..range.end as usize],
        )
    });
    let path = tree::page_path(&chunks, page_roots.collect(), request.page);
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
        path: audit_path(asset, &chunks, request),
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

fn audit_path(asset: &Asset, chunks: &Chunks, request: &ChunkRequest) -> Vec<Hash> {
    if request.path_levels == 0 {
        return Vec::new();
    }
    let per_chunk = 1u64 << (chunks.height() - request.height);
    let start = request.index / per_chunk * chunks.chunk_bytes();
    let end = (start + chunks.chunk_bytes()).min(asset.info.length);
    let leaves = tree::leaf_hashes(&asset.read(start..end));
    let index = u32::try_from(request.index % per_chunk).unwrap();
    let mut path = tree::subtree_path(chunks, leaves, request.height, index);
    path.truncate(usize::from(request.path_levels));
    path
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

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}
