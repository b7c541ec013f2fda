//! Fair shares of a bounded resource: decides which user yields when the resource is full.
//!
//! Identities are free, so a limit per identity limits no attacker. Addresses cost money, and they
//! come in networks: a /24 of IPv4, a /48 of IPv6. Use is therefore counted by network first, and
//! by user within the network. There is no limit until the resource is full. Then the heaviest user
//! of the heaviest network yields to users that use less.
//!
//! Where several parties have a resource of the same kind each, a network's use elsewhere counts as
//! well ([`FairShares::set_elsewhere`]): it gains nothing by spreading over them.
//!
//! [`FairShares`] only counts and decides. Its owner takes the resource away from the user that
//! yields, and informs that user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network that one party is likely to control as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// A /24 of IPv4, by its first three octets.
    V4([u8; 3]),
    /// A /48 of IPv6, by its first six octets.
    V6([u8; 6]),
    /// A single address: loopback, private, link-local, or in a carrier's inner network. Networks
    /// of such addresses hold many parties, or belong to the operator.
    Address(IpAddr),
}

impl Network {
    /// The network of an address. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) if is_local_v4(v4) => Network::Address(v4.into()),
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(v6) if is_local_v6(v6) => Network::Address(v6.into()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, ..] = v6.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }

    /// Whether it is a single local address ([`Network::Address`]).
    pub fn is_local(self) -> bool {
        matches!(self, Network::Address(_))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Network::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Network::V6([a, b, c, d, e, g]) => {
                let pair = |high, low| u16::from_be_bytes([high, low]);
                let address = Ipv6Addr::new(pair(a, b), pair(c, d), pair(e, g), 0, 0, 0, 0, 0);
                write!(f, "{address}/48")
            }
            Network::Address(address) => write!(f, "{address}"),
        }
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // RFC 6598: a carrier's inner network.
    let shared = a == 100 && (64..128).contains(&b);
    shared || address.is_loopback() || address.is_private() || address.is_link_local()
}

fn is_local_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
}

/// A user of a resource: a node or a session, and the network that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User<U> {
    /// The network of the user.
    pub network: Network,
    /// The identity of the user within the network.
    pub id: U,
}

/// The decision of [`FairShares::claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<U> {
    /// There was room; the amount is counted.
    Granted,
    /// There is no room, and this user must yield some of its use. The caller takes something from
    /// it, calls [`FairShares::release`] for that, and claims again.
    Yields(User<U>),
    /// There is no room, and no user uses more than the claimant would: the shares are fair.
    Refused,
}

/// The use of a shared resource, by user.
///
/// Amounts are in any unit: bytes, entries, connections. Each operation takes time logarithmic in
/// the number of users. A user that uses nothing takes no memory.
#[derive(Debug, Clone)]
pub struct FairShares<U> {
    capacity: u64,
    used: u64,
    users: BTreeMap<User<U>, u64>,
    /// The id is always present; None only bounds a range.
    users_by_use: BTreeSet<(Network, u64, Option<U>)>,
    networks: BTreeMap<Network, u64>,
    /// Networks that use something, by their weight.
    networks_by_use: BTreeSet<(u64, Network)>,
    elsewhere: BTreeMap<Network, u64>,
}

