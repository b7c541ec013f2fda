//! Requests: each on a stream of its own, dispatched to its handler.

use std::time::Instant;

use qshare_net::framed::{self, IncomingFrame, ReadError};
use qshare_wire::introduction::Introduce;
use qshare_wire::knock::Knock;
use qshare_wire::limits::{HELLO_DEADLINE, SMALL_BODY_MAX_BYTES};
use qshare_wire::mailbox::{MailboxClaim, MailboxOpen};
use qshare_wire::private::WatchTopic;
use qshare_wire::tracker::{Find, Watch};
use qshare_wire::{Frame, Message, Refusal, Refused, WireError};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::budget::Verdict;
use crate::client::{Client, SessionError};
use crate::fair_budget::{NoRoom, Reservation};
use crate::find::{Answered, find, find_now, held};
use crate::introduce::introduce;
use crate::knock::knock;
use crate::mailboxes;
use crate::metrics::UNKNOWN;
use crate::registry_service::Watched;
use crate::reply::{ANSWERS_FULL, STREAMS_FULL, Sent, Unsent, end_busy, respond, respond_rest};
use crate::turns::Turn;
use crate::watch::watch;

/// The requests that this version knows.
const KNOWN: [u16; 7] = [
    Find::TYPE,
    Watch::TYPE,
    WatchTopic::TYPE,
    Introduce::TYPE,
    Knock::TYPE,
    MailboxClaim::TYPE,
    MailboxOpen::TYPE,
];

/// What a knock costs, in requests: a session may have 20 at once, and one a second.
const KNOCK_COST: f64 = 100.0;

/// A stream on which a request arrives.
pub(crate) struct RequestStream {
    send: SendStream,
    recv: RecvStream,
    request: IncomingFrame,
}

/// What is left to do for a request, in a task of its own ([`RequestStream::finish`]).
pub(crate) enum Left {
    /// The rest of it has to arrive.
    Arrival,
    /// It has arrived, or failed to. It is no lookup, or has to wait for something.
    Work(Result<Frame, ReadError>),
    /// The node has to take the rest of its answer.
    Transfer(Unsent),
    /// It is refused, since there is no memory for its answer.
    NoRoom,
}

/// What was done for a request when its stream was accepted.
pub(crate) struct Begun {
    /// The turn of a lookup that was answered, and its steps of work.
    pub(crate) turn: Option<(Turn, u64)>,
    /// None if nothing is left to do.
    pub(crate) left: Option<Left>,
}

/// Why a request did not arrive.
enum Missing {
    /// There is no room for an open stream, or it was needed for others.
    Busy,
    /// The node sent no whole request before the deadline.
    Late,
}

impl RequestStream {
    pub(crate) fn new(send: SendStream, recv: RecvStream) -> RequestStream {
        RequestStream {
            send,
            recv,
            request: IncomingFrame::new(SMALL_BODY_MAX_BYTES),
        }
    }

    /// Answers the request of a stream that was just accepted, if it is a lookup that has arrived
    /// as a whole and waits for nothing, as most do. Such a lookup takes no task of its own, and no
    /// place among the open streams.
    pub(crate) fn begin(&mut self, client: &Client) -> Result<Begun, SessionError> {
        let nothing_but = |left| Begun {
            turn: None,
            left: Some(left),
        };
        let frame = match self.request.read_now(&mut self.recv) {
            Some(Ok(frame)) if frame.kind == Find::TYPE => frame,
            Some(arrived) => return Ok(nothing_but(Left::Work(arrived))),
            None => return Ok(nothing_but(Left::Arrival)),
        };
        framed::take_end(&mut self.recv);
        let asked_at = Instant::now();
        let request: Find = decode(&frame)?;
        let Some(answered) = find_now(client, request, asked_at, &mut self.send) else {
            return Ok(nothing_but(Left::Work(Ok(frame))));
        };
        let metrics = &client.services.metrics;
        metrics.requested(Find::NAME);
        metrics.took(Find::NAME, asked_at.elapsed());
        let Answered { turn, steps, sent } = answered;
        Ok(Begun {
            turn: Some((turn, steps)),
            left: match sent {
                Sent::Done => None,
                Sent::Partly(rest) => Some(Left::Transfer(rest)),
                Sent::NoRoom => Some(Left::NoRoom),
            },
        })
    }

    /// Does what is left of a request. It holds a place among the open streams while it waits.
    ///
    /// What is rare or large is in a box of its own: the runtime copies the future of a task.
    pub(crate) async fn finish(&mut self, client: &Client, left: Left) -> Result<(), SessionError> {
        let RequestStream {
            send,
            recv,
            request,
        } = self;
        let arrived = match left {
            Left::Work(arrived) => Ok((arrived, None)),
            Left::Arrival => Box::pin(wait_for_frame(client, request.read(recv))).await,
            Left::Transfer(rest) => {
                Box::pin(transfer(client, send, rest)).await;
                return Ok(());
            }
            Left::NoRoom => {
                Box::pin(no_room(client, send)).await;
                return Ok(());
            }
        };
        let (frame, stream) = match arrived {
            Ok((Ok(frame), stream)) => (frame, stream),
            Ok((Err(ReadError::Wire(error)), _)) => {
                return Box::pin(too_large(client, send, error)).await;
            }
            Err(Missing::Busy) => {
                Box::pin(end_busy(client, send, STREAMS_FULL)).await;
                return Ok(());
            }
            // The node reset the stream, or is late.
            Ok((Err(_), _)) | Err(Missing::Late) => {
                let _ = send.reset(VarInt::from_u32(0));
                return Ok(());
            }
        };
        if frame.kind != Find::TYPE {
            return Box::pin(answer_other(client, frame, stream, send, recv)).await;
        }
        framed::take_end(recv);
        let (metrics, begun) = (&client.services.metrics, Instant::now());
        metrics.requested(Find::NAME);
        let request: Find = decode(&frame)?;
        let answered = match client.request(1.0) {
            Verdict::Granted => find(client, request, stream, send).await,
            verdict => Box::pin(refuse_busy(client, send, verdict)).await,
        };
        metrics.took(Find::NAME, begun.elapsed());
        answered
    }
}

