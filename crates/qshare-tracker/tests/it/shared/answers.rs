//! What one tracker answers about nodes of another.

use qshare_content::Query;
use qshare_wire::tracker::{AnnounceStage, Find, Found, Readiness};

use super::{eventually, nodes, redis_or_skip, tracker_over};
use crate::common::{Joined, Node, entry, names};

/// Asks until the answer has these names.
async fn until_named(asker: &Joined, text: &str, expected: &[&str]) -> Found {
    eventually(text, async || {
        let found = asker.find(text).await;
        (names(&found) == expected).then_some(found)
    })
    .await
}

#[tokio::test]
async fn what_one_tracker_acknowledged_the_other_finds_at_once() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (holder, asker) = (Node::new(None), Node::new(None));
    let mut announcing = holder.join(&a).await;
    let asking = asker.join(&b).await;
    assert_eq!(names(&asking.find("x").await), [""; 0]);
    announcing.announce(vec![entry("x", 1)]).await;
    // A miss is never answered from the cache.
    let found = asking.find("x").await;
    assert_eq!(names(&found), ["x"]);
    assert_eq!(
        (found.matches[0].complete, found.matches[0].partial),
        (1, 0)
    );
    assert_eq!(nodes(&found), [holder.endpoint.id()]);
    assert_eq!(found.readiness, Readiness::Ready);
    // Both are on this machine, so the address is told as one tracker would tell it.
    assert_eq!(found.nodes[0].candidates.len(), 1);
    announcing.withdraw(&entry("x", 1)).await;
    until_named(&asking, "x", &[]).await;
}

#[tokio::test]
async fn every_kind_of_query_finds_what_other_trackers_know() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let mut at_a = one.join(&a).await;
    let mut at_b = two.join(&b).await;
    at_a.announce(vec![
        entry("dir/a.txt", 1),
        entry("dir/b.bin", 2),
        entry("same", 3),
    ])
    .await;
    at_b.announce(vec![
        entry("dir/c.txt", 4),
        entry("dir/a.txt", 1),
        entry("same", 5),
    ])
    .await;
    for tracker in [&a, &b] {
        let asking = asker.join(tracker).await;
        let found = asking.find("dir/a.txt").await;
        assert_eq!(found.matches[0].complete, 2);
        assert_eq!(found.nodes.len(), 2);
        assert_eq!(names(&asking.find("same").await), ["same", "same"]);
        assert_eq!(
            names(&asking.find("dir/*").await),
            ["dir/a.txt", "dir/b.bin", "dir/c.txt"]
        );
        assert_eq!(
            names(&asking.find("**/*.txt").await),
            ["dir/a.txt", "dir/c.txt"]
        );
        let by_id = entry("dir/b.bin", 2).info.id();
        let found = asking.find(&by_id.to_string()).await;
        assert_eq!(names(&found), ["dir/b.bin"]);
        let prefix = format!("id:{}", &by_id.to_string()[..12]);
        assert_eq!(names(&asking.find(&prefix).await), ["dir/b.bin"]);
        let of_node = format!("{}/dir/a.txt", one.endpoint.id());
        assert_eq!(names(&asking.find(&of_node).await), ["dir/a.txt"]);
        let of_other = format!("{}/dir/c.txt", one.endpoint.id());
        assert_eq!(names(&asking.find(&of_other).await), [""; 0]);
        // Similar names of other trackers are offered, too.
        let near = asking.find("dir/b.bim").await.near;
        assert_eq!(
            near.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["dir/b.bin"]
        );
    }
}

#[tokio::test]
async fn pages_of_both_registries_are_merged_without_gaps() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let name = |at: usize| format!("f/{at:04}");
    let of = |rest: usize| (0..900).filter(move |at| at % 2 == rest);
    let entries = |rest| {
        of(rest)
            .map(|at| entry(&name(at), (at % 250) as u8))
            .collect()
    };
    let mut at_a = one.join(&a).await;
    at_a.announce(entries(0)).await;
    let mut at_b = two.join(&b).await;
    at_b.announce(entries(1)).await;
    let asking = asker.join(&b).await;
    let mut listed: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let page = Find {
            query: Query::Name("f/*".into()),
            after,
            limit: 70,
            holders: 1,
            extensions: Vec::new(),
        };
        let found = asking.ask(&page).await.unwrap();
        assert!(found.matches.len() <= 70);
        listed.extend(names(&found).into_iter().map(str::to_owned));
        after = found.more;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, (0..900).map(name).collect::<Vec<String>>());
}

#[tokio::test]
async fn a_full_announcement_ends_what_an_earlier_session_announced_elsewhere() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (holder, asker) = (Node::new(None), Node::new(None));
    let mut earlier = holder.join(&a).await;
    earlier
        .announce(vec![entry("old", 1), entry("kept", 2)])
        .await;
    let mut later = holder.join(&b).await;
    later
        .batch(AnnounceStage::FullBegin, vec![entry("kept", 2)], Vec::new())
        .await;
    // Until everything is announced, the earlier entries stay.
    let asking = asker.join(&a).await;
    assert_eq!(names(&asking.find("old").await), ["old"]);
    later
        .batch(AnnounceStage::FullEnd, Vec::new(), Vec::new())
        .await;
    earlier.ended().await;
    for tracker in [&a, &b] {
        let asking = asker.join(tracker).await;
        until_named(&asking, "old", &[]).await;
        let found = until_named(&asking, "kept", &["kept"]).await;
        assert_eq!(found.matches[0].complete, 1);
    }
}

#[tokio::test]
async fn watches_report_holders_at_other_trackers() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (first, second, watcher) = (Node::new(None), Node::new(None), Node::new(None));
    let x = entry("x", 1);
    let mut at_a = first.join(&a).await;
    at_a.announce(vec![x.clone()]).await;
    let watching = watcher.join(&b).await;
    let (holders, mut changes) = watching.watch(x.info.id()).await.unwrap();
    let known: Vec<_> = holders.holders.iter().map(|one| one.contact.node).collect();
    assert_eq!(known, [first.endpoint.id()]);
    let mut also_at_a = second.join(&a).await;
    also_at_a.announce(vec![x.clone()]).await;
    let joined = changes.next().await.joined;
    assert_eq!(joined[0].contact.node, second.endpoint.id());
    at_a.withdraw(&x).await;
    changes.left(first.endpoint.id()).await;
    also_at_a.leave(qshare_wire::CloseCode::Goodbye);
    changes.left(second.endpoint.id()).await;
}

#[tokio::test]
async fn a_watched_holder_that_moves_to_the_watchers_tracker_stays() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (holder, watcher) = (Node::new(None), Node::new(None));
    let x = entry("x", 1);
    let mut at_a = holder.join(&a).await;
    at_a.announce(vec![x.clone()]).await;
    let watching = watcher.join(&b).await;
    let (holders, mut changes) = watching.watch(x.info.id()).await.unwrap();
    assert_eq!(holders.holders.len(), 1);
    let mut at_b = holder.join(&b).await;
    at_b.announce(vec![x.clone(), entry("y", 2)]).await;
    at_a.ended().await;
    at_b.withdraw(&x).await;
    let mut holds = true;
    while holds {
        let change = changes.next().await;
        // It may be reported again, and leaves only when it has withdrawn.
        if change.left.contains(&holder.endpoint.id()) {
            let still = watcher.join(&b).await.find("x").await;
            assert_eq!(names(&still), [""; 0]);
            holds = false;
        }
    }
}
