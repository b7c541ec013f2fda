//! The client's side of one content: which span to request from which peer.

mod action;
mod blame;
mod config;
mod focus;
mod peer;
mod pick;
mod pool;
mod request;
mod run;
mod split;
mod status;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use qshare_content::{Bitmap, ChunkIndex, Chunks};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::{PeerKey, RequestId};
pub use action::{DropReason, FetchAction, Refusal};
pub use config::FetchConfig;
pub use focus::Focus;
use peer::Peer;
use pool::Pool;
use request::{Overdue, Phase, Request};
use split::Split;
pub use status::{FetchStatus, PeerStatus};
use timers::{Timer, Timers};

/// The download of one content from many peers.
///
/// Every `handle_*` is total: an event of an unknown peer or a void request is ignored. A request
/// is live from its [`FetchAction::Request`] until it is verified, corrupt, refused, withdrawn or
/// failed, until [`FetchAction::Abandon`] or [`FetchAction::DropPeer`], or until its peer leaves.
/// The last two do not void a request whose bytes have all arrived
/// ([`handle_received`](Self::handle_received)): the result of its verification still counts.
#[derive(Debug)]
pub struct Fetch {
    chunks: Chunks,
    config: FetchConfig,
    rng: SmallRng,
    verified: Bitmap,
    verified_bytes: u64,
    /// Missing chunks that are neither requested nor divided.
    pool: Pool,
    /// Missing chunks that are requested in spans.
    splits: BTreeMap<ChunkIndex, Split>,
    /// The live requests. Their spans are claimed, hence open neither in the pool nor in a split.
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    peers: BTreeMap<PeerKey, Peer>,
    /// Peers that may be sent a request.
    ready: BTreeSet<PeerKey>,
    timers: Timers,
    actions: VecDeque<FetchAction>,
    in_flight_bytes: u64,
    /// Bytes requested since the beginning; what was requested twice counts twice.
    requested_bytes: u64,
    /// Bytes that may still be requested.
    allowance_bytes: u64,
    received_bytes: u64,
    wasted_bytes: u64,
    /// Bytes discarded because their answers were slow rather than silent.
    impatience_bytes: u64,
    /// Where the requests in a row to an only source go on.
    run_at: ChunkIndex,
    /// The chunks that are requested before others.
    focus: Option<Focus>,
    /// Seconds per byte that recent answers took from start to end.
    pace: Option<f64>,
}

