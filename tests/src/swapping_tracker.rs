//! A tracker that tampers with the key exchange of codes.

use std::net::SocketAddr;

use qshare_content::{Code, NodeId};
use qshare_net::{PakeSharer, framed};
use qshare_wire::hello::FEATURE_CODES;
use qshare_wire::mailbox::{
    MailboxAnswer, MailboxClaim, MailboxClaimed, MailboxConfirm, MailboxForward, MailboxOpen,
    MailboxSealed, MailboxStep,
};
use qshare_wire::{Frame, Message, Refusal, Refused};
use quinn::{RecvStream, SendStream};
use tokio::sync::Mutex;

use crate::fake_tracker::{Answers, FakeTracker};

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

/// A tracker that keeps one mailbox, and tampers. It ends when the value is dropped.
pub struct SwappingTracker {
    /// Its address.
    pub address: SocketAddr,
    _tracker: FakeTracker,
}

impl SwappingTracker {
    /// Starts one on a port that the system picks.
    pub fn start(swap: Swap) -> SwappingTracker {
        let tracker = FakeTracker::start(Swaps {
            swap,
            mailbox: Mailbox::default(),
        });
        SwappingTracker {
            address: tracker.address,
            _tracker: tracker,
        }
    }
}

/// The sharer's stream, and the sharer.
type Mailbox = Mutex<Option<(NodeId, SendStream, RecvStream)>>;

/// The answers of a swapping tracker.
struct Swaps {
    swap: Swap,
    mailbox: Mailbox,
}

impl Answers for Swaps {
    const FEATURES: u64 = FEATURE_CODES;

    async fn answer(&self, peer: NodeId, frame: Frame, send: SendStream, recv: RecvStream) {
        // A lost connection or a malformed message ends the request.
        let _ = match frame.kind {
            MailboxClaim::TYPE => self.claim(peer, send, recv).await,
            MailboxOpen::TYPE => self.open(peer, &frame, send, recv).await,
            _ => None,
        };
    }
}

impl Swaps {
    async fn claim(&self, peer: NodeId, mut send: SendStream, recv: RecvStream) -> Option<()> {
        let claimed = MailboxClaimed {
            lifetime_seconds: 3600,
            extensions: Vec::new(),
        };
        framed::write(&mut send, &claimed).await.ok()?;
        *self.mailbox.lock().await = Some((peer, send, recv));
        Some(())
    }

    async fn open(
        &self,
        peer: NodeId,
        frame: &Frame,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Option<()> {
        let open: MailboxOpen = frame.decode().ok()?;
        let refused = match self.swap {
            Swap::Sharer => play_sharer(peer, open, &mut send, &mut recv).await,
            swap => pass_on(peer, open, &mut send, &mut recv, &self.mailbox, swap).await,
        };
        if let Err(refused) = refused {
            framed::write(&mut send, &refused).await.ok()?;
        }
        let _ = send.finish();
        // What was sent reaches the receiver before the stream is dropped.
        let _ = send.stopped().await;
        Some(())
    }
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
