//! Birthday punching: hole punching where one side is behind a symmetric NAT.
//!
//! A symmetric NAT assigns another external port for each destination, and the other side's NAT
//! accepts packets only from an address and port that it sent to. Neither side knows the port to
//! send to.
//!
//! The side behind the symmetric NAT opens many sockets and sends a probe from each to the address
//! at which the tracker saw the other side. Its NAT then has as many ports open towards that
//! address. The other side sends probes to random ports of the first side's address. By the
//! birthday paradox, one of them soon hits an open port. Neither side knows which side is behind
//! the symmetric NAT, so both do both.
//!
//! All these probes go to the one public address at which the tracker saw the peer, at most
//! [`BIRTHDAY_PROBES_PER_SECOND_MAX`] a second and [`BIRTHDAY_PROBES_PER_HOUR_MAX`] an hour.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use qshare_wire::limits::{
    BIRTHDAY_PORTS, BIRTHDAY_PORTS_PER_SECOND, BIRTHDAY_PROBES_PER_HOUR_MAX,
    BIRTHDAY_PROBES_PER_SECOND_MAX, BIRTHDAY_ROUNDS, BIRTHDAY_SOCKETS, CANDIDATE_PORT_MIN,
};

use crate::TokenBucket;

/// Head start of ordinary probes, which suffice for most NATs.
const BEGINS_AFTER: Duration = Duration::from_millis(100);
/// Interval between small groups of probes.
const TICK: Duration = Duration::from_millis(10);
/// Sockets that send in one group, so that a round takes 80 ms.
const SOCKETS_PER_TICK: u32 = 32;
/// Interval from one round of all sockets to the next.
const ROUND: Duration = Duration::from_millis(600);
/// Time after the last probe within which an answer may arrive.
const LISTEN: Duration = Duration::from_secs(1);
/// Limit on the probes to random ports in one group. Overdue probes are sent at this rate.
const PORTS_PER_TICK_MAX: u32 = 32;
/// Limit on the addresses whose probes are counted.
const ADDRESSES_MAX: usize = 256;
const HOUR: Duration = Duration::from_secs(3600);

/// A probe that is due: its socket and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// From the main socket to a random port.
    Port(SocketAddr),
    /// From an extra socket to the address at which the tracker saw the peer.
    Socket(u16, SocketAddr),
}

/// Birthday punching towards one peer.
#[derive(Debug)]
pub(super) struct BirthdayPunch {
    /// The address at which the tracker saw the peer.
    seen_at: SocketAddr,
    begins: Instant,
    /// Ports of the peer's address that have not been probed yet.
    ports: Vec<u16>,
    sockets_sent: u32,
    next_at: Instant,
    nonces: RandomState,
}

impl BirthdayPunch {
    pub(super) fn new(now: Instant, seen_at: SocketAddr) -> BirthdayPunch {
        let range = usize::from(u16::MAX - CANDIDATE_PORT_MIN) + 1;
        let sample = rand::seq::index::sample(&mut rand::rng(), range, BIRTHDAY_PORTS.into());
        let ports = sample
            .into_iter()
            .filter_map(|offset| u16::try_from(offset).ok())
            .map(|offset| CANDIDATE_PORT_MIN + offset)
            .collect();
        BirthdayPunch {
            seen_at,
            begins: now + BEGINS_AFTER,
            ports,
            sockets_sent: 0,
            next_at: now + BEGINS_AFTER,
            nonces: RandomState::new(),
        }
    }

    /// Returns the address at which the tracker saw the peer.
    pub(super) fn seen_at(&self) -> SocketAddr {
        self.seen_at
    }

    /// Returns when the last answer may have arrived.
    pub(super) fn ends(&self) -> Instant {
        let sending = Duration::from_secs(1) * BIRTHDAY_PORTS.into() / BIRTHDAY_PORTS_PER_SECOND;
        self.begins + sending + LISTEN
    }

    /// Returns when the next probes are due; None once all are sent.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let all = u32::from(BIRTHDAY_SOCKETS) * u32::from(BIRTHDAY_ROUNDS);
        let left = !self.ports.is_empty() || self.sockets_sent < all;
        left.then_some(self.next_at)
    }

    /// Returns the probes that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_at = now + TICK;
        let elapsed = now.saturating_duration_since(self.begins);
        let mut due = Vec::new();
        let sockets_due = sockets_due(elapsed).saturating_sub(self.sockets_sent);
        for _ in 0..sockets_due.min(SOCKETS_PER_TICK) {
            let index = self.sockets_sent % u32::from(BIRTHDAY_SOCKETS);
            // Less than BIRTHDAY_SOCKETS, a u16.
            due.push(Due::Socket(index as u16, self.seen_at));
            self.sockets_sent += 1;
        }
        let ports_due = (elapsed + TICK).as_millis() * u128::from(BIRTHDAY_PORTS_PER_SECOND) / 1000;
        let ports_sent = usize::from(BIRTHDAY_PORTS) - self.ports.len();
        let ports_due = ports_due.saturating_sub(ports_sent as u128);
        for _ in 0..ports_due.min(PORTS_PER_TICK_MAX.into()) {
            let Some(port) = self.ports.pop() else { break };
            due.push(Due::Port(SocketAddr::new(self.seen_at.ip(), port)));
        }
        due
    }

    /// Returns the nonce of a probe, which its answer repeats.
    pub(super) fn nonce(&self, of: Due) -> [u8; 8] {
        let key = match of {
            Due::Port(address) => (true, address.port()),
            Due::Socket(index, _) => (false, index),
        };
        self.nonces.hash_one(key).to_be_bytes()
    }

    /// Returns whether a probe with this nonce was sent to this address.
    pub(super) fn asked(&self, address: SocketAddr, nonce: [u8; 8]) -> bool {
        address.ip() == self.seen_at.ip() && self.nonce(Due::Port(address)) == nonce
    }
}

