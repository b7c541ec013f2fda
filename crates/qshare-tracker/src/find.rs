//! Lookups.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentId, NodeId, Query, is_glob};
use qshare_registry::{self as registry, Cursor, Order, Page};
use qshare_wire::limits::{HOLDERS_PER_MATCH_MAX, MATCHES_MAX};
use qshare_wire::tracker::{EntryKind, Find, Found, Match, NodeContact};
use qshare_wire::{Refusal, Refused};
use quinn::{SendStream, VarInt};

use crate::client::{Client, SessionError};
use crate::contacts::{contact_for, readiness};
use crate::fair_budget::{NoRoom, Reservation};
use crate::reply::{STREAMS_FULL, Sent, end_busy, refuse, respond, respond_now};
use crate::shared::{OwnNodes, SharedLookup};
use crate::turns::Turn;

/// Nodes that one answer describes; the bound of [`Found::nodes`].
const NODES_MAX: usize = 4 * MATCHES_MAX;

/// Nodes of an answer that are compared one by one; more are found by a hash of their IDs.
const COMPARED_MAX: usize = 16;

/// A lookup that was answered at once.
pub(crate) struct Answered {
    /// The lookup's turn, which its task passes on after `steps` of work.
    pub(crate) turn: Turn,
    pub(crate) steps: u64,
    /// What became of its answer.
    pub(crate) sent: Sent,
}

/// Answers a lookup with one page, if nobody waits for a turn, the session's budget has room and
/// all is in memory. Otherwise nothing has been done or charged.
pub(crate) fn find_now(
    client: &Client,
    request: Find,
    asked_at: Instant,
    send: &mut SendStream,
) -> Option<Answered> {
    let services = &client.services;
    let mut asked = registry_find(client, request)?;
    let remote = match &services.shared {
        Some(shared) => Some(shared.lookup.known(&asked, asked_at)?),
        None => None,
    };
    let turn = services.turns.try_take(client.user)?;
    if !client.try_request(asked_at, 1.0) {
        return None;
    }
    let page = match services.registry.find(&mut asked) {
        Ok(page) => page,
        Err(error) => {
            services.metrics.refused(Refusal::Invalid);
            let refused = Refused::because(Refusal::Invalid, error.to_string());
            let sent = respond_now(client, send, &refused);
            let steps = 0;
            return Some(Answered { turn, steps, sent });
        }
    };
    let mut steps = page.steps;
    let page = match remote {
        Some(remote) => {
            let own = OwnRegistry::new(client, &asked);
            let page = SharedLookup::complete_with(&asked, page, &remote, &own);
            steps += own.steps();
            warming_while_behind(client, page)
        }
        None => page,
    };
    client.charge_steps(asked_at, steps);
    let sent = respond_now(client, send, &found(page, client.observed_ip()));
    Some(Answered { turn, steps, sent })
}

/// Answers a lookup with one page. A lookup that has to wait holds a place among the open streams.
pub(crate) async fn find(
    client: &Client,
    request: Find,
    mut stream: Option<Reservation>,
    send: &mut SendStream,
) -> Result<(), SessionError> {
    let Some(mut asked) = registry_find(client, request) else {
        let reason = "the cursor is not one of this tracker's";
        refuse(client, send, Refusal::Invalid, reason, Duration::ZERO).await;
        return Ok(());
    };
    let turn = client.services.turns.take(client.user);
    let turn = match held(client, &mut stream, turn).await {
        Ok(Some(turn)) => turn,
        Ok(None) => {
            end_busy(client, send, "the tracker is busy with lookups").await;
            return Ok(());
        }
        Err(NoRoom) => {
            end_busy(client, send, STREAMS_FULL).await;
            return Ok(());
        }
    };
    match client.services.registry.find(&mut asked) {
        Ok(page) => {
            let steps = page.steps;
            client.charge_steps(Instant::now(), steps);
            turn.end(steps).await;
            let page = match &client.services.shared {
                Some(shared) => {
                    let own = OwnRegistry::new(client, &asked);
                    let completed = shared.lookup.complete(&asked, page, &own);
                    let Ok(page) = held(client, &mut stream, completed).await else {
                        end_busy(client, send, STREAMS_FULL).await;
                        return Ok(());
                    };
                    client.charge_steps(Instant::now(), own.steps());
                    warming_while_behind(client, page)
                }
                None => page,
            };
            let found = found(page, client.observed_ip());
            let responded = respond(client, send, &found);
            if held(client, &mut stream, responded).await.is_err() {
                // A part of the answer may have been sent.
                let _ = send.reset(VarInt::from_u32(0));
            }
        }
        Err(error) => {
            drop(turn);
            let reason = error.to_string();
            refuse(client, send, Refusal::Invalid, reason, Duration::ZERO).await;
        }
    }
    Ok(())
}

/// Returns what the registry is asked; None if the cursor is not one of this tracker's.
fn registry_find(client: &Client, request: Find) -> Option<registry::Find> {
    let after = match request.after.as_deref().map(decode_cursor) {
        None => None,
        Some(cursor) => Some(cursor?),
    };
    let mut asked = registry::Find {
        group: registry::GroupId::OPEN,
        query: request.query,
        after,
        limit: usize::from(request.limit).min(MATCHES_MAX),
        holders: usize::from(request.holders).min(HOLDERS_PER_MATCH_MAX),
        asking: Some(client.node),
        near: true,
    };
    if client.services.shared.is_some() {
        SharedLookup::prepare(&mut asked);
        // Asked for once nothing is found anywhere.
        asked.near = false;
    }
    Some(asked)
}

