//! A tracker cannot use introductions to flood a third party.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use qshare_node::content::NodeId;
use qshare_wire::datagram::is_non_quic;
use qshare_wire::introduction::{EXTENSION_BIRTHDAY_PUNCH, Introduction};
use qshare_wire::limits::{DATAGRAM_MAX_BYTES, PROBES_PER_ADDRESS_MAX};
use qshare_wire::{Address, Candidate, CandidateKind, Frame};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::scripted_tracker::{ANY_PORT, DEADLINE, ScriptedTracker};

fn introduction(id: u64, to: SocketAddr) -> Introduction {
    // The tracker claims that it observed the address. It sends the address 8 times, the most that
    // a message may carry.
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
    // With --punch-hard the node sends many probes, but only to peers that agreed to it.
    for punch_hard in [false, true] {
        assert_third_party_gets_little(punch_hard).await;
    }
}

async fn assert_third_party_gets_little(punch_hard: bool) {
    let (mut tracker, node) = ScriptedTracker::with_node(punch_hard).await;

    let (victim, last) = (
        UdpSocket::bind(ANY_PORT).await.unwrap(),
        UdpSocket::bind(ANY_PORT).await.unwrap(),
    );
    let mut told_bytes = 0;
    for id in 1..200 {
        let introduction = introduction(id, victim.local_addr().unwrap());
        told_bytes += Frame::encode(&introduction).unwrap().len();
        tracker.send(&introduction).await;
    }
    let sentinel = introduction(200, last.local_addr().unwrap());
    tracker.send(&sentinel).await;

    // When the node has sent 20 probes for the last introduction, it has processed the others.
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
