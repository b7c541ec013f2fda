//! Tests of the relay's state machine.

use qshare_content::fair::Network;
use qshare_wire::datagram::Datagram;
use rand::SeedableRng;

use super::*;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);
const C: NodeId = NodeId([3; 32]);

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, last], 5000))
}

/// A node that asks from the network 203.0.`network`.0/24.
fn from(network: u8, node: NodeId) -> User<NodeId> {
    User {
        network: Network::of([203, 0, network, 1].into()),
        id: node,
    }
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn state(limits: RelayLimits) -> (State, Instant) {
    let now = Instant::now();
    (State::new(limits, now, StdRng::seed_from_u64(1)), now)
}

fn bind(state: &mut State, now: Instant, from: SocketAddr, ticket: &RelayTicket) -> bool {
    let mut bind = |cookie| {
        let bind = Datagram::Bind {
            handle: ticket.handle,
            secret: ticket.secret,
            cookie,
        };
        state.handle(now, from, &bind.to_bytes())
    };
    let Reply::Send(to, challenge) = bind([0; 8]) else {
        return false;
    };
    assert_eq!(to, from);
    let Some(Datagram::Challenge { cookie, .. }) = Datagram::parse(&challenge) else {
        return true;
    };
    matches!(bind(cookie), Reply::Send(_, _))
}

fn relayed(handle: u64, length: usize) -> Vec<u8> {
    let packet = vec![0x40; length];
    Datagram::Relayed {
        handle,
        packet: &packet,
    }
    .to_bytes()
}

fn pair(state: &mut State, now: Instant, a: NodeId, b: NodeId) -> (RelayTicket, RelayTicket) {
    let tickets = state.open(now, from(a.0[0], a), b).unwrap();
    assert!(bind(state, now, at(a.0[0]), &tickets.0));
    assert!(bind(state, now, at(b.0[0]), &tickets.1));
    tickets
}

#[test]
fn a_packet_leaves_for_the_other_end_under_its_handle() {
    let (mut state, now) = state(RelayLimits::default());
    let (a, b) = pair(&mut state, now, A, B);
    let reply = state.handle(now, at(1), &relayed(a.handle, 100));
    assert_eq!(reply, Reply::Forward(A, at(2), relayed(b.handle, 100)));
    let again = state.open(now, from(2, B), A).unwrap();
    assert_eq!(again, (b, a), "the same channel, whoever asks");
}

#[test]
fn nothing_is_forwarded_from_or_to_an_address_that_was_not_proven() {
    let (mut state, now) = state(RelayLimits::default());
    let (a, b) = state.open(now, from(1, A), B).unwrap();
    let packet = relayed(a.handle, 100);
    assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
    assert!(bind(&mut state, now, at(1), &a));
    // The other end has not said where it is.
    assert_eq!(state.handle(now, at(1), &packet), Reply::Nothing);
    assert!(bind(&mut state, now, at(2), &b));
    // From another address: the relay answers with a challenge, no longer than the packet.
    let Reply::Send(to, challenge) = state.handle(now, at(66), &packet) else {
        panic!("no challenge");
    };
    assert!(to == at(66) && challenge.len() <= packet.len());
    assert_eq!(
        state.handle(now, at(66), &relayed(a.handle, 5)),
        Reply::Nothing
    );
    // A cookie seen at one address is none at another, and one that was guessed is none.
    let Some(Datagram::Challenge { cookie, handle }) = Datagram::parse(&challenge) else {
        panic!("no challenge");
    };
    for (from, secret, cookie) in [
        (at(67), a.secret, cookie),
        (at(66), [0; 16], cookie),
        (at(66), a.secret, [1; 8]),
    ] {
        let bind = Datagram::Bind {
            handle,
            secret,
            cookie,
        };
        let reply = state.handle(now, from, &bind.to_bytes());
        let bound = Datagram::Bound { handle }.to_bytes();
        assert_ne!(reply, Reply::Send(from, bound));
    }
    let reply = state.handle(now, at(1), &packet);
    assert!(matches!(reply, Reply::Forward(..)), "{reply:?}");
}

#[test]
fn a_node_that_moved_proves_its_new_address() {
    let (mut state, now) = state(RelayLimits::default());
    let (a, b) = pair(&mut state, now, A, B);
    assert!(bind(&mut state, now, at(9), &a));
    let reply = state.handle(now, at(2), &relayed(b.handle, 50));
    assert_eq!(reply, Reply::Forward(B, at(9), relayed(a.handle, 50)));
}

#[test]
fn tickets_end_with_their_time_and_with_the_session() {
    let (mut state, now) = state(RelayLimits::default());
    let (a, _) = pair(&mut state, now, A, B);
    let later = now + RelayLimits::default().lifetime;
    assert_eq!(
        state.handle(later, at(1), &relayed(a.handle, 100)),
        Reply::Nothing
    );
    assert!(!bind(&mut state, later, at(1), &a));
    state.expire(later);
    assert!(state.ends.is_empty() && state.clients.is_empty() && state.channels.is_empty());
    pair(&mut state, now, A, B);
    pair(&mut state, now, A, C);
    state.left(A);
    assert!(state.ends.is_empty() && state.clients.is_empty() && state.channels.is_empty());
}

#[test]
fn a_node_sends_at_its_own_rate_and_all_at_the_common_one_in_turns() {
    let limits = RelayLimits {
        bytes_per_second: 100_000,
        bytes_per_second_per_client: 1_000_000,
        ..RelayLimits::default()
    };
    let (mut state, start) = state(limits);
    let (a, _) = pair(&mut state, start, A, C);
    let (b, _) = pair(&mut state, start, B, C);
    let mut sent = HashMap::new();
    let mut now = start;
    // One sends ten times as much as the other, both more than there is.
    for step in 0..10_000u32 {
        now = start + Duration::from_millis(step.into());
        let many = std::iter::repeat_n((at(1), a.handle), 10);
        for (from, handle) in many.chain([(at(2), b.handle)]) {
            if let Reply::Forward(node, _, bytes) = state.handle(now, from, &relayed(handle, 991)) {
                *sent.entry(node).or_insert(0) += bytes.len();
            }
        }
        while let Ok((node, _, bytes)) = state.next_queued(now) {
            *sent.entry(node).or_insert(0) += bytes.len();
        }
    }
    let seconds = (now - start).as_secs_f64();
    let total: usize = sent.values().sum();
    let allowed = 100_000.0 * seconds + BURST_MIN_BYTES as f64;
    assert!(
        total as f64 <= allowed && total as f64 >= 0.9 * allowed,
        "{sent:?}"
    );
    let (of_a, of_b) = (sent[&A] as f64, sent[&B] as f64);
    assert!(of_a / of_b < 1.3 && of_b / of_a < 1.3, "{sent:?}");
    let queued: usize = state
        .clients
        .values()
        .map(|client| client.queued_bytes)
        .sum();
    assert!(queued <= 2 * QUEUE_MAX_BYTES);
}

#[test]
fn there_are_no_more_channels_than_allowed() {
    let limits = RelayLimits {
        pairs_max: 4,
        pairs_per_client_max: 1,
        clients_max: 3,
        ..RelayLimits::default()
    };
    let (mut state, now) = state(limits);
    assert!(state.open(now, from(1, A), A).is_none());
    assert!(state.open(now, from(1, A), B).is_some());
    assert!(state.open(now, from(1, A), C).is_none(), "one each");
    let existing = state.open(now, from(2, B), A);
    assert!(existing.is_some(), "the one that exists");
    assert_eq!(state.channels.len(), 1);
    assert!(state.open(now, from(3, C), node(4)).is_some());
    assert!(state.clients.len() <= 3 && state.channels.len() == 1);
    assert!(
        state.open(now, from(3, C), node(6)).is_none(),
        "its asker has the only one"
    );
}

#[test]
fn a_channel_that_is_not_bound_soon_makes_room() {
    let limits = RelayLimits::default();
    let (unbound, lifetime) = (limits.unbound_lifetime, limits.lifetime);
    let (mut state, now) = state(limits);
    state.open(now, from(1, A), B).unwrap();
    let half = state.open(now, from(1, A), C).unwrap();
    assert!(bind(&mut state, now, at(1), &half.0));
    pair(&mut state, now, B, C);
    state.expire(now + unbound);
    assert_eq!(state.channels.len(), 1, "only the bound one is left");
    state.expire(now + lifetime);
    assert!(state.channels.is_empty());
}

#[test]
fn a_network_that_asks_for_everything_yields_to_another() {
    let limits = RelayLimits {
        pairs_max: 10,
        ..RelayLimits::default()
    };
    let (mut state, now) = state(limits);
    for n in 0..20 {
        state.open(now, from(1, node(100 + n)), node(50 + n));
    }
    assert_eq!(state.channels.len(), 10, "nobody else asks");
    for n in 0..5 {
        let asker = from(2, node(1 + n));
        assert!(state.open(now, asker, node(30 + n)).is_some(), "{n}");
    }
    assert!(
        state.open(now, from(2, node(7)), node(37)).is_none(),
        "has half"
    );
    assert_eq!(state.channels.len(), 10);
    let kept = (0..5).all(|n| {
        state
            .channels
            .contains_key(&key_of(node(1 + n), node(30 + n)))
    });
    assert!(kept);
}

#[test]
fn an_unbound_channel_yields_before_a_bound_one() {
    let limits = RelayLimits {
        pairs_max: 3,
        ..RelayLimits::default()
    };
    let (mut state, now) = state(limits);
    let asker = from(1, A);
    let bound = state.open(now, asker, B).unwrap();
    assert!(bind(&mut state, now, at(1), &bound.0));
    assert!(bind(&mut state, now, at(2), &bound.1));
    state.open(now, asker, C).unwrap();
    state.open(now, asker, node(4)).unwrap();
    assert!(state.open(now, from(2, node(5)), node(6)).is_some());
    assert!(state.channels.contains_key(&key_of(A, B)));
    assert_eq!(state.channels.len(), 3);
}

#[test]
fn the_quota_of_a_node_is_divided_among_those_who_ask_for_it() {
    let limits = RelayLimits {
        pairs_per_client_max: 8,
        ..RelayLimits::default()
    };
    let (mut state, now) = state(limits);
    let victim = node(200);
    for n in 0..20 {
        state.open(now, from(1, node(1 + n)), victim);
    }
    assert_eq!(state.channels.len(), 8);
    assert!(state.open(now, from(2, node(100)), victim).is_some());
    assert_eq!(state.channels.len(), 8);
}

#[test]
fn too_many_nodes_yield_as_too_many_channels_do() {
    let limits = RelayLimits {
        clients_max: 8,
        ..RelayLimits::default()
    };
    let (mut state, now) = state(limits);
    for n in 0..20 {
        state.open(now, from(1, node(100 + n)), node(50 + n));
    }
    assert_eq!(state.clients.len(), 8);
    assert!(state.open(now, from(2, A), B).is_some());
    assert!(state.clients.len() <= 8);
}
