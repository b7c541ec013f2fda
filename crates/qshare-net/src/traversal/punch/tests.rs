use std::net::IpAddr;

use qshare_wire::limits::{PROBES_PER_ADDRESS_MAX, PROBES_PER_SECOND_MAX};

use super::*;
use crate::allowance::PROBES_MAX;

const A: NodeId = NodeId([1; 32]);
const B: NodeId = NodeId([2; 32]);

fn puncher_of(us: NodeId, now: Instant) -> Puncher {
    Puncher::new(us, Arc::new(Mutex::new(Allowances::new(now))), now)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn introduced(peer: NodeId, addresses: &[&str]) -> Introduced {
    Introduced {
        peer,
        id: 5,
        key: [7; 16],
        addresses: addresses.iter().map(|text| at(text)).collect(),
        birthday: None,
    }
}

fn sent(puncher: &mut Puncher) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| puncher.poll_output())
        .filter_map(|output| match output {
            Output::Send(to, bytes) => Some((to, bytes)),
            _ => None,
        })
        .collect()
}

fn receive(puncher: &mut Puncher, now: Instant, from: SocketAddr, bytes: &[u8]) {
    match Datagram::parse(bytes) {
        Some(Datagram::Probe(probe)) => puncher.handle_probe(now, from, probe, false),
        Some(Datagram::Answer(probe)) => puncher.handle_probe(now, from, probe, true),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_that_were_introduced_find_each_other_where_their_packets_come_from() {
    let now = Instant::now();
    let (mut a, mut b) = (puncher_of(A, now), puncher_of(B, now));
    assert!(a.handle_introduced(now, introduced(B, &["198.51.100.1:1000"])));
    assert!(b.handle_introduced(now, introduced(A, &["203.0.113.1:2000"])));
    // Probes of a are lost: b's NAT assigned another external port, from which probes of b come.
    sent(&mut a);
    let (b_outside, a_outside) = (at("198.51.100.1:7777"), at("203.0.113.1:2000"));
    for (_, bytes) in sent(&mut b) {
        receive(&mut a, now, b_outside, &bytes);
    }
    for (to, bytes) in sent(&mut a) {
        assert_eq!(to, b_outside);
        receive(&mut b, now, a_outside, &bytes);
    }
    let back: Vec<Output> = std::iter::from_fn(|| b.poll_output()).collect();
    assert!(back.contains(&Output::Answered(5, a_outside)));
    for output in back {
        if let Output::Send(_, bytes) = output {
            receive(&mut a, now, b_outside, &bytes);
        }
    }
    let outputs: Vec<Output> = std::iter::from_fn(|| a.poll_output()).collect();
    assert!(
        outputs.contains(&Output::Answered(5, b_outside)),
        "{outputs:?}"
    );
}

#[test]
fn an_address_that_does_not_answer_is_left_alone_whoever_names_it_how_often() {
    let mut now = Instant::now();
    let mut puncher = puncher_of(A, now);
    let victim = "198.51.100.1:1000";
    let mut times = Vec::new();
    let end = now + Duration::from_secs(300);
    let mut id = 0;
    while now < end {
        id += 1;
        let mut again = introduced(B, &[victim]);
        again.id = id;
        puncher.handle_introduced(now, again);
        puncher.handle_timeout(now);
        times.extend(sent(&mut puncher).iter().map(|_| now));
        now += Duration::from_millis(50);
    }
    assert_eq!(times.len(), PROBES_PER_ADDRESS_MAX as usize);
    for (index, &time) in times.iter().enumerate() {
        let within = times[index..]
            .iter()
            .take_while(|&&other| other < time + Duration::from_secs(1));
        assert!(within.count() <= PROBES_PER_SECOND_MAX as usize);
    }
}

#[test]
fn an_address_that_a_probe_claims_to_come_from_gets_no_more_than_three_times_as_much() {
    let begun = Instant::now();
    let (mut a, mut b) = (puncher_of(A, begun), puncher_of(B, begun));
    a.handle_introduced(begun, introduced(B, &[]));
    b.handle_introduced(begun, introduced(A, &["203.0.113.1:2000"]));
    let probes = sent(&mut b);
    let victim = at("192.0.2.66:1000");
    for received in 1..=5 {
        receive(&mut a, begun, victim, &probes[0].1);
        let mut now = begun;
        while let Some(at) = a.poll_timeout().filter(|&at| at < begun + ATTEMPT) {
            now = now.max(at);
            a.handle_timeout(now);
        }
        let to_victim = sent(&mut a);
        assert!(to_victim.iter().all(|(to, _)| *to == victim));
        let bytes: usize = to_victim.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(
            (1..=3 * probes[0].1.len()).contains(&bytes),
            "{bytes} bytes for probe {received}"
        );
    }
}

#[test]
fn all_addresses_together_are_sent_no_more_than_so_much() {
    let now = Instant::now();
    let mut puncher = puncher_of(A, now);
    for id in 0..200u64 {
        let mut many = introduced(B, &[]);
        many.id = id;
        many.addresses = (0..8u16)
            .map(|port| SocketAddr::from(([198, 51, 100, id as u8], 1024 + port)))
            .collect();
        puncher.handle_introduced(now, many);
    }
    assert_eq!(sent(&mut puncher).len(), PROBES_MAX as usize);
}

#[test]
fn forged_replayed_and_reflected_answers_are_none() {
    let now = Instant::now();
    let mut a = puncher_of(A, now);
    let mut b = puncher_of(B, now);
    a.handle_introduced(now, introduced(B, &["198.51.100.1:1000"]));
    b.handle_introduced(now, introduced(A, &["203.0.113.1:2000"]));
    let there = at("198.51.100.1:1000");
    let (_, probe) = sent(&mut a).remove(0);
    // Our own probe, reflected as an answer.
    let mut reflected = probe.clone();
    reflected[0] = 0x12;
    receive(&mut a, now, there, &reflected);
    // An authentic answer from another address, and an altered one.
    receive(&mut b, now, at("203.0.113.1:2000"), &probe);
    let answer = sent(&mut b)
        .into_iter()
        .find(|(_, bytes)| bytes[0] == 0x12)
        .unwrap()
        .1;
    receive(&mut a, now, at("192.0.2.66:1000"), &answer);
    let mut altered = answer.clone();
    altered[20] ^= 1;
    receive(&mut a, now, there, &altered);
    assert_eq!(a.poll_output(), None);
    receive(&mut a, now, there, &answer);
    assert_eq!(a.poll_output(), Some(Output::Answered(5, there)));
}

/// A NAT, for [`two_where_one_router_takes_a_port_for_each_destination_meet`].
#[derive(Default)]
struct Router {
    /// External port by internal socket and destination; one for all destinations if it is a cone.
    ports: HashMap<(u16, Option<SocketAddr>), u16>,
    /// The external ports and the sources that they let in.
    open: std::collections::HashSet<(u16, SocketAddr)>,
    is_cone: bool,
}

impl Router {
    fn send(&mut self, socket: u16, to: SocketAddr) -> u16 {
        let key = (socket, (!self.is_cone).then_some(to));
        let taken: Vec<u16> = self.ports.values().copied().collect();
        let port = *self.ports.entry(key).or_insert_with(|| {
            loop {
                let port = rand::rng().random_range(1024..=u16::MAX);
                if !taken.contains(&port) {
                    return port;
                }
            }
        });
        self.open.insert((port, to));
        port
    }

    /// Returns the internal socket that a packet reaches.
    fn receive(&self, port: u16, from: SocketAddr) -> Option<u16> {
        let ours = |mapped: &&(u16, Option<SocketAddr>)| self.ports[*mapped] == port;
        let (socket, _) = self.ports.keys().find(ours)?;
        self.open.contains(&(port, from)).then_some(*socket)
    }
}

#[test]
fn two_where_one_router_takes_a_port_for_each_destination_meet() {
    // The main socket of each node, and the addresses of their NATs.
    const MAIN: u16 = u16::MAX;
    let ips: [IpAddr; 2] = [[198, 51, 100, 1].into(), [203, 0, 113, 1].into()];
    let mut now = Instant::now();
    let mut routers = [false, true].map(|is_cone| Router {
        is_cone,
        ..Router::default()
    });
    // The tracker saw both.
    let tracker = at("192.0.2.1:65000");
    let seen = [0, 1].map(|side: usize| {
        let port = routers[side].send(MAIN, tracker);
        SocketAddr::new(ips[side], port)
    });
    let mut nodes = [puncher_of(A, now), puncher_of(B, now)];
    for (side, peer) in [(0, B), (1, A)] {
        let mut met = introduced(peer, &[&seen[1 - side].to_string()]);
        met.birthday = Some(seen[1 - side]);
        assert!(nodes[side].handle_introduced(now, met));
    }
    // An extra socket on which the peer was heard has an address of its own.
    let alias = |socket: u16| SocketAddr::new([10, 0, 0, 1].into(), socket);
    let end = now + ATTEMPT;
    let mut found = [None; 2];
    while found.contains(&None) && now < end {
        let due = nodes
            .iter()
            .filter_map(Puncher::poll_timeout)
            .min()
            .unwrap();
        now = now.max(due);
        nodes.iter_mut().for_each(|node| node.handle_timeout(now));
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for side in 0..2 {
                let Some(output) = nodes[side].poll_output() else {
                    continue;
                };
                is_quiet = false;
                let (socket, to, bytes) = match output {
                    Output::Answered(_, address) => {
                        found[side] = Some(address);
                        continue;
                    }
                    Output::Send(to, bytes) if to.ip() == alias(0).ip() => {
                        (to.port(), seen[1 - side], bytes)
                    }
                    Output::Send(to, bytes) => (MAIN, to, bytes),
                    Output::SendFrom {
                        index, to, bytes, ..
                    } => (index, to, bytes),
                    Output::CloseSockets(_) | Output::Ended(_) => continue,
                };
                let from = SocketAddr::new(ips[side], routers[side].send(socket, to));
                let other = 1 - side;
                if to.ip() != ips[other] {
                    continue;
                }
                let Some(socket) = routers[other].receive(to.port(), from) else {
                    continue;
                };
                match socket {
                    MAIN => receive(&mut nodes[other], now, from, &bytes),
                    index => {
                        receive(&mut nodes[other], now, alias(index), &bytes);
                        nodes[other].handle_heard(now, 5, alias(index));
                    }
                }
            }
        }
    }
    // The node behind the symmetric NAT has an extra socket, the other one a port of that NAT.
    assert_eq!(found[0].map(|at| at.ip()), Some(alias(0).ip()));
    assert_eq!(found[1].map(|at| at.ip()), Some(ips[0]));
}

#[test]
fn of_many_introductions_two_are_followed_with_many_probes() {
    let now = Instant::now();
    let mut puncher = puncher_of(A, now);
    for id in 0..20 {
        let mut met = introduced(B, &[]);
        (met.id, met.birthday) = (id, Some(at("198.51.100.1:1000")));
        assert!(puncher.handle_introduced(now, met));
    }
    let later = now + Duration::from_millis(100);
    puncher.handle_timeout(later);
    let mut ids = Vec::new();
    while let Some(output) = puncher.poll_output() {
        if let Output::SendFrom { id, .. } = output {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, [0, 1]);
    // Birthday punching ends once the peer says goodbye.
    puncher.handle_left(B);
    puncher.handle_timeout(later + Duration::from_millis(10));
    let left: Vec<Output> = std::iter::from_fn(|| puncher.poll_output()).collect();
    let closed = |id| left.contains(&Output::CloseSockets(id));
    assert!(closed(0) && closed(1) && left.len() == 2, "{left:?}");
}

#[test]
fn an_introduction_ends_by_itself() {
    let now = Instant::now();
    let mut puncher = puncher_of(A, now);
    puncher.handle_introduced(now, introduced(B, &["198.51.100.1:1000"]));
    let mut last = now;
    while let Some(at) = puncher.poll_timeout() {
        last = at;
        puncher.handle_timeout(at);
    }
    assert_eq!(last, now + ATTEMPT);
}
