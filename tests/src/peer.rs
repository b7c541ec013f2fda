//! A scripted peer: it announces files like a node, then serves or misbehaves as a test says, and
//! counts the requests that it gets.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use qshare_net::{DialTarget, Endpoint, Identity, Session, accept, dial, framed};
use qshare_wire::CloseCode;
use qshare_wire::hello::Role;
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, Entry, EntryKind};
use tokio::sync::Semaphore;

use crate::background::Background;
use crate::process::eventually;
use crate::tracker_client::{endpoint, greeting};

mod answers;
mod asset;

use answers::{answer, count, open_all};
use asset::Asset;

const DIAL_DEADLINE: Duration = Duration::from_secs(10);
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
    _running: Background,
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
        let ours = shared.clone();
        let ((), running) = Background::start(move |ready, stopped| async move {
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
        TestPeer {
            id,
            shared,
            _running: running,
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
