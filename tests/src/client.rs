//! A node's client by hand: it asks over real QUIC, and takes what it wants when it wants.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qshare_content::{ChunkIndex, Chunks, ContentInfo, NodeId};
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialTarget, Endpoint, Identity, Session, TransportConfig, dial};
use qshare_wire::hello::Role;
use qshare_wire::peer::{ChunkData, ChunkRequest, HashRequest, Hashes, Have, HaveMore, Interest};
use qshare_wire::{CloseCode, Message, limits};
use quinn::{RecvStream, SendStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::tracker_client::{endpoint_with, greeting};

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// For telling a node that one leaves.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);
/// For everything that a test waits for here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Less than the smallest chunk.
const WINDOW_BYTES: u32 = 64 << 10;
/// What a slow reader takes at once, and how long it waits before it takes more: just less than the
/// two seconds after which a node that serves does not count on it.
const SIP_BYTES: usize = 32 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(1800);

/// Streams on which more is sent than was asked for.
const POURS: u32 = 4;
/// What is sent there.
const JUNK: [u8; 16 << 10] = [0; 16 << 10];
/// A node that takes nothing for this long takes no more.
const TAKEN_DEADLINE: Duration = Duration::from_millis(500);

/// A runtime for clients.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for something, but not for ever.
///
/// # Panics
/// When it does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// A connection to a node, of somebody with an identity of its own.
pub struct Client {
    /// The connection.
    pub session: Session,
    endpoint: Endpoint,
}

/// A request, and where its answer comes.
pub struct Asked {
    /// Our half; resetting it withdraws.
    pub send: SendStream,
    /// The answer.
    pub recv: RecvStream,
}

impl Client {
    /// Connects to a node. A client that `holds_up` has a window smaller than a chunk: what it does
    /// not read stays with the node.
    pub async fn connect(address: SocketAddr, node: NodeId, holds_up: bool) -> Client {
        let mut transport = TransportConfig::default();
        if holds_up {
            transport.stream_receive_window_bytes = WINDOW_BYTES;
        }
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

    /// Asks for a whole chunk.
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

    /// Asks for chunks, and behind each request sends bytes that nobody wants, until nothing more is
    /// taken. Returns how many bytes were.
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

    /// Leaves; returns when the node knows.
    pub async fn leave(self) {
        let goodbye = CloseCode::Goodbye;
        self.endpoint.close(goodbye, GOODBYE_DEADLINE).await;
    }

    /// Asks for the first page of chunk hashes.
    pub async fn hashes(&self, content: ContentInfo) -> Result<Hashes, ReadError> {
        let request = HashRequest {
            content: content.id(),
            page: 0,
            extensions: Vec::new(),
        };
        let (hashes, ..) = framed::ask(&self.session.connection, &request).await?;
        Ok(hashes)
    }

    /// Listens to what the node has.
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
    /// The beginning of the answer.
    pub async fn head(&mut self) -> Result<ChunkData, ReadError> {
        framed::read(&mut self.recv).await
    }

    /// The rest of an answer whose beginning is there.
    pub async fn rest(&mut self) -> Vec<u8> {
        self.recv.read_to_end(8 << 20).await.unwrap()
    }
}

/// What a node says to have.
pub struct News {
    recv: RecvStream,
    _send: SendStream,
    /// Which chunks it has.
    pub chunks: Vec<bool>,
    /// What waits there, as it last said.
    pub queue_bytes: u64,
}

impl News {
    /// Waits until what was told is as wanted.
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

    /// How many chunks it has.
    pub fn count(&self) -> usize {
        self.chunks.iter().filter(|&&has| has).count()
    }
}

/// Clients that each ask for one chunk and take it in sips, until the value goes.
pub struct SlowReaders {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SlowReaders {
    /// Starts so many; returns once each of them is being answered.
    pub fn start(address: SocketAddr, node: NodeId, content: ContentInfo, count: u32) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let thread = thread::spawn(move || {
            let readers = async {
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
                let _ = stopped.await;
            };
            runtime().block_on(readers);
        });
        for _ in 0..count {
            has_begun.recv_timeout(PATIENCE).unwrap();
        }
        SlowReaders {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
