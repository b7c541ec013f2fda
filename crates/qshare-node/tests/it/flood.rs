//! What floods a node's socket beside QUIC gets little out of it, and does not keep it from others.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qshare_net::punch::{Introduced, Output, Puncher};
use qshare_net::{
    Allowances, Endpoint, EndpointConfig, Greeting, Identity, TransportConfig, accept, framed,
};
use qshare_node::{Node, NodeConfig, content::NodeId};
use qshare_wire::datagram::Datagram;
use qshare_wire::hello::Role;
use qshare_wire::introduction::Introduction;
use qshare_wire::{ALPN_TRACKER, Address, Candidate, CandidateKind};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PEER: NodeId = NodeId([9; 32]);
const KEY: [u8; 16] = [7; 16];

fn introduction(id: u64, to: SocketAddr) -> Introduction {
    Introduction {
        peer: PEER,
        asked: false,
        candidates: vec![Candidate {
            kind: CandidateKind::Observed,
            address: Address::Socket(to),
        }],
        id,
        key: KEY,
        relay: None,
        extensions: Vec::new(),
    }
}

/// Probes of the introduced peer's, each with a nonce of its own.
fn probes(id: u64, node: NodeId) -> Vec<Vec<u8>> {
    let now = Instant::now();
    let mut puncher = Puncher::new(PEER, Arc::new(Mutex::new(Allowances::new(now))), now);
    puncher.handle_introduced(
        now,
        Introduced {
            peer: node,
            id,
            key: KEY,
            addresses: (0..8)
                .map(|last| ([192, 0, 2, last], 1024).into())
                .collect(),
            birthday: None,
        },
    );
    let mut probes = Vec::new();
    while let Some(at) = puncher.poll_timeout() {
        puncher.handle_timeout(at);
        while let Some(output) = puncher.poll_output() {
            match output {
                Output::Send(_, bytes) => probes.push(bytes),
                Output::Ended(_) => return probes,
                other => panic!("{other:?}"),
            }
        }
    }
    probes
}

fn bytes_waiting(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    let next = || socket.try_recv_from(&mut buffer).ok();
    std::iter::from_fn(next).map(|(length, _)| length).sum()
}

async fn socket() -> UdpSocket {
    UdpSocket::bind(ANY_PORT).await.unwrap()
}

#[tokio::test]
async fn a_flood_of_probes_is_not_answered_with_more_than_three_times_as_much() {
    let identity = Identity::ephemeral().unwrap();
    let config = EndpointConfig {
        listen: ANY_PORT,
        accept_alpn: ALPN_TRACKER,
        transport: TransportConfig::default(),
    };
    let tracker = Endpoint::bind(&identity, &config).unwrap();
    let at = tracker.local_addr().unwrap().to_string();
    let mut config =
        NodeConfig::one_shot(Identity::ephemeral().unwrap(), vec![at.parse().unwrap()]);
    config.listen = ANY_PORT;
    let node = Node::start(config).await.unwrap();
    let greeting = Greeting {
        role: Role::Tracker,
        group: None,
        candidates: Vec::new(),
        features: 0,
    };
    let incoming = timeout(DEADLINE, tracker.accept()).await.unwrap().unwrap();
    let mut session = accept(tracker.id(), &greeting, incoming).await.unwrap();
    let peer = socket().await;
    let told = introduction(1, peer.local_addr().unwrap());
    framed::write(&mut session.control_send, &told)
        .await
        .unwrap();
    // From its first probe on it follows the introduction.
    let mut buffer = [0; 2048];
    let received = timeout(DEADLINE, peer.recv_from(&mut buffer)).await;
    let (length, to) = received.unwrap().unwrap();
    assert_eq!((to, length), (node.listen_address(), 33));

    let mut first = probes(1, node.id()).into_iter();
    let mut probe = || first.next().unwrap();
    // What the peer's packets only claim to come from: each of these sockets is a third party.
    let mut others = Vec::new();
    for _ in 0..15 {
        let other = socket().await;
        other.send_to(&probe(), to).await.unwrap();
        others.push(other);
    }
    // Strangers, with what they make up, what they have seen, and what is cut short.
    let (forger, replayer, babbler) = (socket().await, socket().await, socket().await);
    let (genuine, seen) = (probe(), buffer[..length].to_vec());
    let mut sent_bytes = [0; 3];
    for turn in 0..5000usize {
        let mut forged = genuine.clone();
        forged[17 + turn % 16] ^= 1 + (turn / 16 % 255) as u8;
        let mut junk = genuine[..turn % genuine.len()].to_vec();
        junk.push(turn as u8);
        for (index, (socket, bytes)) in [(&forger, &forged), (&replayer, &seen), (&babbler, &junk)]
            .into_iter()
            .enumerate()
        {
            socket.send_to(bytes, to).await.unwrap();
            sent_bytes[index] += bytes.len();
        }
        if turn % 100 == 0 {
            // The node runs on this thread, too.
            tokio::task::yield_now().await;
        }
    }
    // It still does its work: whom it is told of next is probed, for as long as the others were,
    // and answered.
    let next = socket().await;
    let told = introduction(2, next.local_addr().unwrap());
    framed::write(&mut session.control_send, &told)
        .await
        .unwrap();
    let asked = probes(2, node.id()).swap_remove(0);
    next.send_to(&asked, to).await.unwrap();
    let (mut packets, mut answers) = (0, 0);
    while packets < 15 {
        let received = timeout(DEADLINE, next.recv_from(&mut buffer)).await;
        let (length, _) = received.unwrap().unwrap();
        match Datagram::parse(&buffer[..length]) {
            Some(Datagram::Answer(answer)) if answer.nonce == asked[9..17] => answers += 1,
            Some(Datagram::Probe(_)) if packets == 0 => {
                next.send_to(&asked, to).await.unwrap();
            }
            _ => {}
        }
        packets += 1;
    }
    assert!(answers > 0);
    let one = seen.len();
    let to_others: Vec<usize> = others.iter().map(bytes_waiting).collect();
    assert!(
        to_others.iter().all(|&bytes| bytes <= 3 * one),
        "{to_others:?}"
    );
    assert!(to_others.contains(&(3 * one)), "{to_others:?}");
    assert_eq!(bytes_waiting(&forger), 0);
    assert_eq!(bytes_waiting(&replayer), 0);
    let to_babbler = bytes_waiting(&babbler);
    assert!(to_babbler <= 3 * sent_bytes[2], "{to_babbler}");
    node.shutdown(Duration::ZERO).await;
}
