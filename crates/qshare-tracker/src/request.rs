//! Requests: each on a stream of its own, dispatched to its handler.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use qshare_net::framed::{self, ReadError};
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
use crate::find::find;
use crate::introduce::introduce;
use crate::knock::knock;
use crate::mailboxes;
use crate::metrics::UNKNOWN;
use crate::registry_service::Watched;
use crate::reply::{STREAMS_FULL, end_busy, respond};
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

/// Why a request did not arrive.
enum Missing {
    /// There is no room for an open stream, or it was needed for others.
    Busy,
    /// The node sent no whole request before the deadline.
    Late,
}

/// Answers the one request of a stream.
///
/// A lookup that has arrived as a whole and is answered at once takes no place among the open
/// streams, and its future is small: the runtime copies the future of a task several times. What is
/// rare or waits is in a box of its own.
pub(crate) async fn answer_stream(
    client: &Client,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let arrived = {
        let mut read = pin!(framed::read_frame(recv, SMALL_BODY_MAX_BYTES));
        match poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await {
            Poll::Ready(read) => Ok((read, None)),
            Poll::Pending => Box::pin(wait_for_frame(client, read)).await,
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

/// Waits for the rest of a request, which holds a place among the open streams meanwhile.
async fn wait_for_frame(
    client: &Client,
    read: Pin<&mut impl Future<Output = Result<Frame, ReadError>>>,
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
