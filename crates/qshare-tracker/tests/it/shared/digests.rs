//! Lookups by plain SHA-256 over several trackers.

use qshare_content::{FileMetadata, Hash};
use qshare_wire::tracker::Entry;

use super::{eventually, nodes, redis_or_skip, tracker_over};
use crate::common::{Joined, Node, entry, names};

const DIGEST: Hash = Hash([0xab; 32]);

fn query() -> String {
    format!("sha256:{}", "ab".repeat(32))
}

/// An entry whose node states this digest.
fn stating(name: &str, content: u8, digest: Hash) -> Entry {
    let metadata = FileMetadata {
        sha256: Some(digest),
        ..FileMetadata::default()
    };
    Entry {
        metadata: metadata.encode(),
        ..entry(name, content)
    }
}

async fn finds(asking: &Joined, wanted: &[&str]) {
    eventually("the names of the digest", async || {
        (names(&asking.find(&query()).await) == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_digest_is_found_wherever_its_holders_have_their_sessions() {
    let redis = redis_or_skip!();
    let (a, b) = (tracker_over(&redis).await, tracker_over(&redis).await);
    let (one, two, asker) = (Node::new(None), Node::new(None), Node::new(None));
    let (mut at_a, mut at_b) = (one.join(&a).await, two.join(&b).await);
    let asking = asker.join(&b).await;
    assert!(names(&asking.find(&query()).await).is_empty());
    let x = stating("x", 1, DIGEST);
    at_a.announce(vec![x.clone(), stating("other", 2, Hash([1; 32]))])
        .await;
    let found = asking.find(&query()).await;
    assert_eq!(names(&found), ["x"]);
    let stated = FileMetadata::decode(&found.matches[0].metadata).unwrap();
    assert_eq!(stated.sha256, Some(DIGEST));
    assert_eq!(nodes(&found), [one.endpoint.id()]);
    // Holders of both trackers are one answer; whoever states another digest hides nothing.
    at_b.announce(vec![x.clone()]).await;
    let liar = Node::new(None);
    let mut lying = liar.join(&a).await;
    lying.announce(vec![stating("x", 1, Hash([9; 32]))]).await;
    for tracker in [&a, &b] {
        let other = Node::new(None);
        let asking = other.join(tracker).await;
        eventually("all holders", async || {
            let found = asking.find(&query()).await;
            (names(&found) == ["x"] && found.matches[0].complete == 3).then_some(())
        })
        .await;
    }
    at_a.withdraw(&x).await;
    at_b.withdraw(&x).await;
    finds(&asking, &[]).await;
    // A digest expires with the entries that state it.
    at_a.announce(vec![x]).await;
    let key = redis.command(&["KEYS", "*:d:*"]);
    let redis::Value::Array(keys) = key else {
        panic!("no keys");
    };
    for key in keys {
        let redis::Value::BulkString(key) = key else {
            panic!("no key");
        };
        let ttl = redis.command(&["TTL", std::str::from_utf8(&key).unwrap()]);
        assert!(matches!(ttl, redis::Value::Int(1..)), "{ttl:?}");
    }
    finds(&asking, &["x"]).await;
    at_a.leave(qshare_wire::CloseCode::Protocol);
    finds(&asking, &[]).await;
}
