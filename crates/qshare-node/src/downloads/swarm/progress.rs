//! Tracks whether there is a source, and reports the progress to the owner.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use qshare_swarm::{Fetch, FetchStatus};
use tracing::info;

use super::Swarm;
use super::event::LOG_EVERY;
use super::slowness::{PeerSample, Sample};
use crate::error::{DownloadError, drop_reason};
use crate::vocabulary::{PathKind, PeerView, Stage, SwarmView};

/// Interval of status updates. Computing the status of forty peers costs more than the rest of a
/// tick.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// A content that had changed at a source, and has had no source for this long, is given up if no
/// other version is wanted.
const CHANGED_AFTER: Duration = Duration::from_secs(10);

/// A download without a source for this long is searching again, and reports the reason.
const TROUBLE_AFTER: Duration = Duration::from_secs(2);

/// Returns whether a connected peer holds a missing chunk.
fn has_source(status: &FetchStatus) -> bool {
    let useful = status
        .peers
        .iter()
        .any(|peer| peer.dropped.is_none() && peer.chunks > 0);
    useful && status.unheld_chunks < status.chunks - status.verified_chunks
}

impl Swarm<'_> {
    /// Gives up when there has been no source for too long. Withdraws the announcement after
    /// `Limits::withdraw_partial_after`.
    pub(super) fn check_patience(
        &mut self,
        status: Option<&FetchStatus>,
    ) -> Result<(), DownloadError> {
        let hope = match status {
            // Receivers without hashes do not help each other.
            None => self.hash_pages.has_source(self.peers.keys().copied()),
            // Other chunks do not help a reader.
            Some(status) if self.store.is_window() => {
                let fetch = self.fetch.as_ref();
                fetch.is_some_and(Fetch::focus_is_held) || status.in_flight_bytes > 0
            }
            Some(status) => has_source(status) || status.in_flight_bytes > 0,
        };
        if hope {
            self.last_hope = Instant::now();
            if status.is_some() {
                self.announce();
            }
            return Ok(());
        }
        let all_changed = self.peers.is_empty() && self.holders.all_changed();
        let waited = self.last_hope.elapsed();
        // A source that refuses as changed also leaves the swarm. Its refusal is remembered.
        let is_gone = waited >= CHANGED_AFTER && self.holders.any_changed();
        if (all_changed && self.request.is_private()) || (is_gone && self.request.is_pinned()) {
            let name = self.request.name.clone();
            return Err(DownloadError::Changed { name });
        }
        if waited >= TROUBLE_AFTER && status.is_some() {
            self.state.set_stage(Stage::Searching);
        }
        if waited >= self.all.limits.withdraw_partial_after {
            self.withdraw();
        }
        match self.request.give_up_after {
            Some(patience) if waited >= patience => Err(self.holders.no_source(&self.request.name)),
            _ => Ok(()),
        }
    }

    /// Attributes the time since the last call to what the download was doing.
    pub(super) fn attribute(&mut self, status: Option<&FetchStatus>) {
        let now = Instant::now();
        let Some(status) = status else {
            // The chunk hashes are not known yet.
            self.slowness.add(now, &Sample::default());
            let swarm = &self.state.swarm;
            swarm.lock().unwrap_or_else(PoisonError::into_inner).why = self.slowness.shares();
            return;
        };
        let peers = status.peers.iter().filter_map(|peer| {
            let connected = self.peers.get(&peer.peer)?;
            let connection = connected.peer.connection();
            (peer.outstanding_bytes > 0).then(|| PeerSample {
                outstanding_bytes: peer.outstanding_bytes,
                is_answering: peer.started > 0,
                is_relayed: connection.path == PathKind::Relay,
                bytes_per_second: peer.rate_bytes_per_second,
                rtt: connection.connection.rtt(),
                window_bytes: connection.window_bytes(),
                queue_bytes: peer.queue_bytes,
                sending: connected.sending,
            })
        });
        let peers: Vec<PeerSample> = peers.collect();
        let unwritten = self.running.values().filter(|running| running.received);
        let (hashing, writing) = self.work.take();
        let answering: u32 = status.peers.iter().map(|peer| peer.started).sum();
        let readers = self.slowness.since_last(now) * answering.max(1);
        let rates = &self.state.rates;
        let waited = rates.take_waited().as_secs_f64() / readers.as_secs_f64().max(1e-6);
        let waiting = match self.is_held_back && peers.is_empty() {
            true => 1.0,
            false => rates.paying() as f64 / f64::from(answering.max(1)),
        };
        let sample = Sample {
            has_source: has_source(status),
            open_chunks: status.open_chunks.saturating_sub(status.unheld_chunks),
            limited: waited.max(waiting),
            in_flight_bytes: status.in_flight_bytes,
            unwritten_bytes: unwritten
                .map(|running| running.span.size(&self.chunks))
                .sum(),
            hashing,
            writing,
            peers: &peers,
        };
        self.slowness.add(now, &sample);
    }

    /// Reports what is known before the chunk hashes are: whether there is a source.
    pub(super) fn publish_search(&self) {
        let waited = self.last_hope.elapsed();
        self.state
            .set_trouble((waited > TROUBLE_AFTER).then(|| self.holders.faults()));
    }

    /// Reports the progress.
    pub(super) fn publish(&mut self, status: &FetchStatus) {
        let now = Instant::now();
        let rate = self.meter.sample(now, status.received_bytes);
        let left = self.chunks.length().saturating_sub(status.verified_bytes);
        let sources = status
            .peers
            .iter()
            .filter(|peer| peer.dropped.is_none() && peer.chunks > 0);
        let sources = sources.count() as u32;
        if now >= self.show_at || status.verified_chunks == status.chunks {
            self.show_at = now + SHOW_EVERY;
            self.show(status, rate);
        }
        let waited = self.last_hope.elapsed();
        self.state.progress.send_modify(|progress| {
            progress.verified_bytes = status.verified_bytes;
            progress.bytes_per_second = rate;
            progress.time_left =
                (rate > 0).then(|| Duration::from_secs_f64(left as f64 / rate as f64));
            progress.sources = sources;
            progress.trouble = (waited > TROUBLE_AFTER).then(|| self.holders.faults());
        });
    }

    /// Updates the status, and logs it at intervals.
    fn show(&mut self, status: &FetchStatus, rate: u64) {
        let now = Instant::now();
        let peers = status.peers.iter().filter_map(|peer| {
            let connected = self.peers.get(&peer.peer)?;
            let again_at = peer.backing_off_until;
            let (verified_bytes, verified_chunks) = self.meter.of(&connected.peer.node);
            Some(PeerView {
                node: connected.peer.node,
                address: connected.peer.address(),
                path: connected.peer.path(),
                chunks: peer.chunks,
                wanted_chunks: peer.wanted_chunks,
                waiting: peer.waiting,
                answering: peer.started,
                queue_bytes: peer.queue_bytes,
                asked_again_in: again_at.map(|at| at.saturating_duration_since(now)),
                outstanding_bytes: peer.outstanding_bytes,
                bytes_per_second: peer.rate_bytes_per_second,
                received_bytes: peer.received_bytes,
                verified_bytes,
                verified_chunks,
                rtt: connected.peer.quic().rtt(),
                dropped: peer.dropped.as_ref().map(drop_reason),
            })
        });
        let view = SwarmView {
            chunks: status.chunks,
            verified_chunks: status.verified_chunks,
            open_chunks: status.open_chunks,
            unheld_chunks: status.unheld_chunks,
            in_flight_bytes: status.in_flight_bytes,
            received_bytes: status.received_bytes,
            wasted_bytes: status.wasted_bytes,
            possible_bytes_per_second: status.possible_bytes_per_second(),
            why: self.slowness.shares(),
            peers: peers.collect(),
        };
        if now >= self.log_at {
            self.log_at = now + LOG_EVERY;
            let (chunks, possible) = (view.chunks, view.possible_bytes_per_second);
            info!(
                verified = view.verified_chunks,
                chunks,
                open = view.open_chunks,
                unheld = view.unheld_chunks,
                wasted_bytes = view.wasted_bytes,
                bytes_per_second = rate,
                possible_bytes_per_second = possible,
                "swarm"
            );
            for peer in &view.peers {
                info!(
                    peer = %peer.node.short(), address = %peer.address,
                    bytes_per_second = peer.bytes_per_second, wanted = peer.wanted_chunks,
                    waiting = peer.waiting, answering = peer.answering,
                    queue_bytes = peer.queue_bytes, "source"
                );
            }
        }
        let swarm = &self.state.swarm;
        *swarm.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}
