//! The progress of a folder, from that of its files.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use qshare_content::NodeId;

use super::super::fetch::FolderFetch;
use crate::downloads::RunningFolder;
use crate::slow_cause::{Cause, CauseShare};
use crate::vocabulary::{FileCounts, PeerView, Progress, Report, Source, Stage, SwarmView};

/// The rate is the mean over this period.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// What the files of a folder have received.
#[derive(Default)]
pub(super) struct Tally {
    /// By node, from files that are there.
    sources: HashMap<NodeId, Source>,
    /// Payload bytes received, all files together.
    samples: VecDeque<(Instant, u64)>,
}

impl Tally {
    /// Adds a file that is there.
    pub(super) fn add(&mut self, report: &Report) {
        for source in &report.sources {
            let known = self.sources.entry(source.node);
            known
                .and_modify(|known| {
                    known.bytes += source.bytes;
                    known.chunks += source.chunks;
                    (known.address, known.path) = (source.address, source.path);
                })
                .or_insert_with(|| source.clone());
        }
    }

    /// Returns the sources, the largest contribution first.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = self.sources.values().cloned().collect();
        sources.sort_by_key(|source| (std::cmp::Reverse(source.bytes), source.node));
        sources
    }

    /// Reports the progress.
    pub(super) fn report(&mut self, running: &RunningFolder, fetch: &FolderFetch) {
        let (files, bytes) = fetch.expected();
        let totals = fetch.totals();
        let mut view = self.view();
        let mut progress = Progress {
            stage: Stage::Queued,
            total_bytes: bytes,
            verified_bytes: totals.bytes,
            reused_bytes: totals.reused_bytes,
            files: Some(FileCounts {
                total: files,
                complete: totals.files,
            }),
            ..Progress::default()
        };
        let mut received_bytes = totals.received_bytes;
        let mut causes: BTreeMap<usize, u64> = BTreeMap::new();
        let mut trouble = None;
        for download in fetch.running() {
            let one = download.progress();
            progress.stage = later(progress.stage, one.stage);
            trouble = trouble.or(one.trouble);
            if one.stage == Stage::Queued {
                continue;
            }
            progress.verified_bytes += one.verified_bytes;
            progress.reused_bytes += one.reused_bytes;
            let part = download.part_view();
            received_bytes += part.received_bytes;
            add_view(&mut view, part, &mut causes);
        }
        let now = Instant::now();
        progress.bytes_per_second = self.rate(now, received_bytes);
        // A few files without a source do not hold up the others.
        progress.trouble = trouble.filter(|_| progress.bytes_per_second == 0);
        let left = bytes.saturating_sub(progress.verified_bytes);
        let rate = progress.bytes_per_second;
        progress.time_left = (rate > 0).then(|| Duration::from_secs_f64(left as f64 / rate as f64));
        progress.sources = u32::try_from(fetch.receiver().holders()).unwrap_or(u32::MAX);
        view.chunks = u32::try_from(files).unwrap_or(u32::MAX);
        view.verified_chunks = u32::try_from(totals.files).unwrap_or(u32::MAX);
        view.received_bytes = received_bytes;
        view.wasted_bytes += totals.wasted_bytes;
        view.why = shares_of(&causes);
        running.report(progress, view, Some(fetch.present()));
    }

    /// Returns the sources of the files that are there as peers.
    fn view(&self) -> SwarmView {
        let peers = self.sources.values().map(|source| PeerView {
            node: source.node,
            address: source.address,
            path: source.path,
            chunks: 0,
            wanted_chunks: 0,
            waiting: 0,
            answering: 0,
            queue_bytes: 0,
            asked_again_in: None,
            outstanding_bytes: 0,
            bytes_per_second: 0,
            received_bytes: source.bytes,
            verified_bytes: source.bytes,
            verified_chunks: source.chunks,
            rtt: Duration::ZERO,
            dropped: None,
        });
        SwarmView {
            peers: peers.collect(),
            ..SwarmView::default()
        }
    }

    fn rate(&mut self, now: Instant, received_bytes: u64) -> u64 {
        self.samples.push_back((now, received_bytes));
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= RATE_WINDOW;
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else {
            return 0;
        };
        let seconds = now.duration_since(*since).as_secs_f64();
        match seconds < 0.05 {
            true => 0,
            false => (received_bytes.saturating_sub(*before) as f64 / seconds) as u64,
        }
    }
}

