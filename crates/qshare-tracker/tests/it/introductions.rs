//! Introductions: two nodes connect with nothing but the tracker's introduction, directly or
//! through the relay.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use crate::common::{DEADLINE, Joined, Node, start, within};
use qshare_content::NodeId;
use qshare_net::framed::{self, ReadError};
use qshare_net::punch::Introduced;
use qshare_net::{DialTarget, Session, Traversal, accept, dial};
use qshare_tracker::Tracker;
use qshare_wire::datagram::{Datagram, Probe};
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use qshare_wire::introduction::{Introduction, RelayTicket};
use qshare_wire::{Address, Refusal};
use tokio::net::UdpSocket;

/// Requests an introduction. Returns the asker's introduction and the other node's.
async fn both(asker: &Joined, other: &mut Joined, to: &Node) -> (Introduction, Introduction) {
    let told = asker.introduce(to.endpoint.id()).await.unwrap();
    let heard = framed::read(&mut other.session.control_recv);
    (told, within(heard).await.unwrap())
}

#[tokio::test]
async fn both_are_told_the_same_secret_and_where_the_other_is() {
    let tracker = start();
    let (a, b) = (Node::new(None), Node::new(None));
    let (to_a, mut to_b) = (a.join(&tracker).await, b.join(&tracker).await);
    let (told, heard) = both(&to_a, &mut to_b, &b).await;
    assert_eq!((told.peer, heard.peer), (b.endpoint.id(), a.endpoint.id()));
    assert_eq!((told.id, told.key), (heard.id, heard.key));
    assert!(told.asked && !heard.asked);
    let port = |introduction: &Introduction| match introduction.candidates[0].address {
        Address::TrackerHost { port } => port,
        Address::Socket(at) => panic!("{at}"),
    };
    assert_eq!((port(&told), port(&heard)), (b.port(), a.port()));
    let (ours, theirs) = (told.relay.clone().unwrap(), heard.relay.clone().unwrap());
    assert!(ours.handle != theirs.handle && ours.secret != theirs.secret);

    // With the introductions, the probes reach the other node.
    let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut answered = Vec::new();
    for (node, introduction, port) in [(&a, &told, b.port()), (&b, &heard, a.port())] {
        let traversal = Traversal::install(&node.endpoint);
        tokio::spawn(traversal.clone().run());
        answered.push(traversal.introduced(Introduced {
            peer: introduction.peer,
            id: introduction.id,
            key: introduction.key,
            addresses: vec![address(port)],
            birthday: None,
        }));
    }
    assert_eq!(within(answered[0].recv()).await, Some(address(b.port())));
    assert_eq!(within(answered[1].recv()).await, Some(address(a.port())));
}

#[tokio::test]
async fn both_are_told_that_they_agree_to_many_probes_if_both_do() {
    let tracker = start();
    for (of_a, of_b) in [
        (0, 0),
        (FEATURE_BIRTHDAY_PUNCH, 0),
        (0, u64::MAX),
        (u64::MAX, 1),
    ] {
        let (mut a, mut b) = (Node::new(None), Node::new(None));
        (a.greeting.features, b.greeting.features) = (of_a, of_b);
        let (to_a, mut to_b) = (a.join(&tracker).await, b.join(&tracker).await);
        let (told, heard) = both(&to_a, &mut to_b, &b).await;
        let agreed = of_a & of_b & FEATURE_BIRTHDAY_PUNCH != 0;
        assert_eq!(
            (told.may_birthday_punch(), heard.may_birthday_punch()),
            (agreed, agreed)
        );
    }
}

#[tokio::test]
async fn who_is_not_there_cannot_be_met() {
    let tracker = start();
    let a = Node::new(None);
    let to_a = a.join(&tracker).await;
    for nobody in [NodeId([9; 32]), a.endpoint.id()] {
        let Err(ReadError::Refused(refused)) = to_a.introduce(nobody).await else {
            panic!("introduced to nobody");
        };
        assert!(matches!(
            refused.refusal(),
            Refusal::NotHere | Refusal::Invalid
        ));
    }
}

