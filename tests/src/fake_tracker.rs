//! A tracker without a registry. A test decides how it answers, by its [`Answers`].

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;

use qshare_content::NodeId;
use qshare_net::{
    Endpoint, EndpointConfig, Greeting, Identity, Session, TransportConfig, accept, framed,
};
use qshare_wire::hello::Role;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::tracker::{Announce, AnnounceAck, Entry, NodeContact};
use qshare_wire::{ALPN_TRACKER, Address, Candidate, CandidateKind, Frame};
use quinn::{RecvStream, SendStream};

use crate::background::Background;
use crate::tracker_client::greeting;

/// What a fake tracker makes of the messages of nodes. All sessions share one value.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The feature bits of the tracker's Hello.
    const FEATURES: u64;

    /// Records what `announcer` announced; the tracker acknowledges all of it.
    fn announced(&self, _announcer: &NodeContact, _entries: Vec<Entry>) {}

    /// Answers the request in `frame`, which `peer` sent on this stream.
    fn answer(
        &self,
        peer: NodeId,
        frame: Frame,
        send: SendStream,
        recv: RecvStream,
    ) -> impl Future<Output = ()> + Send;
}

/// A tracker that runs in a thread until the value is dropped.
pub(crate) struct FakeTracker {
    /// Its address, on a port that the system picked.
    pub(crate) address: SocketAddr,
    _running: Background,
}

impl FakeTracker {
    pub(crate) fn start(answers: impl Answers) -> FakeTracker {
        let (address, running) = Background::start(|ready, stopped| async move {
            let config = EndpointConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                accept_alpn: ALPN_TRACKER,
                transport: TransportConfig::default(),
            };
            let endpoint = Endpoint::bind(&Identity::ephemeral().unwrap(), &config).unwrap();
            ready.send(endpoint.local_addr().unwrap()).unwrap();
            tokio::select! {
                () = serve(&endpoint, Arc::new(answers)) => {}
                _ = stopped => {}
            }
        });
        FakeTracker {
            address,
            _running: running,
        }
    }
}

async fn serve<A: Answers>(endpoint: &Endpoint, answers: Arc<A>) {
    while let Some(incoming) = endpoint.accept().await {
        let (us, answers) = (endpoint.id(), answers.clone());
        tokio::spawn(async move {
            let greeting = Greeting {
                features: A::FEATURES,
                ..greeting(Role::Tracker, None)
            };
            if let Ok(session) = accept(us, &greeting, incoming).await {
                attend(session, answers).await;
            }
        });
    }
}

/// Acknowledges announcements and answers requests until the connection ends.
async fn attend<A: Answers>(session: Session, answers: Arc<A>) {
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
    let acknowledging = async {
        while let Ok(batch) = framed::read::<Announce>(&mut control_recv).await {
            answers.announced(&announcer, batch.entries);
            let ack = AnnounceAck {
                sequence: batch.sequence,
                refused: 0,
                reason: String::new().into(),
            };
            if framed::write(&mut control_send, &ack).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        while let Ok((send, mut recv)) = connection.accept_bi().await {
            let answers = answers.clone();
            tokio::spawn(async move {
                let frame = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await;
                if let Ok(frame) = frame {
                    answers.answer(peer, frame, send, recv).await;
                }
            });
        }
    };
    tokio::join!(acknowledging, answering);
}
