//! What there is to hope for, and what the owner is told of it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::super::whole::no_source;
use super::Swarm;
use crate::error::DownloadError;
use crate::report::PeerView;

impl Swarm<'_> {
    /// Gives up when there was nobody to fetch from for too long.
    pub(super) fn check_patience(&mut self) -> Result<(), DownloadError> {
        let hope = match &self.fetch {
            None => !self.peers.is_empty(),
            Some(fetch) => {
                let status = fetch.status();
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

    pub(super) fn publish(&mut self) {
        let Some(fetch) = &self.fetch else { return };
        let status = fetch.status();
        let rate = self.meter.sample(Instant::now(), status.received_bytes);
        let left = self.chunks.length().saturating_sub(status.verified_bytes);
        let sources = status
            .peers
            .iter()
            .filter(|peer| peer.dropped.is_none() && peer.chunks > 0);
        let sources = sources.count() as u32;
        let views = status.peers.iter().filter_map(|peer| {
            let connected = self.peers.get(&peer.peer)?;
            Some(PeerView {
                node: connected.peer.node,
                address: connected.peer.address(),
                path: connected.peer.path(),
                chunks: peer.chunks,
                outstanding_bytes: peer.outstanding_bytes,
                bytes_per_second: peer.rate_bytes_per_second,
                received_bytes: peer.received_bytes,
                dropped: peer
                    .dropped
                    .map(|reason| format!("{reason:?}").to_lowercase()),
            })
        });
        let views: Vec<PeerView> = views.collect();
        *self
            .shared
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = views;
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
}
