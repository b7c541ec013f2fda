//! A tracker that answers every lookup with the same files.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use qshare_content::{AssetName, ContentInfo, Hash};
use qshare_net::{
    Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept, framed,
};
use qshare_wire::hello::Role;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::tracker::{
    Announce, AnnounceAck, Entry, EntryKind, Find, Found, Holder, Holders, Match, NodeContact,
    Readiness, Watch,
};
use qshare_wire::{ALPN_TRACKER, Address, Candidate, CandidateKind, Message};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// What a lying tracker answers to a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Everything that was announced to it.
    Announced,
    /// Page after page of one invented file each, without end.
    Endless,
    /// The same page again and again, each time with the same cursor.
    Repeated,
}

/// A tracker that ignores the query.
pub struct LyingTracker {
    /// Its address.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Announced entries and the nodes that announced them.
#[derive(Default)]
struct Announced {
    entries: Vec<Entry>,
    announcer: Option<NodeContact>,
}

impl LyingTracker {
    /// Starts one that answers with what was announced, on a port that the system picks.
    pub fn start() -> LyingTracker {
        LyingTracker::start_with(Lie::Announced)
    }

    /// Starts one that tells this lie, on a port that the system picks.
    pub fn start_with(lie: Lie) -> LyingTracker {
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let config = EndpointConfig {
                    listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                    accept_alpn: ALPN_TRACKER,
                    transport: TransportConfig::default(),
                };
                let endpoint = Endpoint::bind(&Identity::ephemeral().unwrap(), &config).unwrap();
                ready.send(endpoint.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(&endpoint, lie) => {}
                    _ = stopped => {}
                }
            });
        });
        LyingTracker {
            address: started.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for LyingTracker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(endpoint: &Endpoint, lie: Lie) {
    let announced = Arc::new(Mutex::new(Announced::default()));
    while let Some(incoming) = endpoint.accept().await {
        let (us, announced) = (endpoint.id(), announced.clone());
        tokio::spawn(async move {
            let greeting = Greeting {
                role: Role::Tracker,
                group: None,
                candidates: Vec::new(),
                features: 0,
                extensions: Vec::new(),
            };
            if let Ok(session) = accept(us, &greeting, incoming).await {
                attend(session, announced, lie).await;
            }
        });
    }
}

async fn attend(session: Session, announced: Arc<Mutex<Announced>>, lie: Lie) {
    let Session {
        connection,
        peer,
        mut control_send,
        mut control_recv,
        ..
    } = session;
    let announcer = NodeContact {
        node: peer,
        candidates: vec![Candidate {
            kind: CandidateKind::Observed,
            address: Address::Socket(connection.remote_address()),
        }],
    };
    let hearing = {
        let announced = announced.clone();
        async move {
            while let Ok(batch) = framed::read::<Announce>(&mut control_recv).await {
                {
                    let mut announced = announced.lock().unwrap();
                    if !batch.entries.is_empty() {
                        announced.announcer = Some(announcer.clone());
                    }
                    announced.entries.extend(batch.entries);
                }
                let ack = AnnounceAck {
                    sequence: batch.sequence,
                    refused: 0,
                    reason: String::new().into(),
                };
                if framed::write(&mut control_send, &ack).await.is_err() {
                    return;
                }
            }
        }
    };
    let answering = async {
        while let Ok((send, recv)) = connection.accept_bi().await {
            let announced = announced.clone();
            tokio::spawn(async move { answer(send, recv, &announced, lie).await });
        }
    };
    tokio::join!(hearing, answering);
}

async fn answer(
    mut send: SendStream,
    mut recv: RecvStream,
    announced: &Mutex<Announced>,
    lie: Lie,
) {
    let Ok(frame) = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await else {
        return;
    };
    let (entries, announcer) = {
        let announced = announced.lock().unwrap();
        (announced.entries.clone(), announced.announcer.clone())
    };
    let nodes: Vec<NodeContact> = announcer.into_iter().collect();
    match frame.kind {
        Find::TYPE if lie != Lie::Announced => {
            let Ok(find) = frame.decode::<Find>() else {
                return;
            };
            let cursor = find.after.and_then(|after| after.try_into().ok());
            let page = cursor.map_or(0, u64::from_be_bytes);
            let next = match lie {
                Lie::Endless => page + 1,
                Lie::Announced | Lie::Repeated => 1,
            };
            let info = ContentInfo {
                length: page,
                root: Hash([1; 32]),
            };
            let found = Found {
                readiness: Readiness::Ready,
                matches: vec![Match {
                    name: AssetName::new(format!("f{page}")).unwrap(),
                    kind: EntryKind::File,
                    info,
                    complete: 1,
                    partial: 0,
                    holders: Vec::new(),
                    metadata: Vec::new(),
                }],
                nodes: Vec::new(),
                more: Some(next.to_be_bytes().to_vec()),
                near: Vec::new(),
                extensions: Vec::new(),
            };
            let _ = framed::write(&mut send, &found).await;
        }
        Find::TYPE => {
            let matches = entries.into_iter().map(|entry| Match {
                name: entry.name,
                kind: entry.kind,
                info: entry.info,
                complete: 1,
                partial: 0,
                holders: vec![(0, true)],
                metadata: Vec::new(),
            });
            let found = Found {
                readiness: Readiness::Ready,
                matches: matches.collect(),
                nodes,
                more: None,
                near: Vec::new(),
                extensions: Vec::new(),
            };
            let _ = framed::write(&mut send, &found).await;
        }
        Watch::TYPE => {
            let holders = nodes.into_iter().map(|contact| Holder {
                contact,
                complete: true,
            });
            let holders = Holders {
                readiness: Readiness::Ready,
                holders: holders.collect(),
            };
            let _ = framed::write(&mut send, &holders).await;
            // The watch lasts until the client ends it.
            let _ = recv.read_chunk(1, true).await;
        }
        _ => {}
    }
}
