//! A node that moves to another address. The tracker tells others the new address once the node
//! has proved that it receives there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_net::{DialTarget, dial};
use qshare_tracker::Tracker;
use qshare_wire::datagram::Datagram;
use qshare_wire::tracker::AnnounceStage;
use qshare_wire::{Address, CandidateKind};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::interval;

use crate::common::{DEADLINE, Joined, Node, config, entry, eventually, localhost, within};

/// Forwards between a node and the tracker from an address of its own, until it is dropped. One
/// that forges its source throws away what comes back, but for telling of it.
struct Path {
    port: u16,
    came_back: mpsc::UnboundedReceiver<Vec<u8>>,
    forwarding: AbortHandle,
}

impl Path {
    async fn new(
        tasks: &mut JoinSet<()>,
        inside: &Arc<UdpSocket>,
        node: SocketAddr,
        tracker: SocketAddr,
        is_forged: bool,
    ) -> Path {
        let outside = UdpSocket::bind(localhost(0)).await.unwrap();
        let port = outside.local_addr().unwrap().port();
        let (sender, came_back) = mpsc::unbounded_channel();
        let inside = Arc::clone(inside);
        let forwarding = tasks.spawn(async move {
            let (mut out, mut back) = ([0; 65_535], [0; 65_535]);
            loop {
                tokio::select! {
                    Ok((length, _)) = inside.recv_from(&mut out) => {
                        let _ = outside.send_to(&out[..length], tracker).await;
                    }
                    Ok((length, _)) = outside.recv_from(&mut back) => {
                        if !is_forged {
                            let _ = inside.send_to(&back[..length], node).await;
                        }
                        let _ = sender.send(back[..length].to_vec());
                    }
                }
            }
        });
        Path {
            port,
            came_back,
            forwarding,
        }
    }
}

/// The ports at which others are told that the node is, on the tracker's own host.
async fn told(other: &Joined) -> Vec<u16> {
    let found = other.find("a").await;
    let candidates = found.nodes.iter().flat_map(|node| &node.candidates);
    candidates
        .filter(|candidate| candidate.kind == CandidateKind::Observed)
        .map(|candidate| match candidate.address {
            Address::TrackerHost { port } => port,
            Address::Socket(at) => at.port(),
        })
        .collect()
}

#[tokio::test]
async fn others_are_told_of_a_new_address_only_once_the_node_answered_there() {
    let mut config = config();
    config.limits.moves_interval = Duration::from_millis(50);
    let tracker = Tracker::start(config).unwrap();
    let (node, other) = (Node::new(None), Node::new(None));
    let at = node.endpoint.local_addr().unwrap();
    let inside = Arc::new(UdpSocket::bind(localhost(0)).await.unwrap());
    let mut tasks = JoinSet::new();
    let first = Path::new(&mut tasks, &inside, at, tracker.listen(), false).await;
    let entrance = inside.local_addr().unwrap();
    let target = DialTarget::Tracker(Some(tracker.id()));
    let session = dial(&node.endpoint, &node.greeting, target, entrance, DEADLINE);
    let session = session.await.unwrap();
    let connection = session.connection.clone();
    // The node sends all the time, so that its moves are noticed.
    tasks.spawn(async move {
        let mut ticks = interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if let Ok((mut send, _)) = connection.open_bi().await {
                let _ = send.write_all(&[0]).await;
                let _ = send.reset(0u32.into());
            }
        }
    });
    let mut joined = Joined {
        session,
        sequence: 0,
    };
    joined
        .batch(AnnounceStage::FullBegin, vec![entry("a", 1)], Vec::new())
        .await;
    joined
        .batch(AnnounceStage::FullEnd, Vec::new(), Vec::new())
        .await;
    let other = other.join(&tracker).await;
    assert_eq!(told(&other).await, [first.port]);

    // A forged source: what the tracker sends there never reaches the node.
    first.forwarding.abort();
    let mut forged = Path::new(&mut tasks, &inside, at, tracker.listen(), true).await;
    let mut probes = 0;
    while probes < 3 {
        let datagram = within(forged.came_back.recv()).await.unwrap();
        if let Some(Datagram::AddressProbe { .. }) = Datagram::parse(&datagram) {
            probes += 1;
            assert_eq!(told(&other).await, [first.port]);
        }
    }

    // The node has really moved.
    forged.forwarding.abort();
    let moved = Path::new(&mut tasks, &inside, at, tracker.listen(), false).await;
    eventually("the new port", async || {
        (told(&other).await == [moved.port]).then_some(())
    })
    .await;
    tasks.abort_all();
}
