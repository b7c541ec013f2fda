//! Peers that send requests and do not read the answers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qshare_content::{Chunks, ContentInfo};
use qshare_net::{DialTarget, Identity, Session, TransportConfig, dial, framed};
use qshare_wire::hello::Role;
use qshare_wire::peer::{ChunkRequest, HashRequest, Hashes};
use qshare_wire::{FRAME_HEADER_BYTES, FrameHeader, Message};
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::tracker_client::{endpoint_with, greeting};
use crate::world::Node;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// A node that grants no further stream for this long has reached its limit.
const STREAM_DEADLINE: Duration = Duration::from_millis(500);
/// Receive window smaller than the smallest chunk.
const WINDOW_BYTES: u32 = 64 << 10;
/// More streams than any node should grant.
const STREAMS_MAX: usize = 10_000;

/// Bytes of a page that a hoarder accepts, and its pause after a refusal.
const PAGE_WINDOW_BYTES: u32 = 1 << 10;
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// Concurrent requests for pages; one of the 256 streams is left for Hello.
const PAGES_AT_ONCE: usize = 250;

/// Sends chunk requests from a thread, and keeps them open until the value is dropped.
pub struct Asker {
    /// Number of streams that the node granted.
    pub streams: usize,
    _running: Background,
}

impl Asker {
    /// Requests chunks of this content from `node` on as many streams as it grants.
    pub fn start(node: &Node, content: ContentInfo) -> Asker {
        let (streams, running) = run(node, stuck(), move |session| async move {
            let held = ask(&session, content).await;
            (held.len(), (session, held))
        });
        Asker {
            streams,
            _running: running,
        }
    }
}

/// Windows so small that the node can finish no answer.
fn stuck() -> TransportConfig {
    TransportConfig {
        receive_window_bytes: WINDOW_BYTES,
        stream_receive_window_bytes: WINDOW_BYTES,
        ..TransportConfig::default()
    }
}

/// Connects to a node from a thread. Returns the first value of `work`; its second value is kept
/// alive until the thread ends.
fn run<T: Send + 'static, H, F: Future<Output = (T, H)>>(
    node: &Node,
    transport: TransportConfig,
    work: impl FnOnce(Session) -> F + Send + 'static,
) -> (T, Background) {
    let (address, peer) = (node.address, node.id.parse().unwrap());
    Background::start(move |ready, stopped| async move {
        let endpoint = endpoint_with(&Identity::ephemeral().unwrap(), transport);
        let greeting = greeting(Role::OneShot, None);
        let target = DialTarget::Node(peer);
        let session = dial(&endpoint, &greeting, target, address, DIAL_DEADLINE).await;
        let (found, held) = work(session.unwrap()).await;
        ready.send(found).unwrap();
        let _ = stopped.await;
        drop(held);
    })
}

async fn ask(session: &Session, content: ContentInfo) -> Vec<(SendStream, RecvStream)> {
    let chunks = Chunks::of_length(content.length);
    let mut held = Vec::new();
    while held.len() < STREAMS_MAX {
        let Ok(Ok((mut send, recv))) = timeout(STREAM_DEADLINE, session.connection.open_bi()).await
        else {
            break;
        };
        let request = ChunkRequest {
            content: content.id(),
            height: chunks.height(),
            index: held.len() as u64 % u64::from(chunks.count()),
            path_levels: 0,
            extensions: Vec::new(),
        };
        if framed::write(&mut send, &request).await.is_err() {
            break;
        }
        held.push((send, recv));
    }
    held
}

/// Requests pages of chunk hashes and reads only the header of each answer. It retries after a
/// refusal, and after the node gave up an answer.
pub struct PageHoarder {
    counts: Arc<PageCounts>,
    _running: Background,
}

#[derive(Default)]
struct PageCounts {
    held: AtomicUsize,
    refused: AtomicUsize,
}

impl PageHoarder {
    /// Requests the first page of the chunk hashes of this content from `node`.
    pub fn start(node: &Node, content: ContentInfo) -> PageHoarder {
        let transport = TransportConfig {
            stream_receive_window_bytes: PAGE_WINDOW_BYTES,
            ..TransportConfig::default()
        };
        let counts = Arc::new(PageCounts::default());
        let ours = counts.clone();
        let ((), running) = run(node, transport, move |session| async move {
            let session = Arc::new(session);
            let mut hoarding = JoinSet::new();
            for _ in 0..PAGES_AT_ONCE {
                let (session, counts) = (session.clone(), ours.clone());
                hoarding.spawn(async move { hoard(&session, content, &counts).await });
            }
            ((), hoarding)
        });
        PageHoarder {
            counts,
            _running: running,
        }
    }

    /// Returns how many pages the node keeps in memory for it.
    pub fn held(&self) -> usize {
        self.counts.held.load(Ordering::Relaxed)
    }

    /// Returns how often it was refused.
    pub fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }
}

async fn hoard(session: &Session, content: ContentInfo, counts: &PageCounts) {
    let request = HashRequest {
        content: content.id(),
        page: 0,
        extensions: Vec::new(),
    };
    while let Ok((mut send, mut recv)) = session.connection.open_bi().await {
        let mut header = [0; FRAME_HEADER_BYTES];
        let asked = framed::write(&mut send, &request).await;
        if asked.is_err() || recv.read_exact(&mut header).await.is_err() {
            continue;
        }
        if FrameHeader::parse(header).kind == Hashes::TYPE {
            counts.held.fetch_add(1, Ordering::Relaxed);
            let _ = recv.received_reset().await;
            counts.held.fetch_sub(1, Ordering::Relaxed);
        } else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            drop((send, recv));
            sleep(REFUSED_PAUSE).await;
        }
    }
}
