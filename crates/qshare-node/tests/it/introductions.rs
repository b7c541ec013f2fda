//! A tracker that introduces a node to third parties gets little out of it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use qshare_net::{Endpoint, EndpointConfig, Greeting, Identity, TransportConfig, accept, framed};
use qshare_node::{Node, NodeConfig, content::NodeId};
use qshare_wire::datagram::is_non_quic;
use qshare_wire::hello::Role;
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduction};
use qshare_wire::limits::{DATAGRAM_MAX_BYTES, PROBES_PER_ADDRESS_MAX};
use qshare_wire::{ALPN_TRACKER, Address, Candidate, CandidateKind, Frame};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn introduction(id: u64, to: SocketAddr) -> Introduction {
    // Observed, as the tracker claims, and as often as one message may.
    let candidate = Candidate {
        kind: CandidateKind::Observed,
        address: Address::Socket(to),
    };
    Introduction {
        peer: NodeId([id as u8; 32]),
        asked: false,
        candidates: vec![candidate; 8],
        id,
        key: [7; 16],
        relay: None,
        extensions: vec![(EXTENSION_BIRTHDAY_PUNCH, Vec::new())],
    }
}

#[tokio::test]
async fn a_third_party_gets_few_small_packets_and_no_quic() {
    // Many probes are for those who agreed, and for public addresses.
    for punch_hard in [false, true] {
        assert_third_party_gets_little(punch_hard).await;
    }
}

async fn assert_third_party_gets_little(punch_hard: bool) {
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
    config.punch_hard = punch_hard;
    let node = Node::start(config).await.unwrap();
    let greeting = Greeting {
        role: Role::Tracker,
        group: None,
        candidates: Vec::new(),
        features: 0,
    };
    let incoming = timeout(DEADLINE, tracker.accept()).await.unwrap().unwrap();
    let mut session = accept(tracker.id(), &greeting, incoming).await.unwrap();

    let (victim, last) = (
        UdpSocket::bind(ANY_PORT).await.unwrap(),
        UdpSocket::bind(ANY_PORT).await.unwrap(),
    );
    let mut told_bytes = 0;
    for id in 1..200 {
        let introduction = introduction(id, victim.local_addr().unwrap());
        told_bytes += Frame::encode(&introduction).unwrap().len();
        framed::write(&mut session.control_send, &introduction)
            .await
            .unwrap();
    }
    let sentinel = introduction(200, last.local_addr().unwrap());
    framed::write(&mut session.control_send, &sentinel)
        .await
        .unwrap();

    // When the last of them has been followed for a while, so were the others.
    let mut buffer = [0; 2048];
    for _ in 0..20 {
        let received = timeout(DEADLINE, last.recv_from(&mut buffer)).await;
        let (length, from) = received.unwrap().unwrap();
        assert_eq!(from, node.listen_address());
        assert!(length <= DATAGRAM_MAX_BYTES && is_non_quic(buffer[0]));
    }
    let (mut packets, mut bytes) = (0, 0);
    while let Ok((length, _)) = victim.try_recv_from(&mut buffer) {
        assert!(length <= DATAGRAM_MAX_BYTES && is_non_quic(buffer[0]));
        packets += 1;
        bytes += length;
    }
    assert!(packets > 0 && packets <= PROBES_PER_ADDRESS_MAX);
    assert!(bytes <= 3 * told_bytes, "{bytes} for {told_bytes}");
    node.shutdown(Duration::ZERO).await;
}
