//! The participants of a crowd, and the bound on its time.

use std::path::PathBuf;
use std::time::Duration;

use qshare_tests::lab::{HostPlan, Link, Rate};

/// What differs from equal nodes that all arrive at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Equal,
    /// The nodes arrive at this interval.
    Staggered(Duration),
    /// One node is killed at half of the bound.
    KillOne,
    /// The fastest uplink has ten times the rate of the slowest; the others lie evenly between them
    /// on a logarithmic scale.
    UnequalUplinks,
    /// The seed's uplink has a quarter of the others' rate.
    SlowSeed,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Shape::Equal => "equal",
            Shape::Staggered(_) => "staggered",
            Shape::KillOne => "kill one",
            Shape::UnequalUplinks => "unequal uplinks",
            Shape::SlowSeed => "slow seed",
        })
    }
}

/// One crowd.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) shape: Shape,
    pub(crate) leechers: usize,
    pub(crate) rate: Rate,
    pub(crate) file_bytes: u64,
    pub(crate) delay: Duration,
    pub(crate) queue: Duration,
    pub(crate) bundle_packets: u32,
    /// What the seed has.
    pub(crate) file: PathBuf,
    /// Where everything else is put.
    pub(crate) scratch: PathBuf,
    pub(crate) logs: Option<PathBuf>,
}

/// The host of the tracker, whose link is not shaped: nothing of the file passes there.
pub(crate) const TRACKER: &str = "tracker";
pub(crate) const SEED: &str = "seed";

impl Crowd {
    pub(crate) fn name(leecher: usize) -> String {
        format!("l{}", leecher + 1)
    }

    /// All hosts.
    pub(crate) fn plans(&self) -> Vec<HostPlan> {
        let link = |up: Rate| Link {
            up: Some(up),
            down: Some(self.rate),
            queue: self.queue,
            delay: self.delay,
            bundle_packets: Some(self.bundle_packets),
            ..Link::default()
        };
        let tracker = HostPlan::new(TRACKER).link(Link {
            delay: self.delay,
            ..Link::default()
        });
        let seed = HostPlan::new(SEED).link(link(self.seed_uplink()));
        let leecher = |at| HostPlan::new(Crowd::name(at)).link(link(self.uplink(at)));
        let leechers = (0..self.leechers).map(leecher);
        [tracker, seed].into_iter().chain(leechers).collect()
    }

    /// When a leecher arrives.
    pub(crate) fn arrival(&self, leecher: usize) -> Duration {
        match self.shape {
            Shape::Staggered(between) => between * u32::try_from(leecher).unwrap_or(u32::MAX),
            _ => Duration::ZERO,
        }
    }

    /// Who is killed, and when.
    pub(crate) fn killed(&self) -> Option<(usize, Duration)> {
        (self.shape == Shape::KillOne).then(|| (self.leechers / 2, self.bound() / 2))
    }

    /// How many are to finish.
    pub(crate) fn wanted(&self) -> usize {
        self.leechers - usize::from(self.shape == Shape::KillOne)
    }

    /// Returns the time before which no system can serve the last leecher.
    pub(crate) fn bound(&self) -> Duration {
        let file = self.file_bytes as f64;
        let bytes = |rate: Rate| rate.bytes_per_second() as f64;
        let killed = (self.shape == Shape::KillOne).then_some(self.leechers / 2);
        let uplinks = (0..self.leechers)
            .filter(|at| Some(*at) != killed)
            .map(|at| bytes(self.uplink(at)))
            .sum::<f64>();
        let seed = bytes(self.seed_uplink());
        let last = self.arrival(self.leechers.saturating_sub(1)).as_secs_f64();
        let seconds = (file / seed)
            .max(last + file / bytes(self.rate))
            .max(self.wanted() as f64 * file / (seed + uplinks));
        Duration::from_secs_f64(seconds)
    }

    fn seed_uplink(&self) -> Rate {
        match self.shape {
            Shape::SlowSeed => scaled(self.rate, 0.25),
            _ => self.rate,
        }
    }

    fn uplink(&self, leecher: usize) -> Rate {
        let others = self.leechers.saturating_sub(1).max(1) as f64;
        match self.shape {
            Shape::UnequalUplinks => scaled(self.rate, 10f64.powf(leecher as f64 / others - 1.0)),
            _ => self.rate,
        }
    }
}

fn scaled(rate: Rate, by: f64) -> Rate {
    Rate::from_bits_per_second((rate.bits_per_second() as f64 * by) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(shape: Shape) -> Crowd {
        Crowd {
            shape,
            leechers: 8,
            rate: Rate::from_bits_per_second(100_000_000),
            file_bytes: 64 << 20,
            delay: Duration::ZERO,
            queue: Duration::ZERO,
            bundle_packets: 1,
            file: PathBuf::new(),
            scratch: PathBuf::new(),
            logs: None,
        }
    }

    #[test]
    fn the_bound_of_equal_links_is_the_file_over_the_rate() {
        let one_file = 64.0 * 1024.0 * 1024.0 / 12.5e6;
        let seconds = |shape| crowd(shape).bound().as_secs_f64();
        assert!((seconds(Shape::Equal) - one_file).abs() < 1e-6);
        assert!((seconds(Shape::SlowSeed) - 4.0 * one_file).abs() < 1e-6);
        let late = Shape::Staggered(Duration::from_secs(1));
        assert!((seconds(late) - 7.0 - one_file).abs() < 1e-6);
    }

    #[test]
    fn unequal_uplinks_are_ten_times_apart() {
        let crowd = crowd(Shape::UnequalUplinks);
        assert_eq!(crowd.uplink(0).bits_per_second(), 10_000_000);
        assert_eq!(crowd.uplink(7).bits_per_second(), 100_000_000);
    }
}
