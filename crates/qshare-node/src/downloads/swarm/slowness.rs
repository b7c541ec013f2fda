//! Why a download is not faster: the last seconds, attributed to causes.
//!
//! The download's task takes a sample at each tick. A sample says what each part of the download
//! was doing; it divides the time since the last one among the causes. The shares of the last
//! seconds sum to 100 %. Pure: the caller gives the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use qshare_wire::peer::Sending;

use crate::slow_cause::{Cause, CauseShare};

/// The time that is reported.
const WINDOW: Duration = Duration::from_secs(5);
/// Most samples within it.
const SAMPLES_MAX: usize = 128;
/// A connection delivers its receive window within an RTT if that is the limit. It counts as the
/// limit from this part of that rate on: the window is granted in steps of an eighth.
const WINDOW_USED: f64 = 0.7;

/// What a download was doing since the last sample.
#[derive(Debug, Default)]
pub(super) struct Sample<'a> {
    /// Whether a connected peer holds a missing chunk.
    pub(super) has_source: bool,
    /// Missing chunks that are not requested.
    pub(super) open_chunks: u32,
    /// The part of the time for which readers waited for a rate limit of this node, 0 to 1.
    pub(super) limited: f64,
    /// Bytes requested and not yet verified and written.
    pub(super) in_flight_bytes: u64,
    /// Those of them that arrived, and wait for hashing and the disk.
    pub(super) unwritten_bytes: u64,
    /// Time that threads spent hashing.
    pub(super) hashing: Duration,
    /// Time that threads spent writing and flushing.
    pub(super) writing: Duration,
    /// The peers with outstanding requests.
    pub(super) peers: &'a [PeerSample],
}

/// What a peer with outstanding requests is doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerSample {
    /// Bytes that it owes.
    pub(super) outstanding_bytes: u64,
    /// Whether it is answering any request.
    pub(super) is_answering: bool,
    pub(super) is_relayed: bool,
    pub(super) bytes_per_second: u64,
    pub(super) rtt: Duration,
    pub(super) window_bytes: u64,
    /// Bytes in its queue for all clients, as last advertised.
    pub(super) queue_bytes: u64,
    /// What it said of its sending.
    pub(super) sending: Sending,
}

type Weights = [f64; Cause::ALL.len()];

/// The attribution of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    last: Option<Instant>,
    /// The time of each sample, and the seconds of each cause.
    samples: VecDeque<(Instant, Weights)>,
}

impl Slowness {
    /// Attributes the time since the last sample.
    pub(super) fn add(&mut self, now: Instant, sample: &Sample<'_>) {
        let since = self.last.replace(now).unwrap_or(now);
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        if seconds > 0.0 {
            let mut weights = weigh(sample);
            weights.iter_mut().for_each(|weight| *weight *= seconds);
            self.samples.push_back((now, weights));
        }
        let is_old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while self.samples.front().is_some_and(|(at, _)| is_old(*at))
            || self.samples.len() > SAMPLES_MAX
        {
            self.samples.pop_front();
        }
    }

    /// Returns the shares of the last seconds in percent, largest first. They sum to 100; there are
    /// none before the first two samples.
    pub(super) fn shares(&self) -> Vec<CauseShare> {
        let mut sums: Weights = Default::default();
        for (_, weights) in &self.samples {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += weight;
            }
        }
        percentages(&sums)
    }

    /// Returns the seconds since the last sample.
    pub(super) fn since_last(&self, now: Instant) -> Duration {
        let since = self.last.unwrap_or(now);
        now.saturating_duration_since(since)
    }
}

