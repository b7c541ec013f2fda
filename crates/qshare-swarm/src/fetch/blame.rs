//! Reactions to peers that are slow, silent, refuse or send corrupt bytes: takeover, back-off,
//! dropping.

use std::time::{Duration, Instant};

use super::request::{Overdue, Phase, Request};
use super::timers::Timer;
use super::{Fetch, FetchConfig, Peer};
use crate::{DropReason, FetchAction, PeerKey, RequestId, Span};
use qshare_content::Bitmap;

/// A started answer is slow if it takes this many times as long as recent answers of the same size.
const SLOW_FACTOR: f64 = 4.0;

/// The silence limit of a peer is raised to this many times the longest silence after which the
/// peer resumed, ...
const SILENCE_FACTOR: u32 = 2;
/// ... but to at most this many times the configured silence.
const SILENCE_STRETCH_MAX: u32 = 4;

/// Upper bound on the bytes discarded by cancelling slow answers of peers that had delivered
/// before: one in this many of the content's bytes. Answers that stalled are cancelled regardless.
const IMPATIENCE_SHARE: u64 = 200;

/// Silence after which an answer counts as stalled, or a peer as quiet.
pub(super) fn stall_limit(config: &FetchConfig, peer: &Peer) -> Duration {
    config
        .stall_min
        .max(peer.answer_latency().saturating_mul(config.stall_factor))
}

/// The usual duration of an answer extends its stall limit to at most this many times the
/// configured silence, so that a stall at the end of a download costs at most a second.
const USUAL_STRETCH_MAX: u32 = 2;

/// Returns the time after which a withdrawal counts as unanswered. It is four fifths of the stall
/// time, because the two add up if a peer stalls, and their sum should stay below a second. At half
/// of the stall time, healthy peers whose answers are queued behind other data lose requests (0.6 %
/// of the bytes in simulated swarms).
pub(super) fn withdrawal_limit(config: &FetchConfig, peer: &Peer) -> Duration {
    (config.stall_min * 4 / 5).max(peer.answer_latency().saturating_mul(config.stall_factor))
}

/// A peer that sent anything since the withdrawal gets this many times as long to answer it,
/// because its packets are delayed on the path.
const WITHDRAWAL_PATIENCE: u32 = 4;

impl Fetch {
    /// Rearms the stall timer of a started answer that made progress.
    pub(super) fn watch(&mut self, now: Instant, id: RequestId) {
        if let Some(request) = self.requests.get(&id) {
            let silent_at = now + self.answer_limit(request);
            self.timers.set(Timer::Stall(id), silent_at);
        }
    }

    /// Handles the stall timer of an answer, which is stalled or may be slow: decides whether
    /// another peer may take it over.
    pub(super) fn handle_stall_timer(&mut self, now: Instant, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        if !matches!(request.phase, Phase::Started { .. }) {
            return;
        }
        let limit = self.answer_limit(request);
        let silent_at = request.touched_at + limit;
        let overdue = if silent_at <= now {
            Some(Overdue::Silent)
        } else {
            self.timers.set(Timer::Stall(id), silent_at);
            let is_slow = request.is_slow(now, self.slow_limit(request.size_bytes, limit));
            is_slow.then_some(Overdue::Slow)
        };
        let chunk = request.span.chunk;
        if let Some(request) = self.requests.get_mut(&id) {
            request.overdue = overdue;
        }
        if overdue.is_some() {
            self.mark_holders_ready(chunk);
        }
    }

    /// Returns the silence after which a started answer counts as stalled. The limit follows from
    /// the latency of the peer and from the usual duration of a whole answer: a server that sends
    /// many answers in turn pauses each of them.
    pub(super) fn answer_limit(&self, request: &Request) -> Duration {
        let peer = self.peers.get(&request.peer);
        let of_peer = peer.map_or(self.config.stall_min, |peer| {
            stall_limit(&self.config, peer)
        });
        let usual = self.usual_time(request.size_bytes, 1.0);
        of_peer.max(usual.min(self.config.stall_min * USUAL_STRETCH_MAX))
    }

    fn slow_limit(&self, size_bytes: u64, stall_limit: Duration) -> Duration {
        self.usual_time(size_bytes, SLOW_FACTOR)
            .max(stall_limit.saturating_mul(2))
    }

