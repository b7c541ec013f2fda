//! Introductions of nodes of two trackers.

use qshare_net::framed::{self, ReadError};
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::{Address, Refusal};

use super::{redis_or_skip, tracker_over};
use crate::common::{Node, entry, within};

fn introduce(node: &Node) -> Introduce {
    Introduce {
        node: node.endpoint.id(),
        candidates: Vec::new(),
        extensions: Vec::new(),
    }
}

#[tokio::test]
async fn nodes_of_two_trackers_are_introduced_to_each_other() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (asked, asker) = (Node::new(None), Node::new(None));
    let mut at_a = asked.join(&a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    let asking = asker.join(&b).await;
    let request = introduce(&asked);
    let answer = framed::ask::<Introduce, Introduction>(&asking.session.connection, &request);
    let (to_asker, ..) = within(answer).await.unwrap();
    let read = framed::read::<Introduction>(&mut at_a.session.control_recv);
    let to_asked = within(read).await.unwrap();
    assert_eq!((to_asker.peer, to_asker.asked), (asked.endpoint.id(), true));
    assert_eq!(
        (to_asked.peer, to_asked.asked),
        (asker.endpoint.id(), false)
    );
    assert_eq!((to_asker.id, to_asker.key), (to_asked.id, to_asked.key));
    let port_of = |introduction: &Introduction| match introduction.candidates[0].address {
        Address::TrackerHost { port } => port,
        Address::Socket(at) => at.port(),
    };
    assert_eq!(port_of(&to_asker), asked.port());
    assert_eq!(port_of(&to_asked), asker.port());
    // The relay is that of the asking node's tracker, and the other node learns where it is.
    assert!(to_asker.relay.is_some() && to_asked.relay.is_some());
    assert_eq!(to_asker.relay_address(), None);
    let relay = Address::TrackerHost {
        port: b.listen().port(),
    };
    assert_eq!(to_asked.relay_address(), Some(relay));
}

#[tokio::test]
async fn a_node_that_no_tracker_knows_is_not_here() {
    let redis = redis_or_skip!();
    let b = tracker_over(&redis).await;
    let (nobody, asker) = (Node::new(None), Node::new(None));
    let asking = asker.join(&b).await;
    let request = introduce(&nobody);
    let answer = framed::ask::<Introduce, Introduction>(&asking.session.connection, &request);
    match within(answer).await {
        Err(ReadError::Refused(refused)) => assert_eq!(refused.refusal(), Refusal::NotHere),
        other => panic!(
            "answered {:?}",
            other.map(|(introduction, ..)| introduction)
        ),
    }
}
