//! The tracker's guarantees to well-behaved nodes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use crate::common::{DEADLINE, Node, config, entry, eventually, find, names, start, within};
use qshare_content::{ContentId, Topic};
use qshare_net::framed::{self, ReadError};
use qshare_net::{BindError, DialError, GroupSecret, Identity, IdentityRole};
use qshare_tracker::{StartError, Tracker};
use qshare_wire::private::FEATURE_PRIVATE_SHARES;
use qshare_wire::tracker::{AnnounceStage, EntryKind, HoldersChanged, Readiness};
use qshare_wire::{Address, CandidateKind, CloseCode, Refusal};

#[tokio::test]
async fn what_one_node_announces_another_finds_with_the_way_there() {
    let tracker = start();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let mut sharing = sharer.join(&tracker).await;
    sharing.announce(vec![entry("docs/a", 1)]).await;
    let asking = asker.join(&tracker).await;
    for query in ["docs/a", "**", &entry("docs/a", 1).info.id().to_string()] {
        let found = asking.find(query).await;
        assert_eq!(names(&found), ["docs/a"]);
        assert_eq!(found.readiness, Readiness::Ready);
        assert_eq!(found.matches[0].info, entry("docs/a", 1).info);
        assert_eq!(
            (found.matches[0].complete, found.matches[0].partial),
            (1, 0)
        );
        assert_eq!(found.matches[0].holders, [(0, true)]);
        assert_eq!(found.nodes[0].node, sharer.endpoint.id());
        let candidates = &found.nodes[0].candidates;
        assert_eq!(candidates.len(), 1);
        assert_eq!(candidates[0].kind, CandidateKind::Observed);
        let port = sharer.port();
        assert_eq!(candidates[0].address, Address::TrackerHost { port });
    }
}

#[tokio::test]
async fn what_is_not_there_is_warming_with_names_like_it() {
    let tracker = start();
    let node = Node::new(None);
    let mut session = node.join(&tracker).await;
    session.announce(vec![entry("report.csv", 1)]).await;
    let found = session.find("reprot.csv").await;
    assert!(found.matches.is_empty());
    assert_eq!(found.readiness, Readiness::Warming);
    assert_eq!(found.near[0].as_str(), "report.csv");
}