impl Fetch {
    /// Creates the download of a content of which the chunks in `verified` are already complete,
    /// without peers. `seed` breaks ties. A `verified` of another length than the content's counts
    /// as empty.
    pub fn new(chunks: Chunks, verified: Bitmap, config: FetchConfig, seed: u64) -> Fetch {
        let verified = if verified.len() == chunks.count() {
            verified
        } else {
            Bitmap::new(chunks.count())
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        Fetch {
            run_at: run::beginning(seed, chunks.count()),
            pool: Pool::new(&verified, &mut rng),
            verified_bytes: verified.iter().map(|chunk| chunks.size(chunk)).sum(),
            chunks,
            config,
            rng,
            verified,
            splits: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            peers: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: Timers::default(),
            actions: VecDeque::new(),
            in_flight_bytes: 0,
            requested_bytes: 0,
            allowance_bytes: u64::MAX,
            received_bytes: 0,
            wasted_bytes: 0,
            impatience_bytes: 0,
            focus: None,
            pace: None,
        }
    }

    /// Changes the limit on bytes that are requested and not yet verified. Requests that exceed it
    /// go on.
    pub fn set_in_flight_max(&mut self, bytes: u64) {
        let grows = bytes > self.config.in_flight_max_bytes;
        self.config.in_flight_max_bytes = bytes;
        if grows {
            self.ready.extend(self.peers.keys());
        }
    }

    /// Sets how many more bytes may be requested, until the next call; the last request may exceed
    /// it. At 0 nothing more is requested; outstanding requests continue.
    pub fn set_allowance(&mut self, bytes: u64) {
        let opens = self.allowance_bytes == 0 && bytes > 0;
        self.allowance_bytes = bytes;
        if opens {
            self.ready.extend(self.peers.keys());
        }
    }

    /// Returns the bytes that are requested and not yet verified.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Returns the bytes that were requested since the beginning. What was requested twice counts
    /// twice.
    pub fn requested_bytes(&self) -> u64 {
        self.requested_bytes
    }

    /// Returns the verified chunks.
    pub fn verified(&self) -> &Bitmap {
        &self.verified
    }

    /// Returns whether all chunks are verified.
    pub fn is_complete(&self) -> bool {
        self.verified.is_full()
    }

    /// Adds a peer that can be sent requests. None of its chunks are known yet.
    pub fn handle_peer_joined(&mut self, now: Instant, peer: PeerKey) {
        let lot = self.rng.random();
        self.peers
            .entry(peer)
            .or_insert_with(|| Peer::new(now, self.chunks.count(), lot));
    }

    /// Replaces the set of chunks that a peer holds, and the length of its queue.
    pub fn handle_have_all(
        &mut self,
        _now: Instant,
        peer: PeerKey,
        chunks: Bitmap,
        queue_bytes: u64,
    ) {
        let Some(entry) = self.live_peer(peer) else {
            return;
        };
        if chunks.len() != entry.chunks.len() {
            return;
        }
        entry.queue_bytes = queue_bytes;
        let before = std::mem::replace(&mut entry.chunks, chunks.clone());
        for chunk in chunks.difference(&before) {
            self.pool.add_holder(chunk);
        }
        for chunk in before.difference(&chunks) {
            self.pool.remove_holder(chunk);
        }
        self.ready.insert(peer);
    }

    /// Adds chunks that a peer holds, and updates the length of its queue. The list may be empty if
    /// only the queue changed.
    pub fn handle_have(
        &mut self,
        _now: Instant,
        peer: PeerKey,
        chunks: &[ChunkIndex],
        queue_bytes: u64,
    ) {
        let Fetch { peers, pool, .. } = self;
        let Some(entry) = peers.get_mut(&peer) else {
            return;
        };
        if entry.dropped.is_some() {
            return;
        }
        entry.queue_bytes = queue_bytes;
        for &chunk in chunks {
            if entry.chunks.insert(chunk) {
                pool.add_holder(chunk);
            }
        }
        self.ready.insert(peer);
    }

    /// Removes a peer that left. Its requests are void without further notice, except those whose
    /// bytes have all arrived.
    pub fn handle_peer_left(&mut self, now: Instant, peer: PeerKey) {
        self.leave(now, peer);
        self.peers.remove(&peer);
    }

    /// Records that the first frame of an answer arrived and data follows.
    pub fn handle_started(&mut self, now: Instant, request: RequestId) {
        let Some(entry) = self.requests.get_mut(&request) else {
            return;
        };
        if entry.phase != Phase::Waiting {
            return;
        }
        entry.phase = Phase::Started { at: now };
        entry.touched_at = now;
        let waited = now.saturating_duration_since(entry.asked_at);
        let key = entry.peer;
        self.handle_alive(now, key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.handle_latency(waited);
        }
        self.cancel_withdrawal(request);
        self.watch(now, request);
    }

    /// Records that `bytes` more payload bytes of an answer arrived.
    pub fn handle_progress(&mut self, now: Instant, request: RequestId, bytes: u64) {
        self.handle_started(now, request);
        let Some(entry) = self.requests.get_mut(&request) else {
            return;
        };
        let bytes = bytes.min(entry.missing_bytes());
        if bytes == 0 || !entry.is_outstanding() {
            return;
        }
        entry.arrived_bytes += bytes;
        entry.touched_at = now;
        let was_silent = entry
            .overdue
            .take_if(|why| *why == Overdue::Silent)
            .is_some();
        let key = entry.peer;
        self.received_bytes += bytes;
        self.handle_alive(now, key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.received_bytes += bytes;
            let latency = peer.answer_latency();
            peer.rate.handle_bytes(now, bytes, latency);
        }
        if was_silent {
            self.watch(now, request);
        }
    }

    /// Records that all bytes of an answer arrived and are being verified. The peer may be sent
    /// further requests; the span stays claimed until the result of the verification is known.
    pub fn handle_received(&mut self, now: Instant, request: RequestId) {
        let Some(missing) = self.requests.get(&request).map(Request::missing_bytes) else {
            return;
        };
        self.handle_progress(now, request, missing);
        let Some(entry) = self.requests.get_mut(&request) else {
            return;
        };
        let Phase::Started { at } = entry.phase else {
            return;
        };
        entry.phase = Phase::Received;
        entry.overdue = None;
        let (key, size_bytes) = (entry.peer, entry.size_bytes);
        let took = now.saturating_duration_since(at);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.handle_answer_time(took);
        }
        if size_bytes > 0 {
            let took = took.as_secs_f64() / size_bytes as f64;
            self.pace = Some(self.pace.map_or(took, |pace| (pace * 7.0 + took) / 8.0));
        }
        self.clear_request_timers(request);
        self.release_place(key, size_bytes);
    }