/// Returns the number of probes that all sockets together should have sent after `elapsed`.
fn sockets_due(elapsed: Duration) -> u32 {
    let in_round = |round: u32| {
        let since = elapsed.checked_sub(ROUND * round)?;
        let ticks = u32::try_from(since.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        let sent = ticks.saturating_add(1).saturating_mul(SOCKETS_PER_TICK);
        Some(sent.min(BIRTHDAY_SOCKETS.into()))
    };
    (0..BIRTHDAY_ROUNDS.into()).filter_map(in_round).sum()
}

/// Limits on the probes of all birthday punching.
#[derive(Debug)]
pub(super) struct BirthdayBudget {
    all: TokenBucket,
    /// Unanswered probes by address, and the time since which they are counted.
    by_ip: HashMap<IpAddr, (u32, Instant)>,
}

impl BirthdayBudget {
    pub(super) fn new(now: Instant) -> BirthdayBudget {
        BirthdayBudget {
            // Within one second a full bucket yields the burst and what is refilled.
            all: TokenBucket::new(
                now,
                f64::from(BIRTHDAY_PROBES_PER_SECOND_MAX) - Self::BURST,
                Self::BURST,
            ),
            by_ip: HashMap::new(),
        }
    }

    /// Suffices for a round of all sockets beside the probes to random ports.
    const BURST: f64 = BIRTHDAY_PROBES_PER_SECOND_MAX as f64 / 4.0;

    pub(super) fn permits(&mut self, now: Instant, ip: IpAddr) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= HOUR;
        if self.by_ip.len() >= ADDRESSES_MAX && !self.by_ip.contains_key(&ip) {
            self.by_ip.retain(|_, &mut (_, since)| !over(since));
            if self.by_ip.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let (count, since) = self.by_ip.entry(ip).or_insert((0, now));
        if over(*since) {
            (*count, *since) = (0, now);
        }
        let permitted = *count < BIRTHDAY_PROBES_PER_HOUR_MAX && self.all.try_take(now, 1.0);
        if permitted {
            *count += 1;
        }
        permitted
    }

    /// Forgets the probes to an address that answered one.
    pub(super) fn forgive(&mut self, ip: IpAddr) {
        self.by_ip.remove(&ip);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn peer() -> SocketAddr {
        "198.51.100.1:5000".parse().unwrap()
    }

    #[test]
    fn each_port_is_probed_once_and_each_socket_three_times_within_a_second_and_a_half() {
        let begun = Instant::now();
        let mut punch = BirthdayPunch::new(begun, peer());
        // No other attempt uses the budget.
        let mut budget = BirthdayBudget::new(begun);
        let (mut ports, mut sockets) = (HashSet::new(), vec![0; BIRTHDAY_SOCKETS.into()]);
        let mut last = begun;
        while let Some(at) = punch.poll_timeout() {
            last = at;
            for due in punch.due(at) {
                assert!(budget.permits(at, peer().ip()));
                match due {
                    Due::Port(address) => {
                        assert_eq!(address.ip(), peer().ip());
                        assert!(address.port() >= CANDIDATE_PORT_MIN);
                        assert!(ports.insert(address.port()));
                    }
                    Due::Socket(index, to) => {
                        assert_eq!(to, peer());
                        sockets[usize::from(index)] += 1;
                    }
                }
            }
        }
        assert_eq!(ports.len(), usize::from(BIRTHDAY_PORTS));
        assert!(sockets.iter().all(|&count| count == BIRTHDAY_ROUNDS));
        let took = last - begun - BEGINS_AFTER;
        assert!(took <= Duration::from_millis(1500), "{took:?}");
        assert!(last < punch.ends());
    }

    #[test]
    fn an_address_that_never_answers_gets_its_hourly_share_and_never_too_much_in_a_second() {
        let mut now = Instant::now();
        let mut budget = BirthdayBudget::new(now);
        let mut times = Vec::new();
        let end = now + HOUR - Duration::from_secs(1);
        while now < end {
            for _ in 0..64 {
                if budget.permits(now, peer().ip()) {
                    times.push(now);
                }
            }
            now += Duration::from_millis(if times.len() < 8192 { 10 } else { 1000 });
        }
        assert_eq!(times.len(), BIRTHDAY_PROBES_PER_HOUR_MAX as usize);
        let mut first = 0;
        for (index, &time) in times.iter().enumerate() {
            while time - times[first] >= Duration::from_secs(1) {
                first += 1;
            }
            assert!(index - first < BIRTHDAY_PROBES_PER_SECOND_MAX as usize);
        }
        budget.forgive(peer().ip());
        assert!(budget.permits(now, peer().ip()));
    }

    #[test]
    fn a_nonce_is_good_for_its_port_only() {
        let punch = BirthdayPunch::new(Instant::now(), peer());
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let nonce = punch.nonce(Due::Port(at("198.51.100.1:6000")));
        assert!(punch.asked(at("198.51.100.1:6000"), nonce));
        assert!(!punch.asked(at("198.51.100.1:6001"), nonce));
        assert!(!punch.asked(at("198.51.100.2:6000"), nonce));
        let socket = punch.nonce(Due::Socket(6000, peer()));
        assert!(!punch.asked(at("198.51.100.1:6000"), socket));
    }
}
