//! Requests for spans of chunks: begins, withdraws and ends them as the scheduler decides, and
//! reports to it how they go on.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qshare_swarm::{FetchAction, PeerKey, Refusal, Span};
use qshare_wire::Refused;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::trace;

use super::event::Event;
use super::span::{FetchSpan, fetch_span};
use super::store::Store;
use super::{Swarm, no_panic};
use crate::downloads::chunk_request::Step;
use crate::error::{AskError, DownloadError};
use crate::vocabulary::Stage;

/// A request that is under way.
pub(super) struct Running {
    pub(super) peer: PeerKey,
    pub(super) span: Span,
    pub(super) withdraw: Option<oneshot::Sender<()>>,
    pub(super) task: AbortHandle,
    pub(super) received: bool,
}

impl Swarm<'_> {
    /// Carries out the scheduler's decisions, and reaps finished tasks.
    pub(super) fn act(&mut self) -> Result<(), DownloadError> {
        while let Some(ended) = self.tasks.try_join_next() {
            no_panic(ended)?;
        }
        let Some(fetch) = &mut self.fetch else {
            return Ok(());
        };
        let mut dropped = Vec::new();
        while let Some(action) = fetch.poll_action(Instant::now()) {
            match action {
                FetchAction::Request {
                    request,
                    peer,
                    span,
                } => {
                    let Some(connected) = self.peers.get(&peer) else {
                        continue;
                    };
                    let (sender, withdraw) = oneshot::channel();
                    let task = self.tasks.spawn(fetch_span(FetchSpan {
                        request,
                        peer: connected.peer.clone(),
                        access: self.access.clone(),
                        chunks: self.chunks,
                        span,
                        store: self.store.clone(),
                        memory: self.all.memory.clone(),
                        buffers: self.all.buffers.clone(),
                        writes: self.writes.clone(),
                        events: self.events.clone(),
                        withdraw,
                        rates: self.state.rates.clone(),
                        work: self.work.clone(),
                    }));
                    let withdraw = Some(sender);
                    let running = Running {
                        peer,
                        span,
                        withdraw,
                        task,
                        received: false,
                    };
                    self.running.insert(request, running);
                }
                FetchAction::Withdraw { request } => {
                    let running = self.running.get_mut(&request);
                    if let Some(sender) = running.and_then(|running| running.withdraw.take()) {
                        let _ = sender.send(());
                    }
                }
                FetchAction::Abandon { request } => {
                    if let Some(running) = self.running.remove(&request) {
                        running.task.abort();
                    }
                }
                FetchAction::DropPeer { peer, reason } => dropped.push((peer, reason)),
            }
        }
        for (peer, reason) in dropped {
            self.drop_peer(peer, reason);
        }
        Ok(())
    }

    /// Leaves a peer that has given the content up, whatever it once said to have: one that lacks a
    /// single chunk says "not yet". To ask for each chunk would take minutes. Its other answers are
    /// awaited, since one of them may say that the file has changed.
    fn leave_if_given_up(&mut self, peer: PeerKey, refusal: qshare_wire::Refusal) {
        let not_here = qshare_wire::Refusal::NotHere;
        if refusal == not_here {
            self.given_up.insert(peer);
        }
        let is_asked = |running: &Running| running.peer == peer && !running.received;
        if self.given_up.contains(&peer) && !self.running.values().any(is_asked) {
            self.lose_peer(peer, AskError::Refused(Refused::new(not_here)).into());
        }
    }

    /// Reports how a request goes on to the scheduler.
    pub(super) fn handle_request_event(&mut self, now: Instant, event: Event) {
        let Some(fetch) = &mut self.fetch else { return };
        match event {
            Event::Step {
                request,
                step: Step::Started(sending),
            } => {
                fetch.handle_started(now, request);
                let running = self.running.get(&request);
                if let Some(running) = running
                    && let Some(connected) = self.peers.get_mut(&running.peer)
                {
                    connected.sending = sending;
                }
            }
            Event::Step {
                request,
                step: Step::Progress(bytes),
            } => {
                self.all.received_bytes.fetch_add(bytes, Ordering::Relaxed);
                fetch.handle_progress(now, request, bytes);
            }
            Event::Received { request } => {
                if let Some(running) = self.running.get_mut(&request) {
                    running.received = true;
                }
                fetch.handle_received(now, request);
            }
            Event::Verified { request } => {
                let completed = fetch.handle_verified(now, request);
                let running = self.running.remove(&request);
                if let Some(running) = running {
                    let bytes = running.span.size(&self.chunks);
                    self.unflushed_bytes += bytes;
                    if let Some(connected) = self.peers.get(&running.peer) {
                        let chunks = u32::from(completed.is_some());
                        self.meter.credit(&connected.peer, bytes, chunks);
                        self.holders.succeeded(&connected.peer.node);
                    }
                }
                if let Some(chunk) = completed {
                    match (&self.store, &self.partial) {
                        (Store::Window(window), _) if !window.publish(chunk) => {
                            fetch.handle_discarded(chunk);
                        }
                        (Store::Part(_), Some(partial)) => partial.mark_verified(chunk),
                        _ => {}
                    }
                }
                self.state.set_stage(Stage::Fetching);
            }
            Event::Corrupt { request } => {
                self.running.remove(&request);
                fetch.handle_corrupt(now, request);
            }
            Event::Refused { request, refused } => {
                let peer = self.running.remove(&request).map(|running| running.peer);
                if refused.refusal() == qshare_wire::Refusal::Changed {
                    self.changed.extend(peer);
                }
                match to_swarm(&refused) {
                    Some(refusal) => fetch.handle_refused(now, request, refusal),
                    None if refused.refusal() == qshare_wire::Refusal::Withdrawn => {
                        fetch.handle_withdrawn(now, request);
                    }
                    None => fetch.handle_failed(now, request),
                }
                if let Some(peer) = peer {
                    self.leave_if_given_up(peer, refused.refusal());
                }
            }
            Event::Broken {
                request,
                cause,
                moved,
            } => {
                trace!(?request, %cause, moved, "request failed");
                self.running.remove(&request);
                match moved {
                    true => fetch.handle_way_lost(now, request),
                    false => fetch.handle_failed(now, request),
                }
            }
            _ => {}
        }
    }
}

/// Returns a refusal in the scheduler's terms; None if it is reported by another event.
fn to_swarm(refused: &Refused) -> Option<Refusal> {
    use qshare_wire::Refusal as Wire;
    match refused.refusal() {
        Wire::NotHere => Some(Refusal::NotHere),
        Wire::NotYet => Some(Refusal::NotYet),
        Wire::Busy => {
            let retry_after = Duration::from_millis(refused.retry_after_ms.into());
            Some(Refusal::Busy { retry_after })
        }
        Wire::Changed => Some(Refusal::Changed),
        Wire::NotAllowed => Some(Refusal::NotAllowed),
        Wire::Withdrawn | Wire::Invalid | Wire::Failed | Wire::Other(_) => None,
    }
}
