//! Rate limits by network.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::TokenBucket;
use qshare_content::fair::Network;

/// Limit on the networks that are counted.
const NETWORKS_MAX: usize = 4_096;

/// A rate limit on events that nodes cause, for each network ([`Network`]) on its own. Identities
/// are free, so they are not counted.
#[derive(Debug)]
pub struct NetworkRates {
    burst: f64,
    per_second: f64,
    buckets: HashMap<Network, TokenBucket>,
}

impl NetworkRates {
    /// Allows each network `burst` events at once, and `per_second` in the long run.
    pub fn new(per_second: f64, burst: f64) -> NetworkRates {
        NetworkRates {
            burst,
            per_second,
            buckets: HashMap::new(),
        }
    }

    /// Counts an event.
    ///
    /// # Errors
    ///
    /// The time after which the network may cause another one. While 4,096 networks have not got
    /// their whole allowance back, further networks have to wait.
    pub fn try_take(&mut self, now: Instant, network: Network) -> Result<(), Duration> {
        if self.buckets.len() >= NETWORKS_MAX && !self.buckets.contains_key(&network) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= NETWORKS_MAX {
                return Err(Duration::from_secs_f64(1.0 / self.per_second));
            }
        }
        let bucket = self
            .buckets
            .entry(network)
            .or_insert_with(|| TokenBucket::new(now, self.per_second, self.burst));
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
        let (mut rates, now) = (NetworkRates::new(0.5, 40.0), Instant::now());
        let taken = (0..100).filter(|_| rates.try_take(now, network(1)).is_ok());
        assert_eq!(taken.count(), 40);
        let wait = rates.try_take(now, network(1)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(2));
        assert!(rates.try_take(now + wait, network(1)).is_ok());
        assert!(rates.try_take(now, network(2)).is_ok());
    }

    #[test]
    fn the_networks_that_are_counted_are_bounded() {
        let (mut rates, now) = (NetworkRates::new(0.5, 40.0), Instant::now());
        for number in 0..2 * NETWORKS_MAX as u32 {
            let _ = rates.try_take(now, network(number));
        }
        assert_eq!(rates.buckets.len(), NETWORKS_MAX);
        let later = now + Duration::from_secs(2);
        assert!(rates.try_take(later, network(1 << 20)).is_ok());
    }
}
