//! The state of one peer in a fetch: what it holds, how it delivers, how far it is trusted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use qshare_content::Bitmap;

use crate::{DropReason, RequestId};

/// Shortest interval over which a rate is measured: long enough to hold several responses of a
/// fast peer.
const RATE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Limit on the requests at a peer that has not delivered anything yet. The value suffices to
/// measure the peer's rate, and limits what peers with false claims tie up.
const WAITING_MAX_UNPROVEN: u32 = 4;

/// A peer that joined and has not left.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) chunks: Bitmap,
    /// Breaks ties, so that not every client requests from the same peer first.
    pub(super) lot: u32,
    /// Bytes in its queue for all clients, as last advertised.
    pub(super) queue_bytes: u64,
    /// Live requests, including those received and not yet verified.
    pub(super) requests: BTreeSet<RequestId>,
    /// Requests that wait or are being answered: their number and their bytes.
    pub(super) outstanding: u32,
    pub(super) outstanding_bytes: u64,
    /// Slots reserved for requests that are being withdrawn from other peers.
    pub(super) reserved: u32,
    pub(super) received_bytes: u64,
    pub(super) verified_bytes: u64,
    pub(super) rate: Rate,
    /// Shortest time from a request to the start of its answer.
    pub(super) latency: Option<Duration>,
    /// Moving average of the duration of answers, from start to end.
    answer_time: Option<Duration>,
    /// Moving average of the time from a withdrawal to its confirmation.
    withdrawal_latency: Option<Duration>,
    /// When the peer last sent something while requests were outstanding, or when the first request
    /// after a pause was sent to it.
    pub(super) alive_at: Instant,
    /// Whether the peer has been silent for so long that idle peers may take over its waiting
    /// requests.
    pub(super) is_quiet: bool,
    /// Longest silence after which the peer resumed.
    pub(super) longest_silence: Duration,
    pub(super) backing_off_until: Option<Instant>,
    /// Consecutive failures; reset when bytes are verified.
    pub(super) refusals: u32,
    pub(super) useless_answers: u32,
    pub(super) stalls: u32,
    pub(super) dropped: Option<DropReason>,
}

impl Peer {
    pub(super) fn new(now: Instant, chunks: u32, lot: u32) -> Peer {
        Peer {
            chunks: Bitmap::new(chunks),
            lot,
            queue_bytes: 0,
            requests: BTreeSet::new(),
            outstanding: 0,
            outstanding_bytes: 0,
            reserved: 0,
            received_bytes: 0,
            verified_bytes: 0,
            rate: Rate::new(now),
            latency: None,
            answer_time: None,
            withdrawal_latency: None,
            alive_at: now,
            is_quiet: false,
            longest_silence: Duration::ZERO,
            backing_off_until: None,
            refusals: 0,
            useless_answers: 0,
            stalls: 0,
            dropped: None,
        }
    }

    /// Returns whether another request may be sent, apart from the byte budget.
    pub(super) fn has_room(&self, waiting_max: u32, chunk_bytes: u64) -> bool {
        self.dropped.is_none()
            && self.backing_off_until.is_none()
            && self.outstanding + self.reserved < self.room(waiting_max, chunk_bytes)
    }

    fn room(&self, waiting_max: u32, chunk_bytes: u64) -> u32 {
        if !self.is_in_good_standing() {
            return 1;
        }
        if !self.is_proven() {
            return waiting_max.clamp(1, WAITING_MAX_UNPROVEN);
        }
        // Twice the bandwidth-delay product at the current rate lets the rate grow until the path
        // is full. An answer with a lost packet completes one or two RTTs later.
        let time = self.latency_or_zero() * 2 + self.answer_time.unwrap_or_default();
        let path_bytes = self.rate.bytes_per_second() * time.as_secs_f64();
        let path_requests = path_bytes / chunk_bytes.max(1) as f64;
        waiting_max.max(path_requests.ceil() as u32).max(1)
    }

    /// Returns whether the peer is neither backing off nor quiet.
    pub(super) fn is_in_good_standing(&self) -> bool {
        self.stalls == 0 && self.refusals == 0
    }

    /// Returns whether any bytes of the peer were verified.
    pub(super) fn is_proven(&self) -> bool {
        self.verified_bytes > 0
    }

    /// Returns the bytes that the peer would send before the answer to a new request.
    pub(super) fn load(&self) -> u64 {
        self.outstanding_bytes.saturating_add(self.queue_bytes)
    }

    /// Records that the peer sent something; returns true if the peer had been quiet before.
    pub(super) fn handle_alive(&mut self, now: Instant) -> bool {
        let silence = now.saturating_duration_since(self.alive_at);
        self.longest_silence = self.longest_silence.max(silence);
        self.alive_at = now;
        std::mem::take(&mut self.is_quiet)
    }

    pub(super) fn handle_latency(&mut self, waited: Duration) {
        self.latency = Some(self.latency.map_or(waited, |latency| latency.min(waited)));
    }

    pub(super) fn handle_answer_time(&mut self, took: Duration) {
        self.answer_time = Some(self.answer_time.map_or(took, |time| (time * 7 + took) / 8));
    }

    pub(super) fn handle_withdrawal_latency(&mut self, waited: Duration) {
        self.withdrawal_latency = Some(
            self.withdrawal_latency
                .map_or(waited, |latency| (latency * 7 + waited) / 8),
        );
    }

    /// Returns the latency of this peer: the longer of those of its answers and of its withdrawals;
    /// zero until measured.
    pub(super) fn answer_latency(&self) -> Duration {
        self.latency_or_zero()
            .max(self.withdrawal_latency.unwrap_or_default())
    }

    fn latency_or_zero(&self) -> Duration {
        self.latency.unwrap_or_default()
    }
}

/// The delivery rate in bytes per second, measured while the peer had something to deliver: the
/// maximum over recent intervals, which decays slowly.
#[derive(Debug)]
pub(super) struct Rate {
    since: Instant,
    bytes: u64,
    bytes_per_second: f64,
}

impl Rate {
    fn new(now: Instant) -> Rate {
        Rate {
            since: now,
            bytes: 0,
            bytes_per_second: 0.0,
        }
    }

    /// Records that the peer had nothing to deliver until now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
    }

    pub(super) fn handle_bytes(&mut self, now: Instant, bytes: u64, latency: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        let interval = now.saturating_duration_since(self.since);
        if interval >= RATE_INTERVAL_MIN.max(latency) {
            let sample = self.bytes as f64 / interval.as_secs_f64();
            self.bytes_per_second = sample.max(self.bytes_per_second * 0.9);
            self.restart(now);
        }
    }

    pub(super) fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second
    }
}
