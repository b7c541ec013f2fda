//! A client of a node, over real QUIC, that reads answers only when a test says so.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use qshare_content::{ChunkIndex, Chunks, ContentInfo, NodeId};
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialTarget, Endpoint, Identity, Session, TransportConfig, dial};
use qshare_wire::hello::Role;
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::{CloseCode, Message, limits};
use quinn::{RecvStream, SendStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::background::Background;
use crate::tracker_client::{endpoint_with, greeting};

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Time to deliver a goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);
/// Deadline of every wait in here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Receive window smaller than the smallest chunk.
const WINDOW_BYTES: u32 = 64 << 10;
/// Bytes that a slow reader reads at once, and the pause before the next read. The pause is just
/// less than the 2 s after which a serving node regards a reader as stalled.
const SIP_BYTES: usize = 32 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(1800);

/// Number of requests that are followed by unwanted bytes.
const POURS: u32 = 4;
/// The unwanted bytes.
const JUNK: [u8; 16 << 10] = [0; 16 << 10];
/// A node that reads nothing for this long has stopped reading.
const TAKEN_DEADLINE: Duration = Duration::from_millis(500);

/// Returns a runtime for clients.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for a future, for at most `PATIENCE`.
///
/// # Panics
/// When the deadline passes.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// A connection to a node with an ephemeral identity.
pub struct Client {
    /// The connection.
    pub session: Session,
    endpoint: Endpoint,
}

/// A request and the stream of its answer.
pub struct Asked {
    /// The requester's half of the stream; a reset withdraws the request.
    pub send: SendStream,
    /// The half with the answer.
    pub recv: RecvStream,
}

impl Client {
    /// Connects to a node. With `holds_up` the receive window is smaller than a chunk, so that
    /// unread bytes stay in the node's memory.
    pub async fn connect(address: SocketAddr, node: NodeId, holds_up: bool) -> Client {
        let mut transport = TransportConfig::default();
        if holds_up {
            transport.stream_receive_window_bytes = WINDOW_BYTES;
        }
        Client::connect_with(address, node, transport).await
    }

    /// Connects to a node. The receive window of all answers together is smaller than a chunk, so
    /// that an unread one holds up all others.
    pub async fn connect_narrow(address: SocketAddr, node: NodeId) -> Client {
        let transport = TransportConfig {
            receive_window_bytes: WINDOW_BYTES,
            ..TransportConfig::default()
        };
        Client::connect_with(address, node, transport).await
    }

    async fn connect_with(address: SocketAddr, node: NodeId, transport: TransportConfig) -> Client {
        let endpoint = endpoint_with(&Identity::ephemeral().unwrap(), transport);
        let greeting = greeting(Role::OneShot, None);
        let session = dial(
            &endpoint,
            &greeting,
            DialTarget::Node(node),
            address,
            DIAL_DEADLINE,
        );
        Client {
            session: session.await.unwrap(),
            endpoint,
        }
    }

    /// Returns the id of its identity.
    pub fn id(&self) -> NodeId {
        self.endpoint.id()
    }

    /// Requests a whole chunk.
    pub async fn ask(&self, content: ContentInfo, chunk: u32) -> Asked {
        let (mut send, recv) = self.session.connection.open_bi().await.unwrap();
        let request = ChunkRequest {
            content: content.id(),
            height: Chunks::of_length(content.length).height(),
            index: chunk.into(),
            path_levels: 0,
            extensions: Vec::new(),
        };
        framed::write(&mut send, &request).await.unwrap();
        Asked { send, recv }
    }

    /// Requests chunks, and sends unwanted bytes after each request until the node reads no more.
    /// Returns how many bytes it took.
    pub async fn pour(&self, content: ContentInfo) -> usize {
        let mut held = Vec::new();
        for chunk in 0..POURS {
            held.push(self.ask(content, chunk).await);
        }
        let mut taken = 0;
        for asked in &mut held {
            while let Ok(Ok(written)) = timeout(TAKEN_DEADLINE, asked.send.write(&JUNK)).await {
                taken += written;
            }
        }
        taken
    }

