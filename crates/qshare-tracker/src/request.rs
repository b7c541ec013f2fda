//! Requests: each on a stream of its own.

use std::collections::HashMap;
use std::net::IpAddr;

use qshare_content::fair::{Network, User};
use qshare_content::{ContentId, NodeId};
use qshare_net::framed::{self, ReadError};
use qshare_registry::{self as registry, Cursor, Page};
use qshare_wire::introduction::Introduce;
use qshare_wire::knock::Knock;
use qshare_wire::limits::{
    HELLO_DEADLINE, HOLDERS_PER_MATCH_MAX, MATCHES_MAX, SMALL_BODY_MAX_BYTES,
};
use qshare_wire::tracker::{EntryKind, Find, Found, Match, NodeContact, Watch};
use qshare_wire::{Frame, Message, Refusal, Refused, WireError};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::budget::Verdict;
use crate::client::{Client, SessionError};
use crate::contacts::{contact_for, readiness};
use crate::introduce::introduce;
use crate::knock::knock;
use crate::reply::respond;
use crate::watch::watch;

/// What a knock costs, in requests: a session may have 20 at once, and one a second.
const KNOCK_COST: f64 = 100.0;
/// Delay in ms after which a node may repeat a lookup that waited in vain for its turn.
const BUSY_RETRY_MS: u32 = 1_000;
/// Nodes that one answer describes; the bound of [`Found::nodes`].
const NODES_MAX: usize = 4 * MATCHES_MAX;

/// Answers the one request of a stream.
pub(crate) async fn answer_stream(
    client: &Client,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), SessionError> {
    let read = framed::read_frame(recv, SMALL_BODY_MAX_BYTES);
    let frame = match timeout(HELLO_DEADLINE, read).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(ReadError::Wire(error))) => return too_large(client, send, error).await,
        // The node thought better of it, or does not go on.
        Ok(Err(_)) | Err(_) => {
            let _ = send.reset(VarInt::from_u32(0));
            return Ok(());
        }
    };
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
                Verdict::Granted => watch(client, request, send, recv).await,
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

/// What a later version may send is refused from its header; what this one defines has bounds.
async fn too_large(
    client: &Client,
    send: &mut SendStream,
    error: WireError,
) -> Result<(), SessionError> {
    match error {
        WireError::TooLarge { kind, .. }
            if ![Find::TYPE, Watch::TYPE, Introduce::TYPE, Knock::TYPE].contains(&kind) =>
        {
            refuse_unknown(client, send).await
        }
        error => Err(SessionError::Protocol(error.to_string())),
    }
}

async fn refuse_unknown(client: &Client, send: &mut SendStream) -> Result<(), SessionError> {
    match client.request(1.0) {
        Verdict::Flood => Err(SessionError::Flood),
        _ => {
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
    let mut refused = Refused::because(Refusal::Busy, "too many requests a second");
    refused.retry_after_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
    respond(client, send, &refused).await;
    Ok(())
}

async fn find(client: &Client, request: Find, send: &mut SendStream) -> Result<(), SessionError> {
    let asked = registry::Find {
        group: registry::GroupId::OPEN,
        query: request.query,
        after: request.after.as_deref().and_then(decode_cursor),
        limit: usize::from(request.limit).min(MATCHES_MAX),
        holders: usize::from(request.holders).min(HOLDERS_PER_MATCH_MAX),
        asking: Some(client.node),
    };
    let user = User {
        network: Network::of(client.observed_ip()),
        id: client.id,
    };
    let Some(turn) = client.services.turns.take(user).await else {
        let mut refused = Refused::because(Refusal::Busy, "the tracker is busy with lookups");
        refused.retry_after_ms = BUSY_RETRY_MS;
        respond(client, send, &refused).await;
        return Ok(());
    };
    match client.services.registry.find(asked) {
        Ok(page) => {
            let steps = page.steps;
            client.charge_steps(steps);
            let found = found(page, client.observed_ip());
            turn.end(steps).await;
            respond(client, send, &found).await;
        }
        Err(error) => {
            drop(turn);
            let refused = Refused::because(Refusal::Invalid, error.to_string());
            respond(client, send, &refused).await;
        }
    }
    Ok(())
}

/// A page as it is sent to somebody seen at `asker`: each node described once.
fn found(page: Page, asker: IpAddr) -> Found {
    let mut nodes: Vec<NodeContact> = Vec::new();
    let mut position_by_node: HashMap<NodeId, u16> = HashMap::new();
    let mut matches = Vec::with_capacity(page.matches.len());
    for found in page.matches {
        let mut holders = Vec::with_capacity(found.holders.len());
        for holder in &found.holders {
            let known = position_by_node.get(&holder.node).copied();
            if known.is_none() && nodes.len() == NODES_MAX {
                continue;
            }
            let position = known.unwrap_or_else(|| {
                let position = nodes.len() as u16;
                nodes.push(contact_for(holder, asker));
                position_by_node.insert(holder.node, position);
                position
            });
            holders.push((position, holder.complete));
        }
        matches.push(Match {
            name: found.name,
            kind: EntryKind::File,
            info: found.info,
            complete: count(found.complete),
            partial: count(found.partial),
            holders,
        });
    }
    Found {
        readiness: readiness(page.readiness),
        matches,
        nodes,
        more: page.more.as_ref().map(encode_cursor),
        near: page.near,
        extensions: Vec::new(),
    }
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

/// A cursor on the wire: 32 bytes of content id, then the name in UTF-8.
fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    [&cursor.content.0, cursor.name.as_bytes()].concat()
}

/// What is not a cursor is none: the first page comes again.
fn decode_cursor(bytes: &[u8]) -> Option<Cursor> {
    let (content, name) = bytes.split_first_chunk::<32>()?;
    Some(Cursor {
        name: std::str::from_utf8(name).ok()?.into(),
        content: ContentId(*content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_anything_else_is_none() {
        let cursor = Cursor {
            name: "données/été.csv".into(),
            content: ContentId([7; 32]),
        };
        assert_eq!(decode_cursor(&encode_cursor(&cursor)), Some(cursor));
        assert_eq!(decode_cursor(&[1; 31]), None);
        assert_eq!(decode_cursor(&[255; 40]), None);
    }
}