#[tokio::test]
async fn pages_list_everything_once() {
    let tracker = start();
    let node = Node::new(None);
    let mut session = node.join(&tracker).await;
    let entries = (0..90).map(|n| entry(&format!("f{n:02}"), n)).collect();
    session.announce(entries).await;
    let mut request = find("*");
    request.limit = 40;
    let mut listed = Vec::new();
    let mut pages = 0;
    loop {
        let found = session.ask(&request).await.unwrap();
        listed.extend(names(&found).into_iter().map(String::from));
        pages += 1;
        request.after = found.more;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    let expected: Vec<String> = (0..90).map(|n| format!("f{n:02}")).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn the_newest_session_of_a_node_wins_and_keeps_what_was_announced() {
    let tracker = start();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let mut older = sharer.join(&tracker).await;
    older.announce(vec![entry("a", 1)]).await;
    let mut newer = sharer.join(&tracker).await;
    assert_eq!(older.closed().await.0, CloseCode::Replaced);
    let asking = asker.join(&tracker).await;
    assert_eq!(names(&asking.find("a").await), ["a"]);
    newer.announce(vec![entry("b", 2)]).await;
    assert_eq!(names(&asking.find("*").await), ["a", "b"]);
}

#[tokio::test]
async fn a_full_announcement_drops_what_is_no_longer_shared() {
    let tracker = start();
    let node = Node::new(None);
    let mut session = node.join(&tracker).await;
    session
        .announce(vec![entry("old", 1), entry("kept", 2)])
        .await;
    let mut session = node.join(&tracker).await;
    for (stage, entries) in [
        (AnnounceStage::FullBegin, vec![entry("kept", 2)]),
        (AnnounceStage::FullMore, vec![entry("new", 3)]),
        (AnnounceStage::FullEnd, vec![]),
    ] {
        assert_eq!(session.batch(stage, entries, vec![]).await.refused, 0);
    }
    assert_eq!(names(&session.find("*").await), ["kept", "new"]);
}

#[tokio::test]
async fn a_clean_goodbye_drops_everything_at_once() {
    let tracker = start();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let mut sharing = sharer.join(&tracker).await;
    let shared = entry("a", 1);
    sharing.announce(vec![shared.clone()]).await;
    let asking = asker.join(&tracker).await;
    let (holders, mut watching) = asking.watch(shared.info.id()).await.unwrap();
    assert_eq!(holders.holders.len(), 1);
    sharing.leave(CloseCode::Goodbye);
    watching.left(sharer.endpoint.id()).await;
    assert!(asking.find("a").await.matches.is_empty());
    assert_eq!(tracker.counts().entries, 0);
}

#[tokio::test]
async fn an_unclean_loss_keeps_the_lease_until_it_ends() {
    let config = config();
    let (lease, clock) = (config.registry.lease, config.clock.clone());
    let tracker = Tracker::start(config).unwrap();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let mut sharing = sharer.join(&tracker).await;
    let shared = entry("a", 1);
    sharing.announce(vec![shared.clone()]).await;
    let asking = asker.join(&tracker).await;
    let (_, mut watching) = asking.watch(shared.info.id()).await.unwrap();
    sharing.leave(CloseCode::ShuttingDown);
    // The same node reconnects within the lease, and its connection is lost again.
    let again = sharer.join(&tracker).await;
    assert_eq!(names(&asking.find("a").await), ["a"]);
    again.leave(CloseCode::ShuttingDown);
    eventually("the tracker notices the loss", async || {
        (tracker.counts().sessions == 1).then_some(())
    })
    .await;
    clock.advance(lease / 2);
    assert_eq!(names(&asking.find("a").await), ["a"]);
    clock.advance(lease / 2);
    watching.left(sharer.endpoint.id()).await;
    assert!(asking.find("a").await.matches.is_empty());
}

#[tokio::test]
async fn a_watcher_is_told_who_comes_completes_and_leaves() {
    let tracker = start();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let asking = asker.join(&tracker).await;
    let shared = entry("a", 1);
    let (holders, mut watching) = asking.watch(shared.info.id()).await.unwrap();
    assert!(holders.holders.is_empty());
    assert_eq!(holders.readiness, Readiness::Warming);

    let mut sharing = sharer.join(&tracker).await;
    let mut part = shared.clone();
    part.complete = false;
    sharing.announce(vec![part]).await;
    let joined = watching.next().await.joined;
    assert_eq!(joined[0].contact.node, sharer.endpoint.id());
    assert!(!joined[0].complete);

    sharing.announce(vec![shared.clone()]).await;
    assert!(watching.next().await.joined[0].complete);

    sharing.withdraw(&shared).await;
    assert_eq!(watching.next().await.left, [sharer.endpoint.id()]);
}

#[tokio::test]
async fn a_session_that_keeps_many_streams_open_is_allowed_more() {
    let tracker = start();
    let session = Node::new(None).join(&tracker).await;
    let mut open = Vec::new();
    for n in 0..190 {
        // Each keeps its stream open; a session begins with 16 streams.
        open.push(session.watch(entry("a", n).info.id()).await.unwrap());
    }
    assert_eq!(tracker.counts().watches, 190);
}

#[tokio::test]
async fn a_watch_ends_with_its_stream() {
    let mut config = config();
    config.registry.watches_per_session = 1;
    let tracker = Tracker::start(config).unwrap();
    let node = Node::new(None);
    let session = node.join(&tracker).await;
    let content = entry("a", 1).info.id();
    let (_, watching) = session.watch(content).await.unwrap();
    let refused = session.watch(content).await;
    let Err(ReadError::Refused(refused)) = refused else {
        panic!("one watch is allowed");
    };
    assert_eq!(refused.refusal(), Refusal::Busy);
    drop(watching);
    // Closing the first watch is a message of its own, which the next request may overtake.
    within(async { while session.watch(content).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_restarted_tracker_says_warming_until_everything_is_announced_again() {
    let dir = std::env::temp_dir().join(format!("qshare-tracker-{}", std::process::id()));
    let identity = || {
        std::fs::create_dir_all(&dir).unwrap();
        Identity::load_or_create(&dir, IdentityRole::Tracker).unwrap()
    };
    let mut first = config();
    first.identity = identity();
    let first = Tracker::start(first).unwrap();
    let (id, listen) = (first.id(), first.listen());
    let node = Node::new(None);
    let mut session = node.join(&first).await;
    session.announce(vec![entry("a", 1)]).await;
    first.shutdown(DEADLINE).await;
    assert_eq!(session.closed().await.0, CloseCode::ShuttingDown);

    // The operating system releases the port a moment after the last user closes the socket.
    let second = within(async {
        loop {
            let mut second = config();
            second.identity = identity();
            second.listen = listen;
            match Tracker::start(second) {
                Err(StartError::Bind(BindError::PortInUse(_))) => tokio::task::yield_now().await,
                started => break started.unwrap(),
            }
        }
    })
    .await;
    assert_eq!((second.id(), second.listen()), (id, listen));
    let mut session = node.join(&second).await;
    let found = session.find("a").await;
    assert_eq!(found.readiness, Readiness::Warming);
    session.announce(vec![entry("a", 1)]).await;
    assert_eq!(names(&session.find("a").await), ["a"]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn only_members_are_admitted_to_a_group() {
    let secret = GroupSecret::random();
    let mut private = config();
    private.group = Some(secret.clone());
    let private = Tracker::start(private).unwrap();
    let member = Node::new(Some(secret.clone()));
    let mut session = member.join(&private).await;
    session.announce(vec![entry("a", 1)]).await;
    for stranger in [Node::new(None), Node::new(Some(GroupSecret::random()))] {
        let refused = stranger.try_join(&private).await.err().unwrap();
        assert!(matches!(refused, DialError::GroupRefused(_)), "{refused}");
    }
    let open = start();
    let refused = member.try_join(&open).await.err().unwrap();
    assert!(matches!(refused, DialError::GroupRefused(_)), "{refused}");
    assert_eq!(private.counts().sessions, 1);
}

#[tokio::test]
async fn a_collection_keeps_its_kind_and_what_is_not_taken_is_counted_with_a_reason() {
    let mut config = config();
    config.registry.entries_per_node = 2;
    let tracker = Tracker::start(config).unwrap();
    let node = Node::new(None);
    let mut session = node.join(&tracker).await;
    let stage = AnnounceStage::Delta;
    let mut collection = entry("c", 4);
    collection.kind = EntryKind::Collection;
    let ack = session.batch(stage, vec![collection], vec![]).await;
    assert_eq!(ack.refused, 0);
    let found = session.find("c").await;
    assert_eq!(found.matches[0].kind, EntryKind::Collection);
    let entries = vec![entry("b", 2), entry("d", 3)];
    let ack = session.batch(stage, entries, vec![]).await;
    assert_eq!(ack.refused, 1);
    assert!(ack.reason.contains("2 files"), "{}", ack.reason);
}

#[tokio::test]
async fn a_full_tracker_turns_newcomers_away() {
    let mut config = config();
    config.limits.sessions_max = 1;
    let tracker = Tracker::start(config).unwrap();
    let (first, second) = (Node::new(None), Node::new(None));
    let first = first.join(&tracker).await;
    // The tracker may close the connection before or after the node reads its Hello.
    match second.try_join(&tracker).await {
        Ok(second) => assert_eq!(second.closed().await.0, CloseCode::Busy),
        Err(DialError::Refused(code)) => assert_eq!(code, CloseCode::Busy),
        Err(other) => panic!("{other}"),
    }
    assert!(first.find("a").await.matches.is_empty());
}

#[tokio::test]
async fn a_topic_is_watched_by_those_who_know_it_and_listed_to_nobody() {
    let tracker = start();
    let (sharer, asker) = (Node::new(None), Node::new(None));
    let mut sharing = sharer.join(&tracker).await;
    assert_eq!(
        sharing.session.hello.features & FEATURE_PRIVATE_SHARES,
        FEATURE_PRIVATE_SHARES
    );
    let topic = Topic([0x5a; 32]);
    sharing.announce_topics(&[(topic, false)], &[]).await;
    let asking = asker.join(&tracker).await;
    let prefix = "id:5a".to_owned();
    for query in ["**", "topic", &prefix, &ContentId(topic.0).to_string()] {
        let found = asking.find(query).await;
        assert_eq!((names(&found).len(), found.near.len()), (0, 0), "{query}");
    }
    let (first, mut changes) = asking.watch_topic(topic).await;
    let holder = &first.holders[0];
    assert_eq!(
        (holder.contact.node, holder.complete),
        (sharer.endpoint.id(), false)
    );
    sharing.announce_topics(&[(topic, true)], &[]).await;
    let changed: HoldersChanged = within(framed::read(&mut changes.1)).await.unwrap();
    assert!(changed.joined[0].complete);
    sharing.announce_topics(&[], &[topic]).await;
    let changed: HoldersChanged = within(framed::read(&mut changes.1)).await.unwrap();
    assert_eq!(changed.left, [sharer.endpoint.id()]);
}
