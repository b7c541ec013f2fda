//! A token bucket: a rate limit with a burst.

use std::time::{Duration, Instant};

/// Tokens that come back at a constant rate, up to a burst.
///
/// The bucket reads no clock: each call takes the time. A time before that of an earlier call
/// counts as that earlier time.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    /// At most `burst`; below zero after [`TokenBucket::charge`] overdrew the bucket.
    tokens: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    /// A full bucket that holds `burst` tokens and gains `per_second`.
    pub fn new(now: Instant, per_second: f64, burst: f64) -> TokenBucket {
        TokenBucket {
            per_second,
            burst,
            tokens: burst,
            refilled_at: now,
        }
    }

    /// Takes `tokens` if the bucket holds them; otherwise takes nothing and returns false.
    pub fn try_take(&mut self, now: Instant, tokens: f64) -> bool {
        let granted = self.available(now) >= tokens;
        if granted {
            self.tokens -= tokens;
        }
        granted
    }

    /// Takes `tokens` whether the bucket holds them or not.
    pub fn charge(&mut self, now: Instant, tokens: f64) {
        self.tokens = self.available(now) - tokens;
    }

    /// Returns how many tokens the bucket holds now; negative while it is overdrawn.
    pub fn available(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.refilled_at);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        self.refilled_at = self.refilled_at.max(now);
        self.tokens
    }

    /// Whether the bucket is full now, as if it had never been used.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.available(now) >= self.burst
    }

    /// Returns how long after the last call the bucket holds `tokens`; [`Duration::MAX`] where it
    /// never will.
    pub fn wait_for(&self, tokens: f64) -> Duration {
        let missing = (tokens - self.tokens).max(0.0);
        if missing == 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let mut now = Instant::now();
        let mut bucket = TokenBucket::new(now, 10.0, 20.0);
        assert!(bucket.try_take(now, 20.0));
        assert!(!bucket.try_take(now, 1.0));
        assert_eq!(bucket.wait_for(1.0), Duration::from_millis(100));
        now += Duration::from_millis(100);
        assert!(bucket.try_take(now, 1.0));
        assert!(!bucket.try_take(now, 1.0));
    }

    #[test]
    fn a_refused_request_takes_nothing() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now, 1.0, 5.0);
        assert!(!bucket.try_take(now, 6.0));
        assert_eq!(bucket.available(now), 5.0);
    }

    #[test]
    fn an_overdrawn_bucket_pays_back_first() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now, 10.0, 20.0);
        bucket.charge(now, 30.0);
        assert_eq!(bucket.wait_for(0.0), Duration::from_secs(1));
        assert!(!bucket.try_take(now + Duration::from_secs(1), 1.0));
        assert!(bucket.try_take(now + Duration::from_secs(2), 10.0));
    }

    #[test]
    fn tokens_beyond_the_burst_are_lost_and_time_does_not_run_backwards() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut bucket = TokenBucket::new(start, 1.0, 5.0);
        assert_eq!(bucket.available(later), 5.0);
        bucket.charge(later, 5.0);
        assert_eq!(bucket.available(start), 0.0);
        assert_eq!(bucket.available(later), 0.0);
        assert!(!bucket.is_full(later));
        assert!(bucket.is_full(later + Duration::from_secs(5)));
    }

    #[test]
    fn a_bucket_without_a_rate_never_refills() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(now, 0.0, 1.0);
        assert!(bucket.try_take(now, 1.0));
        assert_eq!(bucket.wait_for(1.0), Duration::MAX);
    }
}
