//! A rate limit that askers share fairly: introductions to one node.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_content::fair::{Claim, FairShares, User};
use qshare_net::TokenBucket;

/// A rate limit on events that askers request.
///
/// One asker may use the whole rate while no other asks. Otherwise the network that used most of
/// the last events yields: an asker that used less is served in excess of the rate, up to twice the
/// rate.
#[derive(Debug)]
pub(crate) struct FairRate {
    /// The counted events: those within the last `burst / per_second`.
    recent: FairShares<NodeId>,
    order: VecDeque<(Instant, User<NodeId>)>,
    window: Duration,
    /// Events that were granted in excess of the rate.
    beyond: TokenBucket,
}

impl FairRate {
    /// Allows `burst` events within `burst / per_second` seconds.
    pub(crate) fn new(now: Instant, per_second: f64, burst: u32) -> FairRate {
        FairRate {
            recent: FairShares::new(burst.into()),
            order: VecDeque::new(),
            window: Duration::from_secs_f64(f64::from(burst) / per_second),
            beyond: TokenBucket::new(now, per_second, burst.into()),
        }
    }

    /// Counts an event, and returns whether the asker may have it.
    pub(crate) fn try_take(&mut self, now: Instant, asker: User<NodeId>) -> bool {
        while let Some(&(at, user)) = self.order.front()
            && now.saturating_duration_since(at) >= self.window
        {
            self.order.pop_front();
            self.recent.release(user, 1);
        }
        match self.recent.claim(asker, 1) {
            Claim::Granted => {}
            Claim::Refused => return false,
            Claim::Yields(heavy) => {
                if !self.beyond.try_take(now, 1.0) {
                    return false;
                }
                let Some(at) = self.order.iter().position(|&(_, user)| user == heavy) else {
                    return false;
                };
                self.order.remove(at);
                self.recent.release(heavy, 1);
                self.recent.add(asker, 1);
            }
        }
        self.order.push_back((now, asker));
        true
    }
}

#[cfg(test)]
mod tests {
    use qshare_content::fair::Network;

    use super::*;

    fn asker(network: u8, n: u8) -> User<NodeId> {
        User {
            network: Network::of([203, 0, network, 1].into()),
            id: NodeId([n; 32]),
        }
    }

    fn taken(rate: &mut FairRate, now: Instant, network: u8, attempts: u8) -> usize {
        (0..attempts)
            .filter(|&n| rate.try_take(now, asker(network, n)))
            .count()
    }

    #[test]
    fn one_network_may_use_the_whole_rate_and_no_more() {
        let start = Instant::now();
        let mut rate = FairRate::new(start, 20.0, 100);
        assert_eq!(taken(&mut rate, start, 1, 200), 100);
        assert_eq!(
            taken(&mut rate, start + Duration::from_secs(5), 1, 200),
            100
        );
    }

    #[test]
    fn a_newcomer_is_served_although_another_network_used_everything() {
        let now = Instant::now();
        let mut rate = FairRate::new(now, 20.0, 100);
        assert_eq!(taken(&mut rate, now, 1, 200), 100);
        assert_eq!(taken(&mut rate, now, 2, 10), 10);
        assert_eq!(taken(&mut rate, now, 1, 200), 0);
        taken(&mut rate, now, 2, 200);
        for network in [1, 2] {
            let network = asker(network, 0).network;
            assert_eq!(rate.recent.used_by_network(network), 50, "half each");
        }
    }

    #[test]
    fn however_many_networks_ask_twice_the_rate_is_the_most() {
        let now = Instant::now();
        let mut rate = FairRate::new(now, 20.0, 100);
        let total: usize = (0..=255).map(|n| taken(&mut rate, now, n, 10)).sum();
        assert!(total <= 200, "{total}");
    }
}
