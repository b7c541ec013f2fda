//! How many requests a session may make.

use std::time::{Duration, Instant};

use crate::TrackerLimits;

/// A token bucket that remembers by how much it was overdrawn.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: f64,
    burst: f64,
    /// Between minus `burst` and `burst`.
    tokens: f64,
    at: Instant,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is served.
    Granted,
    /// It is refused; this much later there is room again.
    Busy(Duration),
    /// Refusals were ignored for a whole burst: the connection is closed.
    Flood,
}

impl Budget {
    pub(crate) fn new(limits: &TrackerLimits, now: Instant) -> Budget {
        Budget {
            per_second: f64::from(limits.requests_per_second.max(1)),
            burst: f64::from(limits.requests_burst.max(1)),
            tokens: f64::from(limits.requests_burst.max(1)),
            at: now,
        }
    }

    /// Charges a request. A refused one is charged, too: who asks on regardless gets deeper in.
    pub(crate) fn request(&mut self, now: Instant, cost: f64) -> Verdict {
        self.refill(now);
        let granted = self.tokens >= cost.min(self.burst);
        self.tokens -= cost;
        if granted {
            Verdict::Granted
        } else if self.tokens < -self.burst {
            Verdict::Flood
        } else {
            Verdict::Busy(self.until(cost))
        }
    }

    /// Charges what cannot be refused; returns how long to wait before going on.
    pub(crate) fn charge(&mut self, now: Instant, cost: f64) -> Duration {
        self.refill(now);
        self.tokens -= cost;
        self.until(0.0)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = now;
    }

    fn until(&self, tokens: f64) -> Duration {
        Duration::from_secs_f64(((tokens - self.tokens) / self.per_second).max(0.0))
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
    fn who_ignores_refusals_floods() {
        let now = Instant::now();
        let mut budget = budget(now);
        let verdicts: Vec<Verdict> = (0..41).map(|_| budget.request(now, 1.0)).collect();
        assert!(!verdicts[..40].contains(&Verdict::Flood));
        assert_eq!(verdicts[40], Verdict::Flood);
    }

    #[test]
    fn what_cannot_be_refused_is_slowed_down() {
        let now = Instant::now();
        let mut budget = budget(now);
        assert_eq!(budget.charge(now, 20.0), Duration::ZERO);
        assert_eq!(budget.charge(now, 10.0), Duration::from_secs(1));
    }
}
