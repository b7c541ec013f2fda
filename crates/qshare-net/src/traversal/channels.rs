//! Channels through relays: which channels are open, and when each must be bound again.
//!
//! Pure: the caller passes the time, and sends the datagrams that are returned.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::NodeId;
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::RelayTicket;

use crate::socket::{Route, virtual_address};

/// Limit on the open channels; no further ones are opened.
const CHANNELS_MAX: usize = 1024;
/// Pause before an unconfirmed bind is repeated. It is multiplied by the number of attempts.
const BIND_RETRY: Duration = Duration::from_millis(100);
/// Interval at which a bound channel is bound again. The address of this node may have changed, and
/// a channel may carry no other packet for long.
const BIND_REFRESH: Duration = Duration::from_secs(10);
/// Longest lifetime of a ticket that is honoured.
const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// All channels through relays.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_address: HashMap<SocketAddr, Channel>,
    /// Virtual addresses by handle.
    addresses: HashMap<u64, SocketAddr>,
}

#[derive(Debug)]
struct Channel {
    route: Route,
    secret: [u8; 16],
    is_bound: bool,
    attempts: u32,
    next_at: Instant,
    expires: Instant,
}

/// A datagram to send, and its destination.
pub(super) type Outgoing = (SocketAddr, Vec<u8>);

impl Channel {
    fn bind(&self, cookie: [u8; 8]) -> Outgoing {
        let bind = Datagram::Bind {
            handle: self.route.handle,
            secret: self.secret,
            cookie,
        };
        (self.route.relay, bind.to_bytes())
    }
}

impl Channels {
    /// Opens, or renews, the channel to a node through the relay at `relay`. Returns the virtual
    /// address at which the node is then dialled; None when there are too many channels.
    pub(super) fn open(
        &mut self,
        now: Instant,
        peer: NodeId,
        relay: SocketAddr,
        ticket: &RelayTicket,
    ) -> Option<SocketAddr> {
        let address = virtual_address(peer);
        let route = Route {
            relay,
            handle: ticket.handle,
        };
        let lifetime = Duration::from_secs(ticket.lifetime_seconds.into()).min(LIFETIME_MAX);
        match self.by_address.get_mut(&address) {
            Some(known) if known.route == route && known.secret == ticket.secret => {
                known.expires = now + lifetime;
                // The relay may have lost the binding.
                known.next_at = now;
                known.attempts = 0;
            }
            known => {
                if known.is_none() && self.by_address.len() >= CHANNELS_MAX {
                    return None;
                }
                let channel = Channel {
                    route,
                    secret: ticket.secret,
                    is_bound: false,
                    attempts: 0,
                    next_at: now,
                    expires: now + lifetime,
                };
                if let Some(older) = self.by_address.insert(address, channel) {
                    self.addresses.remove(&older.route.handle);
                }
                self.addresses.insert(route.handle, address);
            }
        }
        Some(address)
    }

