//! Nodes that move from tracker to tracker, and trackers that learn of it late.

use qshare_net::framed;
use qshare_wire::CloseCode;
use qshare_wire::tracker::{Announce, AnnounceStage};

use super::{join_as, redis_or_skip, tracker_over, until_a_lease_has_passed};
use crate::common::{Node, entry, names};

#[tokio::test]
async fn an_older_session_never_takes_the_place_of_a_newer_one() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (mut node, asker) = (Node::new(None), Node::new(None));
    let mut newer = join_as(&mut node, 7, &a).await;
    newer.announce(vec![entry("new", 1)]).await;
    let mut older = join_as(&mut node, 6, &b).await;
    let announce = Announce {
        sequence: 0,
        stage: AnnounceStage::Delta,
        entries: vec![entry("old", 2)],
        removed: Vec::new(),
        extensions: Vec::new(),
    };
    framed::write(&mut older.session.control_send, &announce)
        .await
        .unwrap();
    assert_eq!(older.closed().await.0, CloseCode::Replaced);
    let asking = asker.join(&b).await;
    assert_eq!(names(&asking.find("old").await), [""; 0]);
    assert_eq!(names(&asking.find("new").await), ["new"]);
}

#[tokio::test]
async fn a_session_that_announces_nothing_does_not_replace_the_one_that_does() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (mut node, asker) = (Node::new(None), Node::new(None));
    let mut at_a = join_as(&mut node, 1, &a).await;
    at_a.announce(vec![entry("x", 1)]).await;
    let spare = join_as(&mut node, 2, &b).await;
    assert_eq!(names(&spare.find("x").await), ["x"]);
    spare.leave(CloseCode::Goodbye);
    let asking = asker.join(&b).await;
    until_a_lease_has_passed(&b, &asking).await;
    assert_eq!(names(&asking.find("x").await), ["x"]);
    at_a.announce(vec![entry("y", 2)]).await;
    assert_eq!(names(&asking.find("y").await), ["y"]);
}
