//! A tracker that tampers with the key exchange of codes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use qshare_content::{Code, NodeId};
use qshare_net::{
    Endpoint, EndpointConfig, Greeting, Identity, PakeSharer, Session, TransportConfig, accept,
    framed,
};
use qshare_wire::hello::{FEATURE_CODES, Role};
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::mailbox::{
    MailboxAnswer, MailboxClaim, MailboxClaimed, MailboxConfirm, MailboxForward, MailboxOpen,
    MailboxSealed, MailboxStep,
};
use qshare_wire::tracker::{Announce, AnnounceAck};
use qshare_wire::{ALPN_TRACKER, Message, Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Builder;
use tokio::sync::{Mutex, oneshot};

/// What the tracker does with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// It passes everything on. For comparison.
    Nothing,
    /// It changes a bit of the sharer's message.
    Exchange,
    /// It names another node as the receiver.
    Receiver,
    /// It changes a bit of the sealed link.
    Sealed,
    /// It plays the sharer, with words that it guesses, and seals a link of its own.
    Sharer,
}

/// A tracker that keeps one mailbox, and tampers.
pub struct SwappingTracker {
    /// Its address.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The sharer's stream, and the sharer.
type Mailbox = Arc<Mutex<Option<(NodeId, SendStream, RecvStream)>>>;

impl SwappingTracker {
    /// Starts one on a port that the system picks.
    pub fn start(swap: Swap) -> SwappingTracker {
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
                    () = serve(&endpoint, swap) => {}
                    _ = stopped => {}
                }
            });
        });
        SwappingTracker {
            address: started.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for SwappingTracker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(endpoint: &Endpoint, swap: Swap) {
    let mailbox = Mailbox::default();
    while let Some(incoming) = endpoint.accept().await {
        let (us, mailbox) = (endpoint.id(), mailbox.clone());
        tokio::spawn(async move {
            let greeting = Greeting {
                role: Role::Tracker,
                group: None,
                candidates: Vec::new(),
                features: FEATURE_CODES,
                extensions: Vec::new(),
            };
            if let Ok(session) = accept(us, &greeting, incoming).await {
                attend(session, mailbox, swap).await;
            }
        });
    }
}

async fn attend(session: Session, mailbox: Mailbox, swap: Swap) {
    let Session {
        connection,
        peer,
        mut control_send,
        mut control_recv,
        ..
    } = session;
    let acknowledging = async move {
        while let Ok(batch) = framed::read::<Announce>(&mut control_recv).await {
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
        while let Ok((send, recv)) = connection.accept_bi().await {
            let mailbox = mailbox.clone();
            tokio::spawn(async move { answer(peer, send, recv, &mailbox, swap).await });
        }
    };
    tokio::join!(acknowledging, answering);
}

async fn answer(
    peer: NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
    mailbox: &Mailbox,
    swap: Swap,
) -> Option<()> {
    let frame = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await;
    let frame = frame.ok()?;
    match frame.kind {
        MailboxClaim::TYPE => {
            let claimed = MailboxClaimed {
                lifetime_seconds: 3600,
                extensions: Vec::new(),
            };
            framed::write(&mut send, &claimed).await.ok()?;
            *mailbox.lock().await = Some((peer, send, recv));
        }
        MailboxOpen::TYPE => {
            let open: MailboxOpen = frame.decode().ok()?;
            let refused = match swap {
                Swap::Sharer => play_sharer(peer, open, &mut send, &mut recv).await,
                swap => pass_on(peer, open, &mut send, &mut recv, mailbox, swap).await,
            };
            if let Err(refused) = refused {
                framed::write(&mut send, &refused).await.ok()?;
            }
            let _ = send.finish();
            // What was sent reaches the receiver before the stream is dropped.
            let _ = send.stopped().await;
        }
        _ => {}
    }
    Some(())
}

fn failed<E>(_: E) -> Refused {
    Refused::new(Refusal::Failed)
}

/// Answers with words of its own.
async fn play_sharer(
    receiver: NodeId,
    open: MailboxOpen,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Refused> {
    let (us, guess) = (NodeId([7; 32]), Code::from_random(open.number, 0));
    let (_, exchange) = PakeSharer::answer(&guess, us, receiver, &open.exchange).map_err(failed)?;
    let answer = MailboxAnswer {
        sharer: us,
        exchange,
        extensions: Vec::new(),
    };
    framed::write(send, &answer).await.map_err(failed)?;
    let confirm = framed::read::<MailboxConfirm>(recv).await;
    let confirm = confirm.map_err(failed)?;
    let sealed = MailboxSealed {
        proof: confirm.proof,
        sealed: vec![0; 100],
    };
    framed::write(send, &sealed).await.map_err(failed)
}

/// Passes the messages on, with the change.
async fn pass_on(
    receiver: NodeId,
    open: MailboxOpen,
    send: &mut SendStream,
    recv: &mut RecvStream,
    mailbox: &Mailbox,
    swap: Swap,
) -> Result<(), Refused> {
    let mut mailbox = mailbox.lock().await;
    let (sharer, to_sharer, from_sharer) = mailbox.as_mut().ok_or_else(|| failed(()))?;
    let step = MailboxStep::Opened {
        receiver: match swap {
            Swap::Receiver => NodeId([9; 32]),
            _ => receiver,
        },
        exchange: open.exchange,
    };
    let run = u64::from(rand::random::<u32>());
    let forward = MailboxForward { run, step };
    framed::write(to_sharer, &forward).await.map_err(failed)?;
    let MailboxStep::Answer { mut exchange } = next(from_sharer).await? else {
        return Err(failed(()));
    };
    if swap == Swap::Exchange {
        // Another point of the curve, most likely; one that is none ends the run at the receiver.
        exchange[7] ^= 1;
    }
    let answer = MailboxAnswer {
        sharer: *sharer,
        exchange,
        extensions: Vec::new(),
    };
    framed::write(send, &answer).await.map_err(failed)?;
    let confirm = framed::read::<MailboxConfirm>(recv).await;
    let step = match confirm {
        Ok(MailboxConfirm { proof }) => MailboxStep::Confirm { proof },
        Err(_) => MailboxStep::Gone,
    };
    let forward = MailboxForward { run, step };
    framed::write(to_sharer, &forward).await.map_err(failed)?;
    let MailboxStep::Sealed { proof, mut sealed } = next(from_sharer).await? else {
        return Err(failed(()));
    };
    if swap == Swap::Sealed {
        sealed[3] ^= 1;
    }
    let sealed = MailboxSealed { proof, sealed };
    framed::write(send, &sealed).await.map_err(failed)
}

async fn next(from_sharer: &mut RecvStream) -> Result<MailboxStep, Refused> {
    let forward = framed::read::<MailboxForward>(from_sharer).await;
    match forward.map_err(failed)?.step {
        MailboxStep::Refused { code, .. } => Err(Refused::new(Refusal::from_code(code))),
        step => Ok(step),
    }
}
