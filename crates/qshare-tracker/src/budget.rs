//! The request budget of a session.

use std::time::{Duration, Instant};

use qshare_net::TokenBucket;

use crate::TrackerLimits;

/// A token bucket that may be overdrawn by a whole burst.
#[derive(Debug)]
pub(crate) struct Budget {
    burst: f64,
    tokens: TokenBucket,
}

/// The decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request is served.
    Granted,
    /// The request is refused; after this time the budget has room for it.
    Busy(Duration),
    /// The node ignored refusals for a whole burst: the connection is closed.
    Flood,
}

impl Budget {
    pub(crate) fn new(limits: &TrackerLimits, now: Instant) -> Budget {
        let per_second = f64::from(limits.requests_per_second.max(1));
        let burst = f64::from(limits.requests_burst.max(1));
        Budget {
            burst,
            tokens: TokenBucket::new(now, per_second, burst),
        }
    }

    /// Charges a request. A refused one is charged, too: a node that keeps asking gets deeper in.
    pub(crate) fn request(&mut self, now: Instant, cost: f64) -> Verdict {
        let is_granted = self.tokens.available(now) >= cost.min(self.burst);
        self.tokens.charge(now, cost);
        if is_granted {
            Verdict::Granted
        } else if self.tokens.available(now) < -self.burst {
            Verdict::Flood
        } else {
            Verdict::Busy(self.tokens.wait_for(cost))
        }
    }

    /// Charges a request if it is granted; otherwise charges nothing and returns false.
    pub(crate) fn try_request(&mut self, now: Instant, cost: f64) -> bool {
        self.tokens.try_take(now, cost.min(self.burst))
    }

    /// Charges work that cannot be refused; returns the delay before the next.
    pub(crate) fn charge(&mut self, now: Instant, cost: f64) -> Duration {
        self.tokens.charge(now, cost);
        self.tokens.wait_for(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(now: Instant) -> Budget {
        let limits = TrackerLimits {
            requests_per_second: 10,
            requests_burst: 20,
            ..TrackerLimits::default()
        };
        Budget::new(&limits, now)
    }

    #[test]
    fn a_burst_is_granted_then_the_rate() {
        let mut now = Instant::now();
        let mut budget = budget(now);
        for _ in 0..20 {
            assert_eq!(budget.request(now, 1.0), Verdict::Granted);
        }
        let Verdict::Busy(wait) = budget.request(now, 1.0) else {
            panic!("the burst is over");
        };
        now += wait;
        assert_eq!(budget.request(now, 1.0), Verdict::Granted);
    }

    #[test]
    fn a_node_that_ignores_refusals_floods() {
        let now = Instant::now();
        let mut budget = budget(now);
        let verdicts: Vec<Verdict> = (0..41).map(|_| budget.request(now, 1.0)).collect();
        assert!(!verdicts[..40].contains(&Verdict::Flood));
        assert_eq!(verdicts[40], Verdict::Flood);
    }

    #[test]
    fn work_that_cannot_be_refused_is_delayed() {
        let now = Instant::now();
        let mut budget = budget(now);
        assert_eq!(budget.charge(now, 20.0), Duration::ZERO);
        assert_eq!(budget.charge(now, 10.0), Duration::from_secs(1));
    }
}
