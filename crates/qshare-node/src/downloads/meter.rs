//! The rate of a download, and what each source contributed.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use qshare_content::NodeId;

use crate::peers::Peer;
use crate::vocabulary::{PathKind, Source};

/// The reported rate is the mean over this period.
const RATE_WINDOW: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Meter {
    samples: VecDeque<(Instant, u64)>,
    sources: HashMap<(NodeId, PathKind), Source>,
}

impl Meter {
    /// Records how many bytes had been received by `now`, and returns the rate in bytes per second.
    pub(super) fn sample(&mut self, now: Instant, received_bytes: u64) -> u64 {
        self.samples.push_back((now, received_bytes));
        while self.samples.len() > 2
            && self
                .samples
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else {
            return 0;
        };
        let seconds = now.duration_since(*since).as_secs_f64();
        if seconds < 0.05 {
            return 0;
        }
        (received_bytes.saturating_sub(*before) as f64 / seconds) as u64
    }

    /// Records verified bytes that came from `peer`, and the number of chunks that they completed.
    pub(super) fn credit(&mut self, peer: &Peer, bytes: u64, chunks: u32) {
        let (path, address) = (peer.path(), peer.address());
        let source = self
            .sources
            .entry((peer.node, path))
            .or_insert_with(|| Source {
                node: peer.node,
                address,
                path,
                bytes: 0,
                chunks: 0,
            });
        source.address = address;
        source.bytes += bytes;
        source.chunks += chunks;
    }

    /// Returns the verified bytes and chunks that came from a node, over all paths.
    pub(super) fn of(&self, node: &NodeId) -> (u64, u32) {
        let paths = [PathKind::Direct, PathKind::Lan, PathKind::Relay];
        let sources = paths
            .iter()
            .filter_map(|&path| self.sources.get(&(*node, path)));
        sources.fold((0, 0), |(bytes, chunks), source| {
            (bytes + source.bytes, chunks + source.chunks)
        })
    }

    /// Returns the sources, the largest contribution first.
    pub(super) fn into_sources(self) -> Vec<Source> {
        let mut sources: Vec<Source> = self.sources.into_values().collect();
        sources.sort_by_key(|source| (std::cmp::Reverse(source.bytes), source.node));
        sources
    }
}