impl<U: Copy + Ord> FairShares<U> {
    /// Creates a resource that is unused.
    pub fn new(capacity: u64) -> FairShares<U> {
        FairShares {
            capacity,
            used: 0,
            users: BTreeMap::new(),
            users_by_use: BTreeSet::new(),
            networks: BTreeMap::new(),
            networks_by_use: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Returns the capacity.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Returns the use of all users together.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Returns the use of a network.
    pub fn used_by_network(&self, network: Network) -> u64 {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    /// Returns the use of a user.
    pub fn used_by(&self, user: User<U>) -> u64 {
        self.users.get(&user).copied().unwrap_or(0)
    }

    /// Returns the weight of a network: its use of this resource and of such resources elsewhere.
    fn weight(&self, network: Network) -> u64 {
        let elsewhere = self.elsewhere.get(&network).copied().unwrap_or(0);
        self.used_by_network(network).saturating_add(elsewhere)
    }

    /// Replaces what networks use of such resources elsewhere. It takes nothing of this resource;
    /// it counts only when it is decided which network yields.
    pub fn set_elsewhere(&mut self, elsewhere: BTreeMap<Network, u64>) {
        let changed: BTreeSet<Network> = self
            .elsewhere
            .keys()
            .chain(elsewhere.keys())
            .filter(|network| self.networks.contains_key(network))
            .copied()
            .collect();
        for &network in &changed {
            self.networks_by_use
                .remove(&(self.weight(network), network));
        }
        self.elsewhere = elsewhere;
        for network in changed {
            self.networks_by_use.insert((self.weight(network), network));
        }
    }

    /// Returns up to `max` networks with their use, those with the largest weight first.
    pub fn heaviest_networks(&self, max: usize) -> Vec<(Network, u64)> {
        let heaviest = self.networks_by_use.iter().rev().take(max);
        heaviest
            .map(|&(_, network)| (network, self.used_by_network(network)))
            .collect()
    }

    /// Returns whether this amount fits in addition.
    pub fn fits(&self, amount: u64) -> bool {
        amount <= self.capacity.saturating_sub(self.used)
    }

    /// Returns the heaviest user of the heaviest network; None if nothing is used.
    pub fn heaviest(&self) -> Option<User<U>> {
        let &(_, network) = self.networks_by_use.last()?;
        self.heaviest_of(network)
    }

    fn heaviest_of(&self, network: Network) -> Option<User<U>> {
        let users = self
            .users_by_use
            .range((network, 0, None)..(network, u64::MAX, None));
        let &(_, _, id) = users.last()?;
        Some(User { network, id: id? })
    }

    /// Adds `amount` to the use of `user` if it fits. Otherwise returns the user that must yield
    /// ([`FairShares::yields_to`]).
    pub fn claim(&mut self, user: User<U>, amount: u64) -> Claim<U> {
        if self.fits(amount) {
            self.add(user, amount);
            return Claim::Granted;
        }
        self.yields_to(user, amount)
            .map_or(Claim::Refused, Claim::Yields)
    }

    /// Returns the user that must yield if `user` claims `amount` and there is no room. This is the
    /// heaviest user of the heaviest network, if that network uses more than the claimant's would
    /// afterwards. Otherwise it is the heaviest user of the claimant's own network, if that user
    /// uses more than the claimant would. Two users can therefore not take the same room from each
    /// other in turn.
    pub fn yields_to(&self, user: User<U>, amount: u64) -> Option<User<U>> {
        let wanted = |used: u64| used.saturating_add(amount);
        let heaviest = self.heaviest()?;
        if heaviest.network != user.network
            && wanted(self.weight(user.network)) < self.weight(heaviest.network)
        {
            return Some(heaviest);
        }
        let own = self.heaviest_of(user.network)?;
        (own != user && wanted(self.used_by(user)) < self.used_by(own)).then_some(own)
    }

    /// Adds `amount` to the use of a user, whether it fits or not.
    pub fn add(&mut self, user: User<U>, amount: u64) {
        let used = self.used_by(user);
        self.set(user, used.saturating_add(amount));
    }

    /// Subtracts `amount` from the use of a user.
    pub fn release(&mut self, user: User<U>, amount: u64) {
        let used = self.used_by(user);
        self.set(user, used.saturating_sub(amount));
    }

    /// Sets the use of a user to zero; returns the former use.
    pub fn forget(&mut self, user: User<U>) -> u64 {
        let used = self.used_by(user);
        self.set(user, 0);
        used
    }

    /// Sets the use of a user to `amount`, whether it fits or not.
    pub fn set(&mut self, user: User<U>, amount: u64) {
        let User { network, id } = user;
        // The largest is the end of a range.
        let amount = amount.min(u64::MAX - 1);
        let before = match amount {
            0 => self.users.remove(&user),
            _ => self.users.insert(user, amount),
        };
        let before = before.unwrap_or(0);
        if before == amount {
            return;
        }
        self.users_by_use.remove(&(network, before, Some(id)));
        if amount > 0 {
            self.users_by_use.insert((network, amount, Some(id)));
        }
        let network_before = self.used_by_network(network);
        let network_after = (network_before - before).saturating_add(amount);
        self.networks_by_use
            .remove(&(self.weight(network), network));
        if network_after > 0 {
            self.networks.insert(network, network_after);
            self.networks_by_use.insert((self.weight(network), network));
        } else {
            self.networks.remove(&network);
        }
        self.used = (self.used - before).saturating_add(amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(network: u8, id: u32) -> User<u32> {
        let network = Network::V4([203, 0, network]);
        User { network, id }
    }

    /// Claims until the claim is granted or refused; each user that yields gives up one unit.
    fn insist(shares: &mut FairShares<u32>, user: User<u32>, amount: u64) -> bool {
        loop {
            match shares.claim(user, amount) {
                Claim::Granted => return true,
                Claim::Refused => return false,
                Claim::Yields(other) => shares.release(other, 1),
            }
        }
    }

    #[test]
    fn one_user_may_use_all_that_nobody_else_wants() {
        let mut shares = FairShares::new(100);
        assert_eq!(shares.claim(user(1, 1), 100), Claim::Granted);
        assert_eq!(shares.claim(user(1, 1), 1), Claim::Refused);
    }

    #[test]
    fn a_newcomer_is_served_at_the_cost_of_the_heaviest_user_of_the_heaviest_network() {
        let mut shares = FairShares::new(100);
        // A hundred identities of one network, each of which uses less than the honest one.
        shares.add(user(2, 1), 20);
        for id in 0..80 {
            shares.add(user(1, id), 1);
        }
        shares.add(user(1, 7), 1);
        shares.release(user(1, 8), 1);
        assert_eq!(shares.claim(user(3, 1), 10), Claim::Yields(user(1, 7)));
        assert!(insist(&mut shares, user(3, 1), 10));
        assert_eq!(shares.used_by_network(user(1, 0).network), 70);
        assert_eq!(shares.used_by(user(2, 1)), 20);
        assert_eq!(shares.used_by(user(3, 1)), 10);
    }

    #[test]
    fn what_a_network_uses_elsewhere_counts_when_it_is_decided_who_yields() {
        let mut shares = FairShares::new(10);
        shares.add(user(1, 1), 2);
        shares.add(user(2, 1), 8);
        // Without it, the heavier network here would yield.
        assert_eq!(shares.yields_to(user(1, 1), 1), Some(user(2, 1)));
        let elsewhere = BTreeMap::from([(user(1, 0).network, 50), (user(9, 0).network, 99)]);
        shares.set_elsewhere(elsewhere);
        assert_eq!(shares.used(), 10);
        assert_eq!(shares.claim(user(1, 1), 1), Claim::Refused);
        assert_eq!(shares.claim(user(3, 1), 1), Claim::Yields(user(1, 1)));
        let heaviest = [(user(1, 0).network, 2), (user(2, 0).network, 8)];
        assert_eq!(shares.heaviest_networks(5), heaviest);
        shares.release(user(1, 1), 2);
        assert_eq!(shares.claim(user(3, 1), 2), Claim::Granted);
        assert_eq!(shares.claim(user(4, 1), 1), Claim::Yields(user(2, 1)));
        shares.set_elsewhere(BTreeMap::new());
        assert_eq!(shares.yields_to(user(1, 1), 1), Some(user(2, 1)));
    }

    #[test]
    fn in_the_heaviest_network_a_newcomer_is_served_by_its_heaviest_user() {
        let mut shares = FairShares::new(10);
        shares.add(user(1, 1), 10);
        assert!(insist(&mut shares, user(1, 2), 1));
        assert_eq!(shares.used_by(user(1, 1)), 9);
        assert!(insist(&mut shares, user(1, 2), 4));
        assert!(!insist(&mut shares, user(1, 2), 1), "both have half");
    }

    #[test]
    fn networks_are_told_apart_by_24_and_48_bits_and_local_addresses_singly() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("203.0.113.1"), of("203.0.113.200"));
        assert_eq!(of("203.0.113.1"), of("::ffff:203.0.113.200"));
        assert_ne!(of("203.0.113.1"), of("203.0.114.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
        for local in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.9",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(of(local).is_local(), "{local}");
        }
        assert_ne!(of("10.1.2.3"), of("10.1.2.4"));
        assert_eq!(of("203.0.113.9").to_string(), "203.0.113.0/24");
        assert_eq!(of("2001:db8:1:2::1").to_string(), "2001:db8:1::/48");
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_nobody_loses_to_somebody_who_has_more(
            claims in prop::collection::vec((0..4u8, 0..3u32, 0..12u64, any::<bool>()), 1..80)
        ) {
            let mut shares = FairShares::new(40);
            for (network, id, amount, gives_back) in claims {
                let user = user(network, id);
                if gives_back {
                    shares.release(user, amount);
                    continue;
                }
                let before = shares.clone();
                let granted = insist(&mut shares, user, amount);
                let networks: Vec<Network> = before.networks.keys().copied().collect();
                for network in networks {
                    let (had, has) = (before.used_by_network(network), shares.used_by_network(network));
                    // Who lost something still has as much as the claimant's network, but for
                    // the step of the last claim.
                    if network != user.network && has < had {
                        prop_assert!(has + amount >= shares.used_by_network(user.network));
                    }
                }
                prop_assert!(shares.used() <= shares.capacity());
                if granted {
                    prop_assert_eq!(shares.used_by(user), before.used_by(user) + amount);
                }
                prop_assert_eq!(shares.users.values().sum::<u64>(), shares.used());
                prop_assert_eq!(shares.users.len(), shares.users_by_use.len());
                for (network, used) in &shares.networks {
                    let users = shares.users.iter().filter(|(user, _)| user.network == *network);
                    prop_assert_eq!(users.map(|(_, used)| used).sum::<u64>(), *used);
                    prop_assert!(shares.networks_by_use.contains(&(*used, *network)));
                }
                prop_assert_eq!(shares.networks.len(), shares.networks_by_use.len());
            }
        }
    }
}
