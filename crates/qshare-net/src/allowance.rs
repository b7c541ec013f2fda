//! Limits on datagrams to a destination that does not answer: probes and dials together.
//!
//! Trackers and peers name addresses, and identities are free, so any address may belong to a
//! victim. Each destination has one allowance, regardless of which peer names it, for which node,
//! and how often. An answer renews the allowance.
//!
//! Pure: the caller passes the time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use qshare_wire::is_private;
use qshare_wire::limits::{PROBES_PER_ADDRESS_MAX, PROBES_PER_SECOND_MAX};

use crate::TokenBucket;

/// Probes and answers a second to all addresses together.
pub(crate) const PROBES_MAX: u32 = 400;
/// An address to which nothing was sent for this long counts as never tried.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Limit on the addresses that are remembered. When it is reached, the half that was not tried for
/// longest is evicted.
const ADDRESSES_MAX: usize = 4096;

/// Burst of unanswered dials of one address and port, and the allowance of dials per second
/// afterwards. A dial sends up to eight datagrams of 1,200 bytes, so a silent address gets 58 kB at
/// first and then 2 kB/s. A node that restarts is dialled again within 5 s.
const DIALS_BURST: f64 = 6.0;
const DIALS_PER_SECOND: f64 = 0.2;
/// The same limits for all ports of one public IP address, which many users may share.
const DIALS_PER_IP_BURST: f64 = 48.0;
const DIALS_PER_IP_PER_SECOND: f64 = 2.0;

/// What may be sent to each destination, and to all of them.
#[derive(Debug)]
pub struct Allowances {
    by_address: HashMap<SocketAddr, Allowance>,
    dials_by_ip: HashMap<IpAddr, TokenBucket>,
    all_probes: TokenBucket,
}

/// What may be sent to one address.
#[derive(Debug)]
struct Allowance {
    probes: TokenBucket,
    unanswered_probes: u32,
    dials: TokenBucket,
    tried_at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        // Half at once and half over the second are the whole in any one second.
        let half = f64::from(PROBES_PER_SECOND_MAX) / 2.0;
        Allowance {
            probes: TokenBucket::new(now, half, half),
            unanswered_probes: 0,
            dials: TokenBucket::new(now, DIALS_PER_SECOND, DIALS_BURST),
            tried_at: now,
        }
    }
}

impl Allowances {
    /// Starts with full allowances.
    pub fn new(now: Instant) -> Allowances {
        let all = f64::from(PROBES_MAX);
        Allowances {
            by_address: HashMap::new(),
            dials_by_ip: HashMap::new(),
            all_probes: TokenBucket::new(now, all, all),
        }
    }

    /// Returns whether a probe, or the answer to one, may be sent now, and counts it if so.
    pub(crate) fn permit_probe(&mut self, now: Instant, to: SocketAddr) -> bool {
        let allowance = Self::allowance(&mut self.by_address, now, to);
        if allowance.unanswered_probes >= PROBES_PER_ADDRESS_MAX {
            return false;
        }
        allowance.tried_at = now;
        let permitted = allowance.probes.try_take(now, 1.0) && self.all_probes.try_take(now, 1.0);
        if permitted {
            allowance.unanswered_probes += 1;
        }
        permitted
    }

    /// Returns whether an address may be dialled now, and counts the dial if so.
    pub(crate) fn permit_dial(&mut self, now: Instant, to: SocketAddr) -> bool {
        let to = canonical(to);
        if !is_private(to.ip()) {
            if self.dials_by_ip.len() >= ADDRESSES_MAX {
                self.dials_by_ip.retain(|_, dials| !dials.is_full(now));
            }
            let dials = self.dials_by_ip.entry(to.ip()).or_insert_with(|| {
                TokenBucket::new(now, DIALS_PER_IP_PER_SECOND, DIALS_PER_IP_BURST)
            });
            if !dials.try_take(now, 1.0) {
                return false;
            }
        }
        let allowance = Self::allowance(&mut self.by_address, now, to);
        allowance.tried_at = now;
        allowance.dials.try_take(now, 1.0)
    }

    /// Records that the address has answered a probe or a dial.
    pub(crate) fn handle_answered(&mut self, now: Instant, from: SocketAddr) {
        let from = canonical(from);
        if let Some(allowance) = self.by_address.get_mut(&from) {
            allowance.unanswered_probes = 0;
            allowance.dials = TokenBucket::new(now, DIALS_PER_SECOND, DIALS_BURST);
        }
        if let Some(dials) = self.dials_by_ip.get_mut(&from.ip()) {
            // Returns the dial to the allowance.
            dials.charge(now, -1.0);
        }
    }

    fn allowance(
        by_address: &mut HashMap<SocketAddr, Allowance>,
        now: Instant,
        to: SocketAddr,
    ) -> &mut Allowance {
        let to = canonical(to);
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(&to) {
            let mut tried: Vec<Instant> = by_address.values().map(|one| one.tried_at).collect();
            let middle = tried.len() / 2;
            let (_, &mut median, _) = tried.select_nth_unstable(middle);
            by_address.retain(|_, one| one.tried_at > median);
        }
        let allowance = by_address.entry(to).or_insert_with(|| Allowance::new(now));
        if now.saturating_duration_since(allowance.tried_at) >= FORGIVEN {
            *allowance = Allowance::new(now);
        }
        allowance
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Dials at each of these for a minute, as fast as it may; the number of dials.
    fn dials(targets: impl Fn(u32) -> SocketAddr) -> u32 {
        let begun = Instant::now();
        let mut allowances = Allowances::new(begun);
        let mut count = 0;
        for step in 0..6000 {
            let now = begun + Duration::from_millis(10) * step;
            count += u32::from(allowances.permit_dial(now, targets(step)));
        }
        count
    }

    #[test]
    fn a_silent_address_is_dialled_a_few_times_and_then_every_five_seconds() {
        let count = dials(|_| at("192.0.2.1:5000"));
        assert!((15..=18).contains(&count), "{count}");
        // In IPv6 form it is the same address.
        let count = dials(|step| match step % 2 {
            0 => at("192.0.2.1:5000"),
            _ => at("[::ffff:192.0.2.1]:5000"),
        });
        assert!((15..=18).contains(&count), "{count}");
    }

    #[test]
    fn other_ports_of_a_silent_public_address_do_not_help() {
        let count = dials(|step| SocketAddr::from(([192, 0, 2, 1], 1024 + step as u16)));
        assert!(count <= 48 + 2 * 60, "{count}");
    }

    #[test]
    fn an_address_that_answers_is_dialled_as_often_as_wanted() {
        let begun = Instant::now();
        let mut allowances = Allowances::new(begun);
        for _ in 0..1000 {
            assert!(allowances.permit_dial(begun, at("192.0.2.1:5000")));
            allowances.handle_answered(begun, at("192.0.2.1:5000"));
        }
    }

    #[test]
    fn new_addresses_are_served_however_many_were_tried_before() {
        let begun = Instant::now();
        let mut allowances = Allowances::new(begun);
        for number in 0..3 * ADDRESSES_MAX as u32 {
            let now = begun + Duration::from_millis(u64::from(number));
            let ip = 0x0a00_0000 + number;
            assert!(allowances.permit_dial(now, SocketAddr::new(IpAddr::V4(ip.into()), 5000)));
            assert!(allowances.by_address.len() <= ADDRESSES_MAX);
        }
    }
}
