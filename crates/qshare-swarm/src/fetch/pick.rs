//! Chooses which peer is sent which request, and which waiting request moves from a loaded holder
//! to a less loaded one.

use std::time::Instant;

use qshare_content::ChunkIndex;

use super::blame::{stall_limit, withdrawal_limit};
use super::request::{Phase, Request, Withdrawal};
use super::timers::Timer;
use super::{Fetch, Peer};
use crate::{FetchAction, PeerKey, RequestId, Span};

/// A waiting request moves to an idle peer that has this many times fewer bytes queued. Simulated
/// with 32 leechers: at 1, every chunk is requested 10 times before it is delivered; at 4, it is
/// requested 2.5 times and the swarm finishes no later; above 6, the swarm finishes later.
const GAIN_FACTOR: u64 = 4;

/// From this many peers on, few chunks are shared out. Simulated with 32 leechers and 16 chunks:
/// with all 8 usual requests, half of the chunks, the last leecher finishes at 1.97 times the
/// bound; with a quarter at 1.90.
const SHARING_PEERS_MAX: u32 = 4;

impl Fetch {
    /// Finds one action; returns false if there is none until something happens.
    pub(super) fn schedule(&mut self, now: Instant) -> bool {
        while let Some(key) = self.least_loaded_ready() {
            let Some(span) = self.pick(key) else {
                if self.relieve(now, key) {
                    return true;
                }
                self.ready.remove(&key);
                continue;
            };
            if !self.fits_budget(span) {
                return false;
            }
            let peer = self.peers.get(&key);
            if peer.is_some_and(|peer| self.is_only_source(peer)) {
                self.run_at = ChunkIndex(span.chunk.0 + 1);
            }
            self.ask(now, key, span);
            return true;
        }
        false
    }

    /// Returns the best peer with free slots: a peer in good standing before any other, then the
    /// least loaded. A peer that has not delivered yet counts as loaded with one more chunk.
    fn least_loaded_ready(&mut self) -> Option<PeerKey> {
        let waiting_max = self.waiting_max();
        let Fetch {
            ready,
            peers,
            chunks,
            ..
        } = self;
        ready.retain(|key| {
            peers
                .get(key)
                .is_some_and(|peer| peer.has_room(waiting_max, chunks.chunk_bytes()))
        });
        ready
            .iter()
            .filter_map(|key| Some((key, peers.get(key)?)))
            .min_by_key(|(_, peer)| {
                let handicap = if peer.is_proven() {
                    0
                } else {
                    chunks.chunk_bytes()
                };
                let load = peer.load().saturating_add(handicap);
                (!peer.is_in_good_standing(), load, peer.lot)
            })
            .map(|(&key, _)| key)
    }

    /// Returns what to request from a peer: urgent spans first, then the chunks that readers wait
    /// for, then the rarest chunk. An only source is asked for chunks in a row.
    fn pick(&mut self, key: PeerKey) -> Option<Span> {
        let peer = self.peers.get(&key)?;
        let is_only_source = self.is_only_source(peer);
        let hurried = self
            .splits
            .iter()
            .filter(|(chunk, _)| peer.chunks.contains(**chunk) && self.is_wanted(**chunk))
            .find_map(|(_, split)| split.next_open());
        let span = hurried.or_else(|| {
            let focused = self.focus.as_ref().and_then(|focus| {
                let mut chunks = focus.chunks.iter().copied();
                chunks.find(|&chunk| self.pool.is_open(chunk) && peer.chunks.contains(chunk))
            });
            let chunk = match (focused, &self.focus) {
                (Some(chunk), _) => chunk,
                (None, Some(focus)) if focus.is_exclusive => return None,
                (None, _) if is_only_source => self.pool.next_open(self.run_at)?,
                (None, _) => self.pool.rarest(&peer.chunks, &mut self.rng)?,
            };
            Some(Span::whole(&self.chunks, chunk))
        })?;
        Some(span)
    }

    /// Lets an idle peer, one without live requests, relieve another. The idle peer takes over an
    /// overdue answer, or a request that waits at the most loaded peer. Peers that still have work
    /// take nothing over, because loads change so fast that requests would only move back and
    /// forth.
    fn relieve(&mut self, now: Instant, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get(&key) else {
            return false;
        };
        if peer.outstanding > 0 || !peer.is_in_good_standing() {
            return false;
        }
        let mut overdue = None;
        let mut most_loaded: Option<(u64, RequestId)> = None;
        for (id, request) in &self.requests {
            if request.peer == key || !peer.chunks.contains(request.span.chunk) {
                continue;
            }
            if self.may_take_over(now, request) {
                overdue = Some(*id);
                break;
            }
            if let Some(load) = self.load_worth_leaving(request, peer) {
                most_loaded = most_loaded.max(Some((load, *id)));
            }
        }
        if let Some(id) = overdue {
            self.take_over(now, id);
        } else if let Some((_, id)) = most_loaded {
            self.withdraw(now, id, key);
        } else {
            return false;
        }
        true
    }