    /// Drops expired channels; returns the binds that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Outgoing> {
        let addresses = &mut self.addresses;
        self.by_address.retain(|_, channel| {
            let is_alive = now < channel.expires;
            if !is_alive {
                addresses.remove(&channel.route.handle);
            }
            is_alive
        });
        let due = self
            .by_address
            .values_mut()
            .filter(|channel| channel.next_at <= now);
        due.map(|channel| {
            channel.attempts += 1;
            let pause = match channel.is_bound && channel.attempts > 1 {
                true => BIND_REFRESH,
                false => (BIND_RETRY * channel.attempts).min(BIND_REFRESH),
            };
            channel.next_at = now + pause;
            channel.bind([0; 8])
        })
        .collect()
    }

    /// Returns when to call [`Channels::handle_timeout`] next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.by_address
            .values()
            .map(|channel| channel.next_at)
            .min()
    }

    /// Handles a relay's challenge; returns the bind that answers it.
    pub(super) fn handle_challenge(
        &mut self,
        from: SocketAddr,
        handle: u64,
        cookie: [u8; 8],
    ) -> Option<Outgoing> {
        self.channel(from, handle)
            .map(|(_, channel)| channel.bind(cookie))
    }

    /// Handles a relay's confirmation.
    pub(super) fn handle_bound(&mut self, now: Instant, from: SocketAddr, handle: u64) {
        if let Some((_, channel)) = self.channel(from, handle) {
            channel.is_bound = true;
            channel.next_at = now + BIND_REFRESH;
        }
    }

    /// Returns the virtual address from which a relayed packet comes.
    pub(super) fn sender(&mut self, from: SocketAddr, handle: u64) -> Option<SocketAddr> {
        self.channel(from, handle).map(|(address, _)| address)
    }

    /// Returns the route of packets to a virtual address.
    pub(super) fn route(&self, to: SocketAddr) -> Option<Route> {
        // quinn may add a scope or flow of its own.
        let key = SocketAddr::new(to.ip(), to.port());
        self.by_address.get(&key).map(|channel| channel.route)
    }

    /// Returns the channel of a handle, if `from` is its relay.
    fn channel(&mut self, from: SocketAddr, handle: u64) -> Option<(SocketAddr, &mut Channel)> {
        let address = *self.addresses.get(&handle)?;
        let channel = self.by_address.get_mut(&address)?;
        (channel.route.relay == from).then_some((address, channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([9; 32]);

    fn ticket(handle: u64) -> RelayTicket {
        RelayTicket {
            handle,
            secret: [1; 16],
            lifetime_seconds: 300,
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_channel_is_bound_until_confirmed_and_then_now_and_then() {
        let relay = at("192.0.2.1:65000");
        let begun = Instant::now();
        let mut channels = Channels::default();
        let address = channels.open(begun, PEER, relay, &ticket(5)).unwrap();
        let binds_until = |channels: &mut Channels, end: Instant| {
            let mut count = 0;
            while let Some(at) = channels.poll_timeout().filter(|&at| at <= end) {
                let binds = channels.handle_timeout(at);
                assert!(binds.iter().all(|(to, _)| *to == relay));
                count += binds.len();
            }
            count
        };
        // At 0, 100, 300, 600 and 1,000 ms.
        let second = begun + Duration::from_secs(1);
        assert_eq!(binds_until(&mut channels, second), 5);
        channels.handle_bound(second, relay, 5);
        let minute = second + Duration::from_secs(60);
        assert_eq!(binds_until(&mut channels, minute), 6);
        assert_eq!(channels.route(address).unwrap().handle, 5);
        // The ticket expires.
        channels.handle_timeout(begun + Duration::from_secs(301));
        assert_eq!(channels.route(address), None);
        assert_eq!(channels.sender(relay, 5), None);
    }

    #[test]
    fn a_stranger_is_not_taken_for_the_relay() {
        let (relay, stranger) = (at("192.0.2.1:65000"), at("192.0.2.2:65000"));
        let now = Instant::now();
        let mut channels = Channels::default();
        let address = channels.open(now, PEER, relay, &ticket(5)).unwrap();
        channels.handle_bound(now, stranger, 5);
        assert!(!channels.by_address[&address].is_bound);
        assert_eq!(channels.handle_challenge(stranger, 5, [9; 8]), None);
        assert_eq!(channels.sender(stranger, 5), None);
        assert_eq!(channels.sender(relay, 5), Some(address));
        assert!(channels.handle_challenge(relay, 5, [9; 8]).is_some());
    }

    #[test]
    fn a_new_ticket_replaces_the_channel_and_too_many_are_refused() {
        let relay = at("192.0.2.1:65000");
        let now = Instant::now();
        let mut channels = Channels::default();
        let address = channels.open(now, PEER, relay, &ticket(5)).unwrap();
        assert_eq!(channels.open(now, PEER, relay, &ticket(6)), Some(address));
        assert_eq!(channels.sender(relay, 5), None);
        for number in 1..CHANNELS_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let opened = channels.open(now, NodeId(id), relay, &ticket(100 + number));
            assert!(opened.is_some());
        }
        let other = NodeId([8; 32]);
        assert_eq!(channels.open(now, other, relay, &ticket(7)), None);
        assert!(channels.open(now, PEER, relay, &ticket(8)).is_some());
    }
}