    /// Records that a span was verified. Returns the chunk if it is now complete.
    pub fn handle_verified(&mut self, now: Instant, request: RequestId) -> Option<ChunkIndex> {
        self.handle_received(now, request);
        let request = self.end(request)?;
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.verified_bytes += request.size_bytes;
            peer.stalls = 0;
            peer.refusals = 0;
            peer.useless_answers = 0;
        }
        let chunk = request.span.chunk;
        if !request.span.is_whole(&self.chunks) {
            let split = self.splits.get_mut(&chunk)?;
            if !split.verify(request.span) {
                return None;
            }
            self.splits.remove(&chunk);
        }
        self.verified.insert(chunk);
        self.verified_bytes += self.chunks.size(chunk);
        Some(chunk)
    }

    /// Records that a span failed verification: the peer is dropped for this content.
    pub fn handle_corrupt(&mut self, now: Instant, request: RequestId) {
        self.handle_received(now, request);
        let Some(request) = self.end(request) else {
            return;
        };
        self.wasted_bytes += request.arrived_bytes;
        self.drop_peer(now, request.peer, DropReason::Corrupt);
        self.reopen(request.span);
    }

    /// Records that the peer refused to send the span.
    pub fn handle_refused(&mut self, now: Instant, request: RequestId, refusal: Refusal) {
        let Some(request) = self.end_unanswered(request) else {
            return;
        };
        let (key, chunk) = (request.peer, request.span.chunk);
        self.handle_alive(now, key);
        if let Some(peer) = self.peers.get_mut(&key) {
            match refusal {
                Refusal::Busy { retry_after } => self.back_off(now, key, retry_after),
                Refusal::NotYet => self.handle_useless_answer(now, key),
                Refusal::NotHere => {
                    if peer.chunks.remove(chunk) {
                        self.pool.remove_holder(chunk);
                    }
                    self.handle_useless_answer(now, key);
                }
                Refusal::Changed | Refusal::NotAllowed => {
                    self.drop_peer(now, key, DropReason::Useless);
                }
            }
        }
        self.pass_on(now, request);
    }

    /// Records that the peer confirmed a withdrawal: the request had not started and never will.
    pub fn handle_withdrawn(&mut self, now: Instant, request: RequestId) {
        let Some(request) = self.end_unanswered(request) else {
            return;
        };
        self.handle_alive(now, request.peer);
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            match request.withdrawal {
                Some(withdrawal) => {
                    let waited = now.saturating_duration_since(withdrawal.at);
                    peer.handle_withdrawal_latency(waited);
                }
                // No withdrawal was requested, so this is equivalent to a refusal.
                None => self.handle_useless_answer(now, request.peer),
            }
        }
        self.pass_on(now, request);
    }

    /// Records that a request failed: its stream was reset, or the answer was malformed. A request
    /// whose bytes had all arrived failed on our side, and no peer is blamed.
    pub fn handle_failed(&mut self, now: Instant, request: RequestId) {
        let Some(request) = self.end(request) else {
            return;
        };
        self.wasted_bytes += request.arrived_bytes;
        if request.is_outstanding() {
            self.handle_useless_answer(now, request.peer);
        }
        self.pass_on(now, request);
    }

    /// Records that a request was lost with its path, and that another path to the same peer
    /// exists. No peer is blamed, and the pause does not count as a stall.
    pub fn handle_way_lost(&mut self, now: Instant, request: RequestId) {
        let Some(request) = self.end(request) else {
            return;
        };
        self.wasted_bytes += request.arrived_bytes;
        let key = request.peer;
        if let Some(peer) = self.live_peer(key) {
            (peer.stalls, peer.refusals) = (0, 0);
            peer.backing_off_until = None;
            self.timers.clear(Timer::Backoff(key));
            self.mark_ready(key);
        }
        self.pass_on(now, request);
    }

    /// Handles a timeout whose time, as returned by [`poll_timeout`](Self::poll_timeout), has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Stall(request) => self.handle_stall_timer(now, request),
                Timer::Withdrawal(request) => self.handle_withdrawal_timer(now, request),
                Timer::Silence(peer) => self.handle_silence_timer(now, peer),
                Timer::Backoff(peer) => {
                    if let Some(entry) = self.live_peer(peer) {
                        entry.backing_off_until = None;
                        self.ready.insert(peer);
                    }
                }
            }
        }
    }

    /// Returns the next action, or None until something happens.
    pub fn poll_action(&mut self, now: Instant) -> Option<FetchAction> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                // A request that ended before it was emitted is not reported.
                let is_void = match action {
                    FetchAction::Request { request, .. } => match self.requests.get_mut(&request) {
                        Some(entry) => {
                            entry.is_announced = true;
                            false
                        }
                        None => true,
                    },
                    FetchAction::Withdraw { request } => !self.requests.contains_key(&request),
                    FetchAction::Abandon { .. } | FetchAction::DropPeer { .. } => false,
                };
                if !is_void {
                    return Some(action);
                }
            }
            if !self.schedule(now) {
                return None;
            }
        }
    }

    /// Returns when to call [`handle_timeout`](Self::handle_timeout) unless an event comes first,
    /// and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next()
    }

    /// Returns the state of the download. Takes time proportional to the numbers of chunks and
    /// requests.
    pub fn status(&self) -> FetchStatus {
        let split_open = self.splits.values().filter(|split| split.open_count() > 0);
        FetchStatus {
            chunks: self.chunks.count(),
            verified_chunks: self.verified.count(),
            verified_bytes: self.verified_bytes,
            open_chunks: self.pool.len() as u32 + split_open.count() as u32,
            unheld_chunks: self
                .verified
                .missing()
                .filter(|&chunk| self.pool.holders(chunk) == 0)
                .count() as u32,
            in_flight_bytes: self.in_flight_bytes,
            received_bytes: self.received_bytes,
            wasted_bytes: self.wasted_bytes,
            peers: self
                .peers
                .iter()
                .map(|(&key, peer)| self.peer_status(key, peer))
                .collect(),
        }
    }

    fn peer_status(&self, key: PeerKey, peer: &Peer) -> PeerStatus {
        let requests = peer.requests.iter().filter_map(|id| self.requests.get(id));
        let waiting = requests.filter(|request| request.phase == Phase::Waiting);
        let waiting = waiting.count() as u32;
        PeerStatus {
            peer: key,
            chunks: peer.chunks.count(),
            wanted_chunks: peer.chunks.count() - peer.chunks.count_common(&self.verified),
            waiting,
            started: peer.outstanding.saturating_sub(waiting),
            outstanding_bytes: peer.outstanding_bytes,
            queue_bytes: peer.queue_bytes,
            rate_bytes_per_second: peer.rate.bytes_per_second() as u64,
            latency: peer.latency,
            received_bytes: peer.received_bytes,
            verified_bytes: peer.verified_bytes,
            backing_off_until: peer.backing_off_until,
            dropped: peer.dropped,
        }
    }

    /// Returns peers that hold nothing that is missing and have no live request.
    pub fn idle_peers(&self) -> impl Iterator<Item = PeerKey> {
        self.peers.iter().filter_map(|(&key, peer)| {
            let wanted = peer.chunks.count() - peer.chunks.count_common(&self.verified);
            (wanted == 0 && peer.requests.is_empty()).then_some(key)
        })
    }

    /// Returns the peer unless it is unknown or dropped.
    fn live_peer(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.peers
            .get_mut(&key)
            .filter(|peer| peer.dropped.is_none())
    }

    /// Removes a request from all books. Its span is then neither claimed nor open.
    fn end(&mut self, id: RequestId) -> Option<Request> {
        self.clear_request_timers(id);
        let request = self.requests.remove(&id)?;
        self.in_flight_bytes -= request.size_bytes;
        if let Some(withdrawal) = request.withdrawal {
            self.release_reservation(withdrawal.next);
        }
        if let Some(peer) = self.peers.get_mut(&request.peer) {
            peer.requests.remove(&id);
        }
        if request.is_outstanding() {
            self.release_place(request.peer, request.size_bytes);
        }
        Some(request)
    }

    /// Like [`end`](Self::end), for events that are only valid before the answer is complete.
    fn end_unanswered(&mut self, id: RequestId) -> Option<Request> {
        if !self.requests.get(&id)?.is_outstanding() {
            return None;
        }
        let request = self.end(id)?;
        self.wasted_bytes += request.arrived_bytes;
        Some(request)
    }

    /// Makes the span of an ended request open again, for the peer for whose sake it was withdrawn
    /// if there is one.
    fn pass_on(&mut self, now: Instant, request: Request) {
        if let Some(withdrawal) = request.withdrawal
            && self.may_ask(withdrawal.next, request.span)
        {
            self.ask(now, withdrawal.next, request.span);
        } else {
            self.reopen(request.span);
        }
    }

    fn release_place(&mut self, peer: PeerKey, size_bytes: u64) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.outstanding = entry.outstanding.saturating_sub(1);
            entry.outstanding_bytes = entry.outstanding_bytes.saturating_sub(size_bytes);
            if entry.outstanding == 0 {
                self.timers.clear(Timer::Silence(peer));
            }
        }
        self.mark_ready(peer);
    }

    fn release_reservation(&mut self, peer: PeerKey) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.reserved = entry.reserved.saturating_sub(1);
        }
        self.mark_ready(peer);
    }

    fn cancel_withdrawal(&mut self, request: RequestId) {
        self.timers.clear(Timer::Withdrawal(request));
        let entry = self.requests.get_mut(&request);
        if let Some(withdrawal) = entry.and_then(|entry| entry.withdrawal.take()) {
            self.release_reservation(withdrawal.next);
        }
    }

    fn mark_ready(&mut self, peer: PeerKey) {
        if self.live_peer(peer).is_some() {
            self.ready.insert(peer);
        }
    }

    fn mark_holders_ready(&mut self, chunk: ChunkIndex) {
        for (&key, peer) in &self.peers {
            if peer.chunks.contains(chunk) {
                self.ready.insert(key);
            }
        }
    }

    fn clear_request_timers(&mut self, request: RequestId) {
        self.timers.clear(Timer::Stall(request));
        self.timers.clear(Timer::Withdrawal(request));
    }
}

#[cfg(test)]
mod tests;
