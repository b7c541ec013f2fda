//! Knocks from the tracker's second port: the permitted targets, and the valid answers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{SocketAddr, UdpSocket};

use crate::common::{Joined, Node, config, start, within};
use qshare_net::framed::{self, ReadError};
use qshare_net::{KnockTarget, Traversal, knock};
use qshare_tracker::Tracker;
use qshare_wire::Refusal;
use qshare_wire::datagram::Datagram;
use qshare_wire::knock::{Knock, Knocked};

fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Requests a knock. Does not answer the knock datagram.
async fn ask(session: &Joined, id: u64, port: Option<u16>) -> Result<Knocked, ReadError> {
    let request = Knock {
        id,
        port,
        offer: true,
        extensions: Vec::new(),
    };
    let asked = framed::ask::<Knock, Knocked>(&session.session.connection, &request);
    within(asked).await.map(|(knocked, ..)| knocked)
}

async fn refusal(session: &Joined, id: u64, port: u16) -> Refusal {
    match ask(session, id, Some(port)).await {
        Err(ReadError::Refused(refused)) => refused.refusal(),
        other => panic!("{other:?}"),
    }
}

fn second_port(tracker: &Tracker) -> u16 {
    tracker.second_port().unwrap()
}

#[tokio::test]
async fn a_knock_is_heard_and_its_answer_seen_from_where_it_went() {
    let tracker = start();
    let node = Node::new(None);
    let session = node.join(&tracker).await;
    let traversal = Traversal::install(&node.endpoint);
    let connection = &session.session.connection;
    let at = KnockTarget::Port {
        port: node.port(),
        offer: true,
    };
    let knocked = within(knock(&traversal, connection, at)).await.unwrap();
    assert!(knocked.was_heard);
    assert_eq!(knocked.observed, here(node.port()));
    assert_eq!(knocked.came_from, Some(here(node.port())));
    assert_eq!(knocked.second_port, second_port(&tracker));

    let second_port = knocked.second_port;
    let at = KnockTarget::Nowhere { second_port };
    let unasked = within(knock(&traversal, connection, at)).await.unwrap();
    assert!(!unasked.was_heard);
    assert_eq!(unasked.came_from, Some(here(node.port())));
}

#[tokio::test]
async fn other_services_of_the_same_host_are_not_knocked_at() {
    let tracker = start();
    let node = Node::new(None);
    let session = node.join(&tracker).await;
    let other = UdpSocket::bind(here(0)).unwrap();
    let other = other.local_addr().unwrap().port();
    for port in [53, other] {
        assert_eq!(refusal(&session, 1, port).await, Refusal::NotAllowed);
    }
}

#[tokio::test]
async fn who_has_not_heard_a_knock_cannot_say_so() {
    let tracker = start();
    let node = Node::new(None);
    let session = node.join(&tracker).await;
    // The node's socket does not answer the knock. The liar knows the id, but not the cookie.
    let liar = UdpSocket::bind(here(0)).unwrap();
    let (id, cookie) = (7, [0; 8]);
    let to = here(second_port(&tracker));
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    let lie = async {
        loop {
            ticks.tick().await;
            let heard = Datagram::Heard { id, cookie };
            liar.send_to(&heard.to_bytes(), to).unwrap();
        }
    };
    let knocked = tokio::select! {
        knocked = ask(&session, id, Some(node.port())) => knocked.unwrap(),
        () = lie => unreachable!("it does not end"),
    };
    assert_eq!(knocked.came_from, None);
}

#[tokio::test]
async fn whoever_has_many_knocks_is_told_to_wait() {
    let mut config = config();
    // At one request a second, the allowance hardly refills while this test runs.
    config.limits.requests_per_second = 1;
    let tracker = Tracker::start(config).unwrap();
    let node = Node::new(None);
    let session = std::sync::Arc::new(node.join(&tracker).await);
    let mut asked = tokio::task::JoinSet::new();
    for id in 0..30 {
        let (session, port) = (session.clone(), node.port());
        asked.spawn(async move { ask(&session, id, Some(port)).await });
    }
    let answers = asked.join_all().await;
    let busy = answers.iter().filter(|answer| match answer {
        Err(ReadError::Refused(refused)) => refused.refusal() == Refusal::Busy,
        _ => false,
    });
    let (busy, answered) = (busy.count(), answers.iter().flatten().count());
    assert_eq!(busy + answered, 30);
    assert_eq!(answered, 20);
}
