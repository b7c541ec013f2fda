//! What there is to hope for, and what the owner is told of it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use qshare_swarm::FetchStatus;
use tracing::info;

use super::super::single_chunk::no_source;
use super::Swarm;
use crate::error::DownloadError;
use crate::vocabulary::{PeerView, SwarmView};

/// How often a download's sources are logged, at the level that `-v` shows.
pub(super) const LOG_EVERY: Duration = Duration::from_secs(5);
/// How often what people may ask for is brought up to date; a look at forty peers costs more than
/// the rest of a tick.
const SHOW_EVERY: Duration = Duration::from_millis(500);

impl Swarm<'_> {
    /// Gives up when there was nobody to fetch from for too long.
    pub(super) fn check_patience(
        &mut self,
        status: Option<&FetchStatus>,
    ) -> Result<(), DownloadError> {
        let hope = match status {
            None => !self.peers.is_empty(),
            Some(status) => {
                let useful = status
                    .peers
                    .iter()
                    .any(|peer| peer.dropped.is_none() && peer.chunks > 0);
                (useful && status.unheld_chunks < status.chunks - status.verified_chunks)
                    || status.in_flight_bytes > 0
            }
        };
        if hope {
            self.last_hope = Instant::now();
            return Ok(());
        }
        let waited = self.last_hope.elapsed();
        match self.request.give_up_after {
            Some(patience) if waited >= patience => Err(no_source(self.request, &self.holders)),
            _ => Ok(()),
        }
    }

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
        self.shared.progress.send_modify(|progress| {
            progress.verified_bytes = status.verified_bytes;
            progress.bytes_per_second = rate;
            progress.time_left =
                (rate > 0).then(|| Duration::from_secs_f64(left as f64 / rate as f64));
            progress.sources = sources;
            progress.trouble = (waited > Duration::from_secs(2))
                .then(|| format!("nobody to fetch from{}", self.holders.describe_failures()));
        });
    }

    /// Keeps what people may want to see, and logs it now and then.
    fn show(&mut self, status: &FetchStatus, rate: u64) {
        let now = Instant::now();
        let peers = status.peers.iter().filter_map(|peer| {
            let connected = self.peers.get(&peer.peer)?;
            let again_at = peer.backing_off_until;
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
                dropped: peer
                    .dropped
                    .map(|reason| format!("{reason:?}").to_lowercase()),
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
        let swarm = &self.shared.swarm;
        *swarm.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }
}
