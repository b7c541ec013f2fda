//! What one tracker answers about nodes of another.

use qshare_content::Query;
use qshare_wire::tracker::{Entry, Find, Found, Readiness};

use super::{eventually, nodes, redis_or_skip, tracker_over};
use crate::common::{Joined, Node, entry, find, names};

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
    // Those who leave leave nothing in Redis but what expires soon.
    announcing.announce(vec![entry("y", 2)]).await;
    announcing.leave(qshare_wire::CloseCode::Goodbye);
    for kind in ["a", "h", "x", "i"] {
        eventually("no entries and no names of any", async || {
            let keys = redis.command(&["KEYS", &format!("*:{kind}:*")]);
            (keys == redis::Value::Array(Vec::new())).then_some(())
        })
        .await;
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

#[tokio::test]
async fn other_names_of_a_content_hide_no_holder() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (honest, other, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let (mut at_b, mut also_at_b) = (honest.join(&b).await, other.join(&b).await);
    let content = entry("honest", 1).info.id();
    at_b.announce(vec![entry("honest", 1)]).await;
    let spam = |at: usize| entry(&format!("spam/{at}"), 1);
    also_at_b.announce((0..400).map(spam).collect()).await;
    let asking = asker.join(&a).await;
    let text = content.to_string();
    let has_honest = |found: &Found| nodes(found).contains(&honest.endpoint.id());
    // Names are read at random. An answer is cached for a number of matches.
    for limit in 90..100 {
        let mut request = find(&text);
        request.limit = limit;
        let found = asking.ask(&request).await.unwrap();
        assert!(has_honest(&found), "{:?}", names(&found));
        let (holders, _watching) = asking.watch(content).await.unwrap();
        let watched = holders.holders.iter();
        let mut watched = watched.map(|holder| holder.contact.node);
        assert!(watched.any(|node| node == honest.endpoint.id()));
    }
    // Another name is as good, and none is not.
    at_b.announce(vec![entry("honest too", 1)]).await;
    at_b.withdraw(&entry("honest", 1)).await;
    eventually("it holds the content by another name", async || {
        let found = asking.find(&text).await;
        has_honest(&found).then_some(())
    })
    .await;
    at_b.withdraw(&entry("honest too", 1)).await;
    eventually("it holds the content no more", async || {
        let found = asking.find(&text).await;
        (!has_honest(&found) && !found.matches.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn other_contents_of_a_name_hide_none() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (honest, other, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let (mut at_b, mut also_at_b) = (honest.join(&b).await, other.join(&b).await);
    let of_length = |length: u64| {
        let mut entry = entry("popular", 1);
        entry.info.length = length;
        entry
    };
    let mut entries: Vec<Entry> = (1..=300).map(of_length).collect();
    entries.sort_by_key(|entry| entry.info.id());
    let last = entries.pop().unwrap();
    at_b.announce(vec![last.clone()]).await;
    also_at_b.announce(entries).await;
    let asking = asker.join(&a).await;
    let mut request = find("popular");
    let mut contents = Vec::new();
    loop {
        let page = asking.ask(&request).await.unwrap();
        contents.extend(page.matches.iter().map(|found| found.info));
        match page.more {
            Some(more) => request.after = Some(more),
            None => break,
        }
    }
    assert_eq!(contents.len(), 300);
    assert!(contents.contains(&last.info));
    let found = asking
        .find(&format!("{}/popular", honest.endpoint.id()))
        .await;
    assert_eq!(found.matches.len(), 1);
    assert_eq!(found.matches[0].info, last.info);
}