/// Divides 1 among the causes.
fn weigh(sample: &Sample<'_>) -> Weights {
    let mut weights: Weights = Default::default();
    let mut add = |cause: Cause, weight: f64| weights[cause as usize] += weight;
    // Received data that waits for this machine comes before every other cause.
    let local = match sample.in_flight_bytes {
        0 => 0.0,
        all => (sample.unwritten_bytes as f64 / all as f64).min(1.0),
    };
    if local > 0.0 {
        let (hashing, writing) = (sample.hashing.as_secs_f64(), sample.writing.as_secs_f64());
        // A write that has not returned has not been counted: the disk is what takes unknown time.
        let of_hashing = match hashing + writing {
            0.0 => 0.0,
            both => hashing / both,
        };
        add(Cause::Hashing, local * of_hashing);
        add(Cause::Disk, local * (1.0 - of_hashing));
    }
    let limited = (1.0 - local) * sample.limited.clamp(0.0, 1.0);
    add(Cause::OwnLimit, limited);
    let rest = 1.0 - local - limited;
    let owed: u64 = sample.peers.iter().map(|peer| peer.outstanding_bytes).sum();
    if owed > 0 {
        for peer in sample.peers {
            let share = peer.outstanding_bytes as f64 / owed as f64;
            let queued = of_queue(peer);
            add(Cause::UploadQueues, rest * share * queued);
            add(of_peer(peer), rest * share * (1.0 - queued));
        }
    } else if !sample.has_source {
        add(Cause::WaitingForSources, rest);
    } else if sample.open_chunks > 0 {
        // Peers hold what is missing, and take no request now.
        add(Cause::UploadQueues, rest);
    } else {
        add(Cause::NothingToAsk, rest);
    }
    weights
}

/// Returns the part of a peer's time that its queue takes for others. The advertised length is late
/// and counts whole requests, so half as much as this node requested is not told from it.
fn of_queue(peer: &PeerSample) -> f64 {
    let own = peer
        .outstanding_bytes
        .saturating_add(peer.outstanding_bytes / 2);
    let others = peer.queue_bytes.saturating_sub(own);
    match peer.queue_bytes {
        0 => 0.0,
        all => others as f64 / all as f64,
    }
}

fn of_peer(peer: &PeerSample) -> Cause {
    if !peer.is_answering || peer.sending == Sending::Limited {
        return Cause::UploadQueues;
    }
    if peer.is_relayed {
        return Cause::Relay;
    }
    let in_flight = peer.bytes_per_second as f64 * peer.rtt.as_secs_f64();
    if peer.window_bytes > 0 && in_flight >= WINDOW_USED * peer.window_bytes as f64 {
        return Cause::FlowControl;
    }
    match peer.sending {
        Sending::Losing => Cause::LossRecovery,
        _ => Cause::CongestionWindow,
    }
}

