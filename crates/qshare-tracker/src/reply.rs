//! Replies on request streams: within the memory budget of answers, and with a deadline.

use std::time::Duration;

use qshare_net::framed;
use qshare_wire::{Frame, Message, PeerText, Refusal, Refused};
use quinn::{SendStream, VarInt};
use tokio::time::timeout;

use crate::client::Client;

/// Retry time in a refusal for lack of answer memory: some answers are written by then.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Sends the only message of an answer and ends the stream.
pub(crate) async fn respond<M: Message>(client: &Client, send: &mut SendStream, message: &M) {
    if send_message(client, send, message).await {
        let _ = send.finish();
    }
}

/// Refuses a request. A retry time of zero says nothing.
pub(crate) async fn refuse(
    client: &Client,
    send: &mut SendStream,
    refusal: Refusal,
    reason: impl Into<PeerText>,
    retry_after: Duration,
) {
    respond(client, send, &refused(refusal, reason, retry_after)).await;
}

/// Sends one message of an answer, which the node must take before the transfer deadline.
///
/// Returns false if the stream has ended instead: the node took nothing in time, or there was no
/// memory for the message and the node was refused with [`Refusal::Busy`].
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
    match client.services.answers.try_reserve(bytes.len()) {
        Some(_memory) => {
            let written = timeout(deadline, send.write_chunk(bytes.into())).await;
            let taken = matches!(written, Ok(Ok(())));
            if !taken {
                let _ = send.reset(VarInt::from_u32(0));
            }
            taken
        }
        None => {
            let refused = refused(Refusal::Busy, "the tracker is busy", BUSY_RETRY);
            let _ = timeout(deadline, framed::write(send, &refused)).await;
            let _ = send.finish();
            false
        }
    }
}

fn refused(refusal: Refusal, reason: impl Into<PeerText>, retry_after: Duration) -> Refused {
    let mut refused = Refused::because(refusal, reason);
    refused.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    refused
}
