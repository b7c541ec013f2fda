//! A flood of non-QUIC datagrams at a node's socket. The node does not amplify the flood and
//! keeps serving other peers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qshare_net::Allowances;
use qshare_net::punch::{Introduced, Output, Puncher};
use qshare_node::content::NodeId;
use qshare_wire::datagram::Datagram;
use qshare_wire::introduction::Introduction;
use qshare_wire::{Address, Candidate, CandidateKind};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::scripted_tracker::{ANY_PORT, DEADLINE, ScriptedTracker};

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

/// Returns valid probes of the introduced peer, each with its own nonce.
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
    let (mut tracker, node) = ScriptedTracker::with_node(false).await;
    let peer = socket().await;
    let told = introduction(1, peer.local_addr().unwrap());
    tracker.send(&told).await;
    // The node's first probe shows that it follows the introduction.
    let mut buffer = [0; 2048];
    let received = timeout(DEADLINE, peer.recv_from(&mut buffer)).await;
    let (length, to) = received.unwrap().unwrap();
    assert_eq!((to, length), (node.listen_address(), 33));

    let mut first = probes(1, node.id()).into_iter();
    let mut probe = || first.next().unwrap();
    // Genuine probes from spoofed sources: each of these sockets is a third party.
    let mut others = Vec::new();
    for _ in 0..15 {
        let other = socket().await;
        other.send_to(&probe(), to).await.unwrap();
        others.push(other);
    }
    // Strangers that send forged probes, replayed ones and truncated junk.
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
            // The node shares this thread. Yielding lets it run.
            tokio::task::yield_now().await;
        }
    }
    // The node still works: it probes the next introduced peer and answers that peer's probes.
    let next = socket().await;
    let told = introduction(2, next.local_addr().unwrap());
    tracker.send(&told).await;
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