#[tokio::test]
async fn a_node_is_not_flooded_with_introductions() {
    let tracker = start();
    let (a, b) = (Node::new(None), Node::new(None));
    let (to_a, _to_b) = (a.join(&tracker).await, b.join(&tracker).await);
    let mut introduced = 0;
    for _ in 0..500 {
        match to_a.introduce(b.endpoint.id()).await {
            Ok(_) => introduced += 1,
            Err(ReadError::Refused(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((100..500).contains(&introduced), "{introduced}");
}

/// Two nodes, connected through the relay.
struct Relayed {
    to_a: Joined,
    _to_b: Joined,
    ticket_of_a: RelayTicket,
    dialled: Session,
    accepted: Session,
}

async fn relayed(tracker: &Tracker, a: &Node, b: &Node) -> Relayed {
    let (to_a, mut to_b) = (a.join(tracker).await, b.join(tracker).await);
    let (told, heard) = both(&to_a, &mut to_b, b).await;
    let open = |node: &Node, peer: NodeId, ticket: Option<&RelayTicket>| {
        let traversal = Traversal::install(&node.endpoint);
        tokio::spawn(traversal.clone().run());
        let address = traversal.open_channel(peer, tracker.listen(), ticket.unwrap());
        address.unwrap()
    };
    let address = open(a, told.peer, told.relay.as_ref());
    open(b, heard.peer, heard.relay.as_ref());
    let target = DialTarget::Node(b.endpoint.id());
    let (dialled, accepted) = tokio::join!(
        dial(&a.endpoint, &a.greeting, target, address, DEADLINE),
        async {
            let incoming = b.endpoint.accept().await.unwrap();
            accept(b.endpoint.id(), &b.greeting, incoming).await
        }
    );
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(accepted.peer, a.endpoint.id());
    Relayed {
        to_a,
        _to_b: to_b,
        ticket_of_a: told.relay.unwrap(),
        dialled,
        accepted,
    }
}

impl Relayed {
    /// Sends `what` from the dialler to the acceptor and back, and compares the echo.
    async fn assert_carries(&self, what: &[u8]) {
        let (mut send, mut recv) = self.dialled.connection.open_bi().await.unwrap();
        send.write_all(what).await.unwrap();
        send.finish().unwrap();
        let (mut back, mut there) = self.accepted.connection.accept_bi().await.unwrap();
        let bytes = within(there.read_to_end(what.len())).await.unwrap();
        back.write_all(&bytes).await.unwrap();
        back.finish().unwrap();
        let echoed = within(recv.read_to_end(what.len())).await.unwrap();
        assert!(echoed == what, "other bytes came back");
    }
}

#[tokio::test]
async fn the_relay_carries_a_connection_until_a_session_ends() {
    let tracker = start();
    let (a, b) = (Node::new(None), Node::new(None));
    let relayed = within(relayed(&tracker, &a, &b)).await;
    relayed.assert_carries(b"through the relay").await;
    let counts = tracker.relay_counts().unwrap();
    assert_eq!(counts.pairs, 1);
    assert!(counts.forwarded_packets > 4 && counts.forwarded_bytes > 2400);
    relayed.to_a.leave(qshare_wire::CloseCode::Goodbye);
    within(async {
        while tracker.relay_counts().unwrap().pairs > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// An attacker that has seen handles, or even a ticket, on the network path floods the relay from
/// another address.
#[tokio::test]
async fn a_flooded_relay_sends_strangers_no_more_than_they_send_and_goes_on() {
    let tracker = start();
    let (a, b) = (Node::new(None), Node::new(None));
    let relayed = within(relayed(&tracker, &a, &b)).await;
    let RelayTicket { handle, secret, .. } = relayed.ticket_of_a;
    let bind = |handle, secret, cookie| Datagram::Bind {
        handle,
        secret,
        cookie,
    };
    let packet = [0x40; 1200];
    let all = [
        Datagram::Relayed {
            handle,
            packet: &packet,
        },
        Datagram::Relayed {
            handle,
            packet: &packet[..1],
        },
        Datagram::Relayed {
            handle: handle ^ 1,
            packet: &packet,
        },
        bind(handle, secret, [0; 8]),
        bind(handle, secret, [1; 8]),
        bind(handle, [0; 16], [0; 8]),
        bind(handle ^ 1, secret, [0; 8]),
        Datagram::Challenge {
            handle,
            cookie: [1; 8],
        },
        Datagram::Bound { handle },
        Datagram::Probe(Probe {
            id: handle,
            nonce: [1; 8],
            mac: [2; 16],
        }),
    ];
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 2048];
    let (mut sent, mut received) = (0, 0);
    for turn in 0..1000u32 {
        for datagram in &all {
            let bytes = datagram.to_bytes();
            stranger.send_to(&bytes, tracker.listen()).await.unwrap();
            sent += bytes.len();
        }
        if turn.is_multiple_of(100) {
            relayed
                .assert_carries(&turn.to_be_bytes().repeat(5000))
                .await;
        }
        while let Ok((length, _)) = stranger.try_recv_from(&mut buffer) {
            assert!(
                matches!(
                    Datagram::parse(&buffer[..length]),
                    Some(Datagram::Challenge { .. })
                ),
                "{:?}",
                &buffer[..length]
            );
            received += length;
        }
    }
    assert!(received > 0 && received <= sent, "{received} for {sent}");
    relayed.assert_carries(b"still there").await;
}