/// The registry in memory, as the completion of one lookup asks it.
struct OwnRegistry<'a> {
    client: &'a Client,
    asked: &'a registry::Find,
    steps: AtomicU64,
}

impl OwnRegistry<'_> {
    fn new<'a>(client: &'a Client, asked: &'a registry::Find) -> OwnRegistry<'a> {
        OwnRegistry {
            client,
            asked,
            steps: AtomicU64::new(0),
        }
    }

    /// Returns the steps of work so far.
    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn find(&self, mut find: registry::Find) -> Option<Page> {
        let page = self.client.services.registry.find(&mut find).ok()?;
        self.steps.fetch_add(page.steps, Ordering::Relaxed);
        Some(page)
    }
}

impl OwnNodes for OwnRegistry<'_> {
    fn holding(&self, content: ContentId) -> Option<registry::Match> {
        let by_id = registry::Find {
            query: Query::Id(content),
            after: None,
            limit: 1,
            ..*self.asked
        };
        let page = self.find(by_id)?;
        page.matches.into_iter().next()
    }

    fn similar(&self) -> Vec<AssetName> {
        if !matches!(&self.asked.query, Query::Name(text) if !is_glob(text)) {
            return Vec::new();
        }
        let with_near = registry::Find {
            near: true,
            ..self.asked.clone()
        };
        self.find(with_near)
            .map(|page| page.near)
            .unwrap_or_default()
    }
}

/// Says that what is not found may be there, while the tracker publishes what its nodes announced.
fn warming_while_behind(client: &Client, mut page: Page) -> Page {
    let shared = client.services.shared.as_ref();
    if page.matches.is_empty() && shared.is_some_and(|shared| shared.publisher.is_behind()) {
        page.readiness = registry::Readiness::Warming;
    }
    page
}

/// Does what is usually done at once. If it waits, the request holds a place among the open streams
/// from then on; fails if there is none.
pub(crate) async fn held<T>(
    client: &Client,
    stream: &mut Option<Reservation>,
    work: impl Future<Output = T>,
) -> Result<T, NoRoom> {
    let mut work = pin!(work);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
        return Ok(done);
    }
    if stream.is_none() {
        *stream = Some(client.hold_stream()?);
    }
    Ok(work.await)
}

/// Returns a page as it is sent to a node observed at `asker`. The page describes each holder once.
fn found(page: Page, asker: IpAddr) -> Found {
    let mut nodes: Vec<NodeContact> = Vec::new();
    let mut position_by_node: HashMap<NodeId, u16> = HashMap::new();
    let holders = page.matches.iter().map(|found| found.holders.len());
    let is_small = holders.sum::<usize>() <= COMPARED_MAX;
    let mut matches = Vec::with_capacity(page.matches.len());
    for found in page.matches {
        let mut holders = Vec::with_capacity(found.holders.len());
        for holder in &found.holders {
            let known = match is_small {
                true => nodes.iter().position(|known| known.node == holder.node),
                false => position_by_node.get(&holder.node).copied().map(usize::from),
            };
            let known = known.map(|position| position as u16);
            if known.is_none() && nodes.len() == NODES_MAX {
                continue;
            }
            let position = known.unwrap_or_else(|| {
                let position = nodes.len() as u16;
                nodes.push(contact_for(holder, asker));
                if !is_small {
                    position_by_node.insert(holder.node, position);
                }
                position
            });
            holders.push((position, holder.complete));
        }
        matches.push(Match {
            name: found.name,
            kind: match found.is_collection {
                true => EntryKind::Collection,
                false => EntryKind::File,
            },
            info: found.info,
            complete: count(found.complete),
            partial: count(found.partial),
            holders,
            metadata: found.metadata.encode(),
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

/// Encodes a cursor: a byte for the order (0 forward, 1 backward), then 32 bytes of content id,
/// then the name in UTF-8.
fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let order = u8::from(cursor.order == Order::Backward);
    [&[order], &cursor.content.0[..], cursor.name.as_bytes()].concat()
}

/// Decodes a cursor. Returns None for invalid bytes: if the listing restarted at the first page,
/// the node would list endlessly.
fn decode_cursor(bytes: &[u8]) -> Option<Cursor> {
    let (&order, rest) = bytes.split_first()?;
    let (content, name) = rest.split_first_chunk::<32>()?;
    Some(Cursor {
        order: match order {
            0 => Order::Forward,
            1 => Order::Backward,
            _ => return None,
        },
        name: std::str::from_utf8(name).ok()?.into(),
        content: ContentId(*content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_other_bytes_are_none() {
        for order in [Order::Forward, Order::Backward] {
            let cursor = Cursor {
                order,
                name: "données/été.csv".into(),
                content: ContentId([7; 32]),
            };
            assert_eq!(decode_cursor(&encode_cursor(&cursor)), Some(cursor));
        }
        assert_eq!(decode_cursor(&[1; 32]), None);
        assert_eq!(decode_cursor(&[2; 40]), None);
        assert_eq!(decode_cursor(&[&[0; 33][..], &[255]].concat()), None);
    }
}