    /// Returns the load of the peer at which `request` waits, if the idle peer `to` would answer
    /// the request sooner. A request that waits at a seed always moves to a peer that is not a
    /// seed, because the seed is needed for chunks that no other peer has. A peer that has not
    /// delivered yet loses every waiting request for which another peer has a free slot. Other
    /// peers lose one request at a time.
    fn load_worth_leaving(&self, request: &Request, to: &Peer) -> Option<u64> {
        if request.phase != Phase::Waiting || request.withdrawal.is_some() {
            return None;
        }
        let from = self.peers.get(&request.peer)?;
        if to.reserved > 0 && from.is_proven() {
            return None;
        }
        let load_there = to.load().saturating_add(request.size_bytes);
        let gains = (from.chunks.is_full() && !to.chunks.is_full())
            || load_there.saturating_mul(GAIN_FACTOR) < from.load()
            || (to.is_proven() && !from.is_proven())
            || from.is_quiet;
        gains.then(|| from.load())
    }

    fn withdraw(&mut self, now: Instant, id: RequestId, next: PeerKey) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.withdrawal = Some(Withdrawal { at: now, next });
        let from = request.peer;
        if let Some(peer) = self.peers.get_mut(&next) {
            peer.reserved += 1;
        }
        if let Some(peer) = self.peers.get(&from) {
            let due = now + withdrawal_limit(&self.config, peer);
            self.timers.set(Timer::Withdrawal(id), due);
        }
        self.actions
            .push_back(FetchAction::Withdraw { request: id });
    }

    pub(super) fn has_room(&self, peer: &Peer) -> bool {
        peer.has_room(self.waiting_max(), self.chunks.chunk_bytes())
    }

    /// Returns the limit on requests outstanding at one of several peers. The limit is lower for
    /// contents of few chunks: there, the usual number of requests ties up a large share of the
    /// chunks at one peer, and peers that receive the chunks later have nothing to do.
    fn waiting_max(&self) -> u32 {
        let peers = (self.peers.len() as u32).clamp(1, SHARING_PEERS_MAX);
        let share = self.chunks.count().div_ceil(peers);
        self.config.waiting_max.min(share)
    }

    /// Returns whether `key` holds the span and may be sent a request for it now.
    pub(super) fn may_ask(&self, key: PeerKey, span: Span) -> bool {
        self.fits_budget(span)
            && self
                .peers
                .get(&key)
                .is_some_and(|peer| peer.chunks.contains(span.chunk) && self.has_room(peer))
    }

    fn fits_budget(&self, span: Span) -> bool {
        let budget = self
            .config
            .in_flight_max_bytes
            .max(self.chunks.chunk_bytes());
        self.allowance_bytes > 0 && self.in_flight_bytes + span.size(&self.chunks) <= budget
    }

    /// Requests a span that is not requested yet from `key`.
    pub(super) fn ask(&mut self, now: Instant, key: PeerKey, span: Span) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if span.is_whole(&self.chunks) {
            self.pool.take(span.chunk);
        } else if let Some(split) = self.splits.get_mut(&span.chunk) {
            split.take(span);
        }
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let size_bytes = span.size(&self.chunks);
        if peer.outstanding == 0 {
            peer.alive_at = now;
            peer.is_quiet = false;
            peer.rate.restart(now);
            let quiet_at = now + stall_limit(&self.config, peer);
            self.timers.set(Timer::Silence(key), quiet_at);
        }
        peer.requests.insert(id);
        peer.outstanding += 1;
        peer.outstanding_bytes += size_bytes;
        self.in_flight_bytes += size_bytes;
        self.requested_bytes += size_bytes;
        self.allowance_bytes = match self.allowance_bytes {
            u64::MAX => u64::MAX,
            bytes => bytes.saturating_sub(size_bytes),
        };
        self.requests.insert(
            id,
            Request {
                peer: key,
                span,
                is_announced: false,
                size_bytes,
                arrived_bytes: 0,
                phase: Phase::Waiting,
                asked_at: now,
                touched_at: now,
                withdrawal: None,
                overdue: None,
            },
        );
        self.actions.push_back(FetchAction::Request {
            request: id,
            peer: key,
            span,
        });
    }

    /// Opens a span again, for any peer that holds it.
    pub(super) fn reopen(&mut self, span: Span) {
        if span.is_whole(&self.chunks) {
            self.pool.open(span.chunk);
        } else if let Some(split) = self.splits.get_mut(&span.chunk) {
            split.open(span);
        }
        self.mark_holders_ready(span.chunk);
    }
}
