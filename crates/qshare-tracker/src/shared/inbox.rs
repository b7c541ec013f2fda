//! Messages from tracker to tracker, through lists in Redis.
//!
//! A list keeps what comes while its reader is away for a moment, which pub/sub does not. Messages
//! are hints, except introductions and runs at mailboxes, which are acknowledged.

use std::sync::Arc;
use std::time::Duration;

use qshare_content::{ContentId, NodeId};
use redis::Value;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::debug;

use super::introduction::{IntroductionAnswer, IntroductionRequest};
use super::layout::{Layout, bytes_of, strings_of};
use super::link::Link;
use super::pairing::PairingMessage;
use super::scripts::Call;

/// Messages that are read at a time.
const BATCH: usize = 256;
/// Pause while Redis is away.
const PAUSE: Duration = Duration::from_millis(250);

/// A message to a tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TrackerMessage {
    /// The holders of a content that its nodes watch have changed.
    Changed(ContentId),
    /// A node has opened a session with the sender.
    MovedAway(NodeId),
    /// Introduce one of its nodes.
    Introduce(IntroductionRequest),
    /// The answer to such a request.
    Introduced(IntroductionAnswer),
    /// About runs at mailboxes.
    Pairing(PairingMessage),
}

/// Returns the call that sends messages to a tracker.
pub(crate) fn post(layout: &Layout, to: NodeId, messages: &[TrackerMessage]) -> Call {
    let encoded = messages.iter().filter_map(|message| {
        // Every message can be encoded.
        postcard::to_stdvec(message).ok()
    });
    layout.post(to, encoded.collect())
}

/// Reads this tracker's messages. Never returns. The link is used for nothing else, since it waits.
pub(crate) async fn read_inbox(
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    messages: mpsc::Sender<TrackerMessage>,
) {
    loop {
        let waited = link.run(&[layout.await_message(us)]).await;
        let first = match waited {
            Ok(values) => values,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        // BLPOP returns the key and the message, or nothing.
        let first: Vec<Vec<u8>> = first
            .iter()
            .flat_map(|value| strings_of(value).into_iter().skip(1))
            .map(<[u8]>::to_vec)
            .collect();
        if first.is_empty() {
            continue;
        }
        let more = link.run(&[layout.take_messages(us, BATCH)]).await;
        let more = more.unwrap_or_default();
        let more = more.iter().flat_map(all_strings);
        for bytes in first.into_iter().chain(more) {
            match postcard::from_bytes(&bytes) {
                Ok(message) => _ = messages.send(message).await,
                Err(error) => debug!(%error, "a message of another version"),
            }
        }
    }
}

fn all_strings(value: &Value) -> Vec<Vec<u8>> {
    match bytes_of(value) {
        Some(one) => vec![one.to_vec()],
        None => strings_of(value).into_iter().map(<[u8]>::to_vec).collect(),
    }
}