    /// Returns `factor` times the duration, from start to end, of recent answers of this size.
    fn usual_time(&self, size_bytes: u64, factor: f64) -> Duration {
        let seconds = self.pace.unwrap_or(0.0) * size_bytes as f64 * factor;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Handles a withdrawal that timed out: cancels the request. If the peer sent nothing since the
    /// withdrawal, also cancels the other requests that wait at the peer.
    pub(super) fn handle_withdrawal_timer(&mut self, now: Instant, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let Some(withdrawal) = request.withdrawal else {
            return;
        };
        let key = request.peer;
        let mut was_alive = false;
        if let Some(peer) = self.peers.get(&key) {
            was_alive = peer.alive_at > withdrawal.at;
            let limit = withdrawal_limit(&self.config, peer);
            let patience = limit.saturating_mul(WITHDRAWAL_PATIENCE);
            if was_alive && now < withdrawal.at + patience {
                self.timers.set(Timer::Withdrawal(id), now + limit);
                return;
            }
        }
        self.abandon(now, id);
        if !was_alive {
            for id in self.waiting_at(key) {
                self.abandon(now, id);
            }
            self.handle_stall(now, key);
        }
    }

    /// Records that a peer sent something.
    pub(super) fn handle_alive(&mut self, now: Instant, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && peer.handle_alive(now)
        {
            let quiet_at = now + stall_limit(&self.config, peer);
            self.timers.set(Timer::Silence(key), quiet_at);
        }
    }

    /// Handles the silence of a peer with live requests. First, idle peers may take over its
    /// waiting requests; finally, all of its requests are cancelled.
    pub(super) fn handle_silence_timer(&mut self, now: Instant, key: PeerKey) {
        let config = &self.config;
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.outstanding == 0 {
            return;
        }
        let quiet_at = peer.alive_at + stall_limit(config, peer);
        let silence_max = config
            .silence_max
            .max(peer.longest_silence.saturating_mul(SILENCE_FACTOR))
            .min(config.silence_max.saturating_mul(SILENCE_STRETCH_MAX));
        let given_up_at = peer.alive_at + silence_max;
        if now < quiet_at {
            self.timers.set(Timer::Silence(key), quiet_at);
        } else if now < given_up_at {
            peer.is_quiet = true;
            self.timers.set(Timer::Silence(key), given_up_at);
            for id in self.waiting_at(key) {
                if let Some(chunk) = self.requests.get(&id).map(|request| request.span.chunk) {
                    self.mark_holders_ready(chunk);
                }
            }
        } else {
            for id in self.outstanding_at(key) {
                self.abandon(now, id);
            }
            self.handle_stall(now, key);
        }
    }

    /// Returns whether `request` is overdue and may be cancelled in favour of another peer.
    pub(super) fn may_take_over(&self, now: Instant, request: &Request) -> bool {
        match request.overdue {
            None => false,
            Some(Overdue::Silent) => true,
            Some(Overdue::Slow) => {
                let peer = self.peers.get(&request.peer);
                let allowed = self.chunks.length() / IMPATIENCE_SHARE;
                !peer.is_some_and(Peer::is_proven)
                    || now.saturating_duration_since(request.asked_at) >= self.config.silence_max
                    || self.impatience_bytes + request.arrived_bytes
                        <= allowed.max(self.chunks.chunk_bytes())
            }
        }
    }

    /// Cancels an overdue request, divides its chunk among the peers that hold it, and counts it
    /// against its peer.
    pub(super) fn take_over(&mut self, now: Instant, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (key, span) = (request.peer, request.span);
        if request.overdue == Some(Overdue::Slow) {
            self.impatience_bytes += request.arrived_bytes;
        }
        self.abandon(now, id);
        self.handle_stall(now, key);
        self.split(span);
    }

    /// Cancels a request; its span may be requested again.
    fn abandon(&mut self, now: Instant, id: RequestId) {
        if let Some(request) = self.end_unanswered(id) {
            if request.is_announced {
                self.actions.push_back(FetchAction::Abandon { request: id });
            }
            self.pass_on(now, request);
        }
    }

    /// Counts one stall of a peer. Further stalls are not counted until the peer may be sent
    /// requests again, because one short outage delays many requests.
    fn handle_stall(&mut self, now: Instant, key: PeerKey) {
        let stalls_max = self.config.stalls_max;
        let stall_min = self.config.stall_min;
        let Some(peer) = self.live_peer(key) else {
            return;
        };
        if peer.stalls > 0 && peer.backing_off_until.is_some() {
            return;
        }
        peer.stalls += 1;
        if peer.stalls >= stalls_max {
            self.drop_peer(now, key, DropReason::Stalled);
        } else {
            let delay = stall_min.saturating_mul(1 << peer.stalls.min(16));
            self.set_back_off(now, key, delay);
        }
    }

    /// Handles a refusal or failure: the peer backs off, longer after each consecutive one.
    pub(super) fn back_off(&mut self, now: Instant, key: PeerKey, at_least: Duration) {
        let backoff_min = self.config.backoff_min;
        if let Some(peer) = self.live_peer(key) {
            let delay = backoff_min.saturating_mul(1 << peer.refusals.min(16));
            peer.refusals = peer.refusals.saturating_add(1);
            self.set_back_off(now, key, delay.max(at_least));
        }
    }

    fn set_back_off(&mut self, now: Instant, key: PeerKey, delay: Duration) {
        let until = now + delay.min(self.config.backoff_max);
        if let Some(peer) = self.live_peer(key) {
            let until = peer
                .backing_off_until
                .map_or(until, |before| before.max(until));
            peer.backing_off_until = Some(until);
            self.timers.set(Timer::Backoff(key), until);
        }
    }

    /// Handles a refusal or failure that load does not explain.
    pub(super) fn handle_useless_answer(&mut self, now: Instant, key: PeerKey) {
        self.back_off(now, key, Duration::ZERO);
        let refusals_max = self.config.refusals_max;
        let Some(peer) = self.live_peer(key) else {
            return;
        };
        peer.useless_answers += 1;
        if peer.useless_answers >= refusals_max {
            self.drop_peer(now, key, DropReason::Useless);
        }
    }

    /// Drops a peer: it is sent no further requests.
    pub(super) fn drop_peer(&mut self, now: Instant, key: PeerKey, reason: DropReason) {
        let Some(peer) = self.live_peer(key) else {
            return;
        };
        peer.dropped = Some(reason);
        peer.backing_off_until = None;
        self.actions
            .push_back(FetchAction::DropPeer { peer: key, reason });
        self.leave(now, key);
    }

    /// Removes a peer from the counts of holders, and voids its requests.
    pub(super) fn leave(&mut self, now: Instant, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            let chunks = std::mem::replace(&mut peer.chunks, Bitmap::new(self.chunks.count()));
            for chunk in chunks.iter() {
                self.pool.remove_holder(chunk);
            }
        }
        for id in self.outstanding_at(key) {
            if let Some(request) = self.end_unanswered(id) {
                self.pass_on(now, request);
            }
        }
        self.timers.clear(Timer::Silence(key));
        self.timers.clear(Timer::Backoff(key));
        self.ready.remove(&key);
    }

