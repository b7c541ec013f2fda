//! The knocks that await an answer, without the socket.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Instant;

use qshare_net::TokenBucket;
use tokio::sync::oneshot;

/// Knocks that await an answer, all sessions together.
const PENDING_MAX: usize = 512;
/// Knocks that begin in a second, all sessions together.
const PER_SECOND_MAX: u32 = 200;

/// The knocks that await an answer.
pub(super) struct PendingKnocks {
    by_id: HashMap<u64, Pending>,
    starts: TokenBucket,
}

struct Pending {
    cookie: [u8; 8],
    answered: oneshot::Sender<SocketAddr>,
}

impl PendingKnocks {
    pub(super) fn new(now: Instant) -> PendingKnocks {
        let per_second = f64::from(PER_SECOND_MAX);
        PendingKnocks {
            by_id: HashMap::new(),
            starts: TokenBucket::new(now, per_second, per_second),
        }
    }

    /// Registers a knock; the answer arrives through the receiver. None if too many are pending or
    /// have begun, or if the id is in use.
    pub(super) fn expect(
        &mut self,
        now: Instant,
        id: u64,
        cookie: [u8; 8],
    ) -> Option<oneshot::Receiver<SocketAddr>> {
        if self.by_id.len() >= PENDING_MAX {
            return None;
        }
        let Entry::Vacant(vacant) = self.by_id.entry(id) else {
            return None;
        };
        if !self.starts.try_take(now, 1.0) {
            return None;
        }
        let (answered, answer) = oneshot::channel();
        vacant.insert(Pending { cookie, answered });
        Some(answer)
    }

    /// Completes a knock whose cookie a datagram repeats.
    pub(super) fn handle_heard(&mut self, id: u64, cookie: [u8; 8], from: SocketAddr) {
        let Entry::Occupied(pending) = self.by_id.entry(id) else {
            return;
        };
        if pending.get().cookie == cookie {
            let _ = pending.remove().answered.send(from);
        }
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.by_id.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_answer_counts_only_with_the_cookie_that_was_sent() {
        let now = Instant::now();
        let mut pending = PendingKnocks::new(now);
        let mut answer = pending.expect(now, 7, [1; 8]).unwrap();
        pending.handle_heard(7, [2; 8], at("192.0.2.1:2"));
        pending.handle_heard(8, [1; 8], at("192.0.2.1:2"));
        assert!(answer.try_recv().is_err());
        pending.handle_heard(7, [1; 8], at("192.0.2.1:3"));
        assert_eq!(answer.try_recv(), Ok(at("192.0.2.1:3")));
    }

    #[test]
    fn nobody_takes_the_answer_of_another() {
        let now = Instant::now();
        let mut pending = PendingKnocks::new(now);
        let _first = pending.expect(now, 7, [1; 8]).unwrap();
        assert!(pending.expect(now, 7, [2; 8]).is_none());
        pending.forget(7);
        assert!(pending.expect(now, 7, [2; 8]).is_some());
    }

    #[test]
    fn the_rate_of_all_sessions_together_is_limited() {
        let mut now = Instant::now();
        let mut pending = PendingKnocks::new(now);
        for id in 0..u64::from(PER_SECOND_MAX) {
            assert!(pending.expect(now, id, [0; 8]).is_some());
        }
        assert!(pending.expect(now, u64::MAX, [0; 8]).is_none());
        now += Duration::from_secs(1);
        assert!(pending.expect(now, u64::MAX, [0; 8]).is_some());
    }
}
