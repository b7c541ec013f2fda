//! How many runs the nodes of one network may begin.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use qshare_content::fair::Network;
use qshare_net::TokenBucket;

/// Runs that one network may begin at once, and in the long run: more than a class of people types,
/// and few enough that a network cannot use up the guesses of many codes.
const RUNS_BURST: f64 = 40.0;
const RUNS_PER_SECOND: f64 = 0.5;
/// Limit on the networks whose runs are counted.
const NETWORKS_MAX: usize = 4_096;

/// The allowances of all networks.
#[derive(Debug, Default)]
pub(super) struct RunRates {
    buckets: HashMap<Network, TokenBucket>,
}

impl RunRates {
    /// Counts a run.
    ///
    /// # Errors
    ///
    /// The time after which the network may begin another one.
    pub(super) fn try_take(&mut self, now: Instant, network: Network) -> Result<(), Duration> {
        if self.buckets.len() >= NETWORKS_MAX && !self.buckets.contains_key(&network) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= NETWORKS_MAX {
                return Err(Duration::from_secs_f64(1.0 / RUNS_PER_SECOND));
            }
        }
        let bucket = self
            .buckets
            .entry(network)
            .or_insert_with(|| TokenBucket::new(now, RUNS_PER_SECOND, RUNS_BURST));
        match bucket.try_take(now, 1.0) {
            true => Ok(()),
            false => Err(bucket.wait_for(1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Network {
        let [_, a, b, c] = number.to_be_bytes();
        Network::V4([a, b, c])
    }

    #[test]
    fn a_network_that_guesses_waits_and_others_do_not() {
        let (mut rates, now) = (RunRates::default(), Instant::now());
        let taken = (0..100).filter(|_| rates.try_take(now, network(1)).is_ok());
        assert_eq!(taken.count(), RUNS_BURST as usize);
        let wait = rates.try_take(now, network(1)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(2));
        assert!(rates.try_take(now + wait, network(1)).is_ok());
        assert!(rates.try_take(now, network(2)).is_ok());
    }

    #[test]
    fn the_networks_that_are_counted_are_bounded() {
        let (mut rates, now) = (RunRates::default(), Instant::now());
        for number in 0..2 * NETWORKS_MAX as u32 {
            let _ = rates.try_take(now, network(number));
        }
        assert_eq!(rates.buckets.len(), NETWORKS_MAX);
        let later = now + Duration::from_secs(2);
        assert!(rates.try_take(later, network(1 << 20)).is_ok());
    }
}
