//! Replies on request streams: within the memory budget of answers, and with a deadline.

use std::time::Duration;

use bytes::Bytes;
use qshare_net::framed;
use qshare_wire::{Frame, Message, PeerText, Refusal, Refused};
use quinn::{SendStream, VarInt};
use tokio::time::timeout;

use crate::answer_memory::AnswerBytes;
use crate::client::Client;
use crate::fair_budget::NoRoom;

/// Retry time in a refusal for lack of memory or of a share: some is free again by then.
pub(crate) const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The reason for a request that is refused because there is no memory for its answer.
pub(crate) const ANSWERS_FULL: &str = "the tracker is busy";

/// The reason for a request that is refused because too many are open.
pub(crate) const STREAMS_FULL: &str = "too many requests are open";

/// The rest of an answer.
pub(crate) struct Unsent {
    bytes: Bytes,
    /// The message's name, under which it is counted.
    name: &'static str,
}

/// What became of an answer that was to be sent at once.
pub(crate) enum Sent {
    /// It is on its way, or the node does not want it any more.
    Done,
    /// The connection takes no more of it now. The rest is left; what was sent cannot be repeated.
    Partly(Unsent),
    /// It does not fit into the memory budget of answers.
    NoRoom,
}

/// Sends the only message of an answer and ends the stream, as far as that can be done at once.
pub(crate) fn respond_now<M: Message>(client: &Client, send: &mut SendStream, message: &M) -> Sent {
    let Ok(bytes) = Frame::encode(message) else {
        let _ = send.reset(VarInt::from_u32(0));
        return Sent::Done;
    };
    let Ok(memory) = client.answers.try_reserve(bytes.len() as u64) else {
        return Sent::NoRoom;
    };
    let mut left = [Bytes::from_owner(UnackedBytes {
        bytes,
        _memory: memory,
    })];
    match framed::now(send.write_chunks(&mut left)) {
        Some(Ok(_)) | None if !left[0].is_empty() => {
            let ([bytes], name) = (left, M::NAME);
            return Sent::Partly(Unsent { bytes, name });
        }
        Some(Ok(_)) => {
            client.services.metrics.answered(M::NAME);
            let _ = send.finish();
        }
        // The node does not want the answer.
        Some(Err(_)) | None => _ = send.reset(VarInt::from_u32(0)),
    }
    Sent::Done
}

/// Sends what [`respond_now`] has left of an answer, within the transfer deadline.
pub(crate) async fn respond_rest(client: &Client, send: &mut SendStream, rest: Unsent) {
    let deadline = client.services.limits.transfer_deadline;
    let written = timeout(deadline, send.write_chunk(rest.bytes));
    if matches!(written.await, Ok(Ok(()))) {
        client.services.metrics.answered(rest.name);
        let _ = send.finish();
    } else {
        let _ = send.reset(VarInt::from_u32(0));
    }
}

/// Sends the only message of an answer and ends the stream.
pub(crate) async fn respond<M: Message>(client: &Client, send: &mut SendStream, message: &M) {
    if send_message(client, send, message).await {
        let _ = send.finish();
    }
}

/// Refuses a request. A retry time of zero means none.
pub(crate) async fn refuse(
    client: &Client,
    send: &mut SendStream,
    refusal: Refusal,
    reason: impl Into<PeerText>,
    retry_after: Duration,
) {
    client.services.metrics.refused(refusal);
    respond(client, send, &refused(refusal, reason, retry_after)).await;
}

/// Sends one message of an answer, which the node must accept before the transfer deadline.
///
/// Returns false if the stream has ended instead: the node accepted no data in time, or the message
/// did not fit into the memory budget and the node was refused with [`Refusal::Busy`].
pub(crate) async fn send_message<M: Message>(
    client: &Client,
    send: &mut SendStream,
    message: &M,
) -> bool {
    let Ok(bytes) = Frame::encode(message) else {
        let _ = send.reset(VarInt::from_u32(0));
        return false;
    };
    let deadline = client.services.limits.transfer_deadline;
    match client.answers.try_reserve(bytes.len() as u64) {
        Ok(memory) => {
            let bytes = Bytes::from_owner(UnackedBytes {
                bytes,
                _memory: memory,
            });
            let written = timeout(deadline, send.write_chunk(bytes)).await;
            let taken = matches!(written, Ok(Ok(())));
            if taken {
                client.services.metrics.answered(M::NAME);
            } else {
                let _ = send.reset(VarInt::from_u32(0));
            }
            taken
        }
        Err(NoRoom) => {
            end_busy(client, send, ANSWERS_FULL).await;
            false
        }
    }
}

/// Refuses with [`Refusal::Busy`] and ends the stream, outside the memory budget: the message takes
/// some 30 bytes.
pub(crate) async fn end_busy(client: &Client, send: &mut SendStream, reason: &'static str) {
    client.services.metrics.refused(Refusal::Busy);
    let refused = refused(Refusal::Busy, reason, BUSY_RETRY);
    let deadline = client.services.limits.transfer_deadline;
    let _ = timeout(deadline, framed::write(send, &refused)).await;
    let _ = send.finish();
}

/// Bytes of an answer, charged until quinn drops them: once the node has acknowledged them.
struct UnackedBytes {
    bytes: Vec<u8>,
    _memory: AnswerBytes,
}

impl AsRef<[u8]> for UnackedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn refused(refusal: Refusal, reason: impl Into<PeerText>, retry_after: Duration) -> Refused {
    let mut refused = Refused::because(refusal, reason);
    refused.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    refused
}