/// Waits for the rest of a request, which holds a place among the open streams meanwhile.
async fn wait_for_frame(
    client: &Client,
    read: impl Future<Output = Result<Frame, ReadError>>,
) -> Result<(Result<Frame, ReadError>, Option<Reservation>), Missing> {
    let stream = client.hold_stream().map_err(|NoRoom| Missing::Busy)?;
    tokio::select! {
        read = timeout(HELLO_DEADLINE, read) => match read {
            Ok(read) => Ok((read, Some(stream))),
            Err(_) => Err(Missing::Late),
        },
        () = stream.evicted() => Err(Missing::Busy),
    }
}

/// Sends the rest of an answer, which holds a place among the open streams meanwhile.
async fn transfer(client: &Client, send: &mut SendStream, rest: Unsent) {
    match client.hold_stream() {
        Ok(_stream) => respond_rest(client, send, rest).await,
        // A part of the answer may have been sent.
        Err(NoRoom) => _ = send.reset(VarInt::from_u32(0)),
    }
}

/// Refuses a lookup for whose answer there is no memory. It holds a place among the open streams if
/// the node does not take the refusal at once.
async fn no_room(client: &Client, send: &mut SendStream) {
    let refused = end_busy(client, send, ANSWERS_FULL);
    if held(client, &mut None, refused).await.is_err() {
        let _ = send.reset(VarInt::from_u32(0));
    }
}

/// Answers a request that is no lookup, and holds a place among the open streams.
async fn answer_other(
    client: &Client,
    frame: Frame,
    stream: Option<Reservation>,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let Some(stream) = stream.or_else(|| client.hold_stream().ok()) else {
        end_busy(client, send, STREAMS_FULL).await;
        return Ok(());
    };
    let (metrics, name, begun) = (&client.services.metrics, name_of(&frame), Instant::now());
    metrics.requested(name);
    let answered = answer(client, frame, &stream, send, recv).await;
    // Others last for as long as the node wants.
    if [Introduce::NAME, Knock::NAME].contains(&name) {
        metrics.took(name, begun.elapsed());
    }
    answered
}

/// Returns the name under which a request is counted.
fn name_of(frame: &Frame) -> &'static str {
    match frame.kind {
        Watch::TYPE => Watch::NAME,
        WatchTopic::TYPE => WatchTopic::NAME,
        Introduce::TYPE => Introduce::NAME,
        Knock::TYPE => Knock::NAME,
        MailboxClaim::TYPE => MailboxClaim::NAME,
        MailboxOpen::TYPE => MailboxOpen::NAME,
        _ => UNKNOWN,
    }
}

async fn answer(
    client: &Client,
    frame: Frame,
    stream: &Reservation,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    match frame.kind {
        Watch::TYPE => {
            let request: Watch = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => {
                    let (watched, limit) = (Watched::Content(request.content), request.limit);
                    watch(client, watched, limit, stream, send, recv).await
                }
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        WatchTopic::TYPE => {
            let request: WatchTopic = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => {
                    let (watched, limit) = (Watched::Topic(request.topic), request.limit);
                    watch(client, watched, limit, stream, send, recv).await
                }
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        Introduce::TYPE => {
            let request: Introduce = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => introduce(client, request, send).await,
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        MailboxClaim::TYPE => {
            let request: MailboxClaim = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => mailboxes::claim(client, request, stream, send, recv).await,
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        MailboxOpen::TYPE => {
            let request: MailboxOpen = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => {
                    mailboxes::open(client, request, send, recv).await;
                    Ok(())
                }
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        Knock::TYPE => {
            let request: Knock = decode(&frame)?;
            match client.request(KNOCK_COST) {
                Verdict::Granted => {
                    knock(client, request, send).await;
                    Ok(())
                }
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
        _ => refuse_unknown(client, send).await,
    }
}

fn decode<M: Message>(frame: &Frame) -> Result<M, SessionError> {
    frame
        .decode()
        .map_err(|error| SessionError::Protocol(error.to_string()))
}

/// Refuses a request of a type that only later versions know from its header. A known type that
/// exceeds its bound breaks the protocol.
async fn too_large(
    client: &Client,
    send: &mut SendStream,
    error: WireError,
) -> Result<(), SessionError> {
    match error {
        WireError::TooLarge { kind, .. } if !KNOWN.contains(&kind) => {
            refuse_unknown(client, send).await
        }
        error => Err(SessionError::Protocol(error.to_string())),
    }
}

async fn refuse_unknown(client: &Client, send: &mut SendStream) -> Result<(), SessionError> {
    match client.request(1.0) {
        Verdict::Flood => Err(SessionError::Flood),
        _ => {
            client.services.metrics.refused(Refusal::Invalid);
            let refused = Refused::because(Refusal::Invalid, "unknown type of request");
            respond(client, send, &refused).await;
            Ok(())
        }
    }
}

async fn refuse_busy(
    client: &Client,
    send: &mut SendStream,
    verdict: Verdict,
) -> Result<(), SessionError> {
    let Verdict::Busy(wait) = verdict else {
        return Err(SessionError::Flood);
    };
    client.services.metrics.refused(Refusal::Busy);
    let mut refused = Refused::because(Refusal::Busy, "too many requests a second");
    refused.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    respond(client, send, &refused).await;
    Ok(())
}