    /// Divides the chunk of `span` when several peers could send it. Does nothing if `span` is only
    /// a part of the chunk.
    fn split(&mut self, span: Span) {
        let chunk = span.chunk;
        if !span.is_whole(&self.chunks) || !self.pool.is_open(chunk) {
            return;
        }
        let able = self
            .peers
            .values()
            .filter(|peer| peer.chunks.contains(chunk) && self.has_room(peer))
            .count();
        let span_min_bytes = self.config.span_min_bytes;
        if let Some(split) = super::Split::new(&self.chunks, chunk, able, span_min_bytes) {
            self.pool.take(chunk);
            self.splits.insert(chunk, split);
        }
    }

    fn outstanding_at(&self, key: PeerKey) -> Vec<RequestId> {
        self.requests_at(key, Request::is_outstanding)
    }

    fn waiting_at(&self, key: PeerKey) -> Vec<RequestId> {
        self.requests_at(key, |request| request.phase == Phase::Waiting)
    }

    fn requests_at(&self, key: PeerKey, which: impl Fn(&Request) -> bool) -> Vec<RequestId> {
        let ids = self
            .peers
            .get(&key)
            .into_iter()
            .flat_map(|peer| &peer.requests);
        ids.copied()
            .filter(|id| self.requests.get(id).is_some_and(&which))
            .collect()
    }
}