/// Returns the stage of a folder of which files are in both stages.
fn later(one: Stage, other: Stage) -> Stage {
    let rank = |stage| match stage {
        Stage::Fetching => 5,
        Stage::Recovering => 4,
        Stage::Searching => 3,
        Stage::Finishing | Stage::Complete => 2,
        Stage::Queued => 1,
        Stage::Stopped => 0,
    };
    match rank(other) > rank(one) {
        true if other == Stage::Complete => Stage::Finishing,
        true => other,
        false => one,
    }
}

/// Adds the swarm of a file.
fn add_view(view: &mut SwarmView, part: SwarmView, causes: &mut BTreeMap<usize, u64>) {
    view.in_flight_bytes += part.in_flight_bytes;
    view.wasted_bytes += part.wasted_bytes;
    view.possible_bytes_per_second = view
        .possible_bytes_per_second
        .max(part.possible_bytes_per_second);
    for share in part.why {
        let at = Cause::ALL.iter().position(|cause| *cause == share.cause);
        if let Some(at) = at {
            *causes.entry(at).or_default() += u64::from(share.percent);
        }
    }
    for peer in part.peers {
        match view.peers.iter_mut().find(|known| known.node == peer.node) {
            None => view.peers.push(peer),
            Some(known) => {
                known.address = peer.address;
                known.path = peer.path;
                known.chunks = known.chunks.saturating_add(peer.chunks);
                known.wanted_chunks = known.wanted_chunks.saturating_add(peer.wanted_chunks);
                known.waiting = known.waiting.saturating_add(peer.waiting);
                known.answering = known.answering.saturating_add(peer.answering);
                known.queue_bytes = known.queue_bytes.max(peer.queue_bytes);
                known.outstanding_bytes += peer.outstanding_bytes;
                known.bytes_per_second = known.bytes_per_second.max(peer.bytes_per_second);
                known.received_bytes += peer.received_bytes;
                known.verified_bytes += peer.verified_bytes;
                known.verified_chunks = known.verified_chunks.saturating_add(peer.verified_chunks);
                known.rtt = peer.rtt;
                known.asked_again_in = peer.asked_again_in;
                known.dropped = peer.dropped;
            }
        }
    }
}

/// Returns the mean of the files' causes; the percentages sum to 100.
fn shares_of(causes: &BTreeMap<usize, u64>) -> Vec<CauseShare> {
    let sum: u64 = causes.values().sum();
    if sum == 0 {
        return Vec::new();
    }
    let share = |(&at, &part): (&usize, &u64)| {
        let cause = *Cause::ALL.get(at)?;
        let percent = u8::try_from(part * 100 / sum).unwrap_or(100);
        Some(CauseShare { cause, percent })
    };
    let mut shares: Vec<CauseShare> = causes.iter().filter_map(share).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.percent));
    let rounded: u8 = shares.iter().map(|share| share.percent).sum();
    if let Some(largest) = shares.first_mut() {
        largest.percent += 100 - rounded;
    }
    shares.retain(|share| share.percent > 0);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_files_sum_to_a_hundred() {
        let causes = BTreeMap::from([(0, 100), (2, 51), (3, 49)]);
        let shares = shares_of(&causes);
        let sum: u32 = shares.iter().map(|share| u32::from(share.percent)).sum();
        assert_eq!((sum, shares[0].cause), (100, Cause::ALL[0]));
        assert!(shares_of(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_folder_fetches_as_long_as_one_of_its_files_does() {
        let stages = [Stage::Finishing, Stage::Fetching, Stage::Searching];
        let all = stages.into_iter().fold(Stage::Queued, later);
        assert_eq!(all, Stage::Fetching);
        assert_eq!(later(Stage::Queued, Stage::Complete), Stage::Finishing);
    }
}