/// Rounds to whole percents that sum to 100: those with the largest remainders are rounded up.
fn percentages(sums: &Weights) -> Vec<CauseShare> {
    let total: f64 = sums.iter().sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let exact = sums.map(|sum| sum * 100.0 / total);
    let mut whole = exact.map(|share| share.floor() as u8);
    let missing = 100
        - whole
            .iter()
            .map(|&share| u32::from(share))
            .sum::<u32>()
            .min(100);
    let mut by_remainder: Vec<usize> = (0..exact.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    for &at in by_remainder.iter().take(missing as usize) {
        whole[at] += 1;
    }
    let mut shares: Vec<CauseShare> = Cause::ALL
        .iter()
        .zip(whole)
        .filter(|(_, percent)| *percent > 0)
        .map(|(&cause, percent)| CauseShare { cause, percent })
        .collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.percent));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn peer() -> PeerSample {
        PeerSample {
            outstanding_bytes: 1 << 20,
            is_answering: true,
            is_relayed: false,
            bytes_per_second: 1_000_000,
            rtt: 10 * MS,
            window_bytes: 32 << 20,
            queue_bytes: 1 << 20,
            sending: Sending::Unknown,
        }
    }

    fn busy(peers: &[PeerSample]) -> Sample<'_> {
        Sample {
            has_source: true,
            in_flight_bytes: 1 << 20,
            peers,
            ..Sample::default()
        }
    }

    /// Repeats a sample for this long and returns the shares.
    fn after(
        slowness: &mut Slowness,
        from: Instant,
        time: Duration,
        sample: &Sample<'_>,
    ) -> Instant {
        let mut now = from;
        while now < from + time {
            now += 100 * MS;
            slowness.add(now, sample);
        }
        now
    }

    fn by_cause(slowness: &Slowness) -> Vec<(Cause, u8)> {
        let shares = slowness.shares();
        shares.iter().map(|s| (s.cause, s.percent)).collect()
    }

    fn only(sample: &Sample<'_>) -> Cause {
        let mut slowness = Slowness::default();
        after(&mut slowness, Instant::now(), 1000 * MS, sample);
        let shares = slowness.shares();
        assert_eq!(shares.len(), 1, "{shares:?}");
        assert_eq!(shares[0].percent, 100);
        shares[0].cause
    }

    #[test]
    fn what_a_peer_does_names_the_cause() {
        assert_eq!(only(&busy(&[peer()])), Cause::CongestionWindow);
        let waiting = PeerSample {
            is_answering: false,
            ..peer()
        };
        assert_eq!(only(&busy(&[waiting])), Cause::UploadQueues);
        let limited = PeerSample {
            sending: Sending::Limited,
            ..peer()
        };
        assert_eq!(only(&busy(&[limited])), Cause::UploadQueues);
        let relayed = PeerSample {
            is_relayed: true,
            ..peer()
        };
        assert_eq!(only(&busy(&[relayed])), Cause::Relay);
        let losing = PeerSample {
            sending: Sending::Losing,
            ..peer()
        };
        assert_eq!(only(&busy(&[losing])), Cause::LossRecovery);
        let blocked = PeerSample {
            window_bytes: 12_000,
            ..peer()
        };
        assert_eq!(only(&busy(&[blocked])), Cause::FlowControl);
    }

    #[test]
    fn a_queue_of_others_takes_their_part_of_the_time() {
        let crowded = PeerSample {
            queue_bytes: 15 << 20,
            ..peer()
        };
        let mut slowness = Slowness::default();
        after(&mut slowness, Instant::now(), 1000 * MS, &busy(&[crowded]));
        assert_eq!(
            by_cause(&slowness),
            [(Cause::UploadQueues, 90), (Cause::CongestionWindow, 10)]
        );
    }

    #[test]
    fn without_requests_sources_or_chunks_are_missing() {
        assert_eq!(only(&Sample::default()), Cause::WaitingForSources);
        let has_source = true;
        let nothing = Sample {
            has_source,
            ..Sample::default()
        };
        assert_eq!(only(&nothing), Cause::NothingToAsk);
        let backing_off = Sample {
            has_source,
            open_chunks: 3,
            ..Sample::default()
        };
        assert_eq!(only(&backing_off), Cause::UploadQueues);
    }

    #[test]
    fn data_that_arrived_waits_for_this_machine() {
        let peers = [peer()];
        let mut sample = Sample {
            unwritten_bytes: 1 << 20,
            ..busy(&peers)
        };
        assert_eq!(only(&sample), Cause::Disk);
        sample.hashing = 100 * MS;
        assert_eq!(only(&sample), Cause::Hashing);
        sample.writing = 300 * MS;
        let mut slowness = Slowness::default();
        after(&mut slowness, Instant::now(), 1000 * MS, &sample);
        assert_eq!(
            by_cause(&slowness),
            [(Cause::Disk, 75), (Cause::Hashing, 25)]
        );
    }

    #[test]
    fn the_own_limit_takes_the_time_for_which_readers_waited() {
        let peers = [peer()];
        let sample = Sample {
            limited: 0.9,
            ..busy(&peers)
        };
        let mut slowness = Slowness::default();
        after(&mut slowness, Instant::now(), 1000 * MS, &sample);
        assert_eq!(
            by_cause(&slowness),
            [(Cause::OwnLimit, 90), (Cause::CongestionWindow, 10)]
        );
    }

    #[test]
    fn shares_sum_to_100_and_the_past_is_forgotten() {
        let mut slowness = Slowness::default();
        assert!(slowness.shares().is_empty());
        let one = [peer()];
        let three = [
            peer(),
            PeerSample {
                is_relayed: true,
                ..peer()
            },
            PeerSample {
                is_answering: false,
                ..peer()
            },
        ];
        let now = after(&mut slowness, Instant::now(), 3000 * MS, &busy(&three));
        let percents = |slowness: &Slowness| -> Vec<u8> {
            slowness
                .shares()
                .iter()
                .map(|share| share.percent)
                .collect()
        };
        assert_eq!(percents(&slowness), [34, 33, 33]);
        let now = after(&mut slowness, now, 2000 * MS, &busy(&one));
        assert_eq!(
            percents(&slowness)
                .iter()
                .map(|&p| u32::from(p))
                .sum::<u32>(),
            100
        );
        after(&mut slowness, now, 6000 * MS, &busy(&one));
        assert_eq!(percents(&slowness), [100]);
        assert!(slowness.samples.len() <= SAMPLES_MAX);
    }
}