    /// Closes the connection and waits until the node has been told.
    pub async fn leave(self) {
        let goodbye = CloseCode::Goodbye;
        self.endpoint.close(goodbye, GOODBYE_DEADLINE).await;
    }

    /// Requests the first page of chunk hashes.
    pub async fn hashes(&self, content: ContentInfo) -> Result<Hashes, ReadError> {
        let request = HashRequest {
            content: content.id(),
            page: 0,
            extensions: Vec::new(),
        };
        let (hashes, ..) = framed::ask(&self.session.connection, &request).await?;
        Ok(hashes)
    }

    /// Subscribes to the node's `Have` and `HaveMore`.
    pub async fn interest(&self, content: ContentInfo) -> News {
        let (mut send, recv) = self.session.connection.open_bi().await.unwrap();
        let interest = Interest {
            content: content.id(),
            extensions: Vec::new(),
        };
        framed::write(&mut send, &interest).await.unwrap();
        News {
            recv,
            _send: send,
            chunks: vec![false; Chunks::of_length(content.length).count() as usize],
            queue_bytes: 0,
        }
    }
}

impl Asked {
    /// Reads the header of the answer.
    pub async fn head(&mut self) -> Result<ChunkData, ReadError> {
        framed::read(&mut self.recv).await
    }

    /// Reads the rest of an answer whose header was read.
    pub async fn rest(&mut self) -> Vec<u8> {
        self.recv.read_to_end(8 << 20).await.unwrap()
    }
}

/// The chunks that a node says it has.
pub struct News {
    recv: RecvStream,
    _send: SendStream,
    /// For each chunk, whether the node has it.
    pub chunks: Vec<bool>,
    /// Bytes that wait in the node's queue, by its last message.
    pub queue_bytes: u64,
}

impl News {
    /// Reads messages until the state satisfies `wanted`.
    pub async fn until(&mut self, mut wanted: impl FnMut(&News) -> bool) {
        while !wanted(self) {
            let body_max = limits::LIST_BODY_MAX_BYTES;
            let frame = framed::read_frame(&mut self.recv, body_max).await.unwrap();
            match frame.kind {
                Have::TYPE => {
                    let have: Have = frame.decode().unwrap();
                    for (at, chunk) in self.chunks.iter_mut().enumerate() {
                        let byte = have.bitmap.get(at / 8).copied().unwrap_or(0);
                        *chunk = have.complete || byte >> (at % 8) & 1 == 1;
                    }
                    self.queue_bytes = have.queue_bytes;
                }
                _ => {
                    let more: HaveMore = frame.decode().unwrap();
                    for chunk in more.chunks {
                        self.chunks[ChunkIndex(chunk).get()] = true;
                    }
                    self.queue_bytes = more.queue_bytes;
                }
            }
        }
    }

    /// Returns how many chunks the node has.
    pub fn count(&self) -> usize {
        self.chunks.iter().filter(|&&has| has).count()
    }
}

/// Clients that each request one chunk and read it slowly, until the value is dropped.
pub struct SlowReaders {
    _running: Background,
}

impl SlowReaders {
    /// Starts `count` clients, and returns once each of them is being answered.
    pub fn start(address: SocketAddr, node: NodeId, content: ContentInfo, count: u32) -> Self {
        let ((), running) = Background::start(move |ready, stopped| async move {
            let (begun, mut has_begun) = mpsc::unbounded_channel();
            for reader in 0..count {
                let begun = begun.clone();
                tokio::spawn(async move {
                    let client = Client::connect(address, node, true).await;
                    let mut asked = client.ask(content, reader).await;
                    asked.head().await.unwrap();
                    begun.send(()).unwrap();
                    let mut sip = vec![0; SIP_BYTES];
                    while asked.recv.read_exact(&mut sip).await.is_ok() {
                        sleep(SIP_PAUSE).await;
                    }
                });
            }
            for _ in 0..count {
                soon("an answer to a slow reader", has_begun.recv()).await;
            }
            ready.send(()).unwrap();
            let _ = stopped.await;
        });
        SlowReaders { _running: running }
    }
}
