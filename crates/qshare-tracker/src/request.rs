//! Requests: each on a stream of its own, dispatched to its handler.

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
use tokio_util::sync::CancellationToken;

use crate::budget::Verdict;
use crate::client::{Client, SessionError};
use crate::fair_budget::Reservation;
use crate::find::find;
use crate::introduce::introduce;
use crate::knock::knock;
use crate::mailboxes;
use crate::metrics::UNKNOWN;
use crate::registry_service::Watched;
use crate::reply::{end_busy, respond};
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

/// Answers the one request of a stream.
pub(crate) async fn answer_stream(
    client: &Client,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let streams = &client.services.streams;
    let Ok(stream) = streams.try_reserve(client.user, 1, CancellationToken::new()) else {
        end_busy(client, send, "too many requests are open").await;
        return Ok(());
    };
    let read = framed::read_frame(recv, SMALL_BODY_MAX_BYTES);
    let read = tokio::select! {
        read = timeout(HELLO_DEADLINE, read) => read,
        () = stream.evicted() => {
            end_busy(client, send, "too many requests are open").await;
            return Ok(());
        }
    };
    let frame = match read {
        Ok(Ok(frame)) => frame,
        Ok(Err(ReadError::Wire(error))) => return too_large(client, send, error).await,
        // The node reset the stream, or sends no whole request before the deadline.
        Ok(Err(_)) | Err(_) => {
            let _ = send.reset(VarInt::from_u32(0));
            return Ok(());
        }
    };
    let (metrics, name, begun) = (&client.services.metrics, name_of(&frame), Instant::now());
    metrics.requested(name);
    let answered = answer(client, frame, &stream, send, recv).await;
    // Others last for as long as the node wants.
    if [Find::NAME, Introduce::NAME, Knock::NAME].contains(&name) {
        metrics.took(name, begun.elapsed());
    }
    answered
}

/// Returns the name under which a request is counted.
fn name_of(frame: &Frame) -> &'static str {
    match frame.kind {
        Find::TYPE => Find::NAME,
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
        Find::TYPE => {
            let request: Find = decode(&frame)?;
            match client.request(1.0) {
                Verdict::Granted => find(client, request, send).await,
                verdict => refuse_busy(client, send, verdict).await,
            }
        }
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
