//! Networks that spread over several trackers get no more than they would at one.

use qshare_net::framed;
use qshare_tracker::Tracker;
use qshare_wire::Message;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::tracker::{Announce, AnnounceAck, AnnounceStage, EntriesEvicted, Entry, EntryKey};

use super::redis_server::RedisServer;
use super::{config_over, eventually, redis_or_skip, registry, started};
use crate::common::{Joined, Node, entry, names, within};

const ABUSER: [u8; 4] = [127, 0, 1, 1];
const HONEST: [u8; 4] = [127, 0, 2, 1];

/// Starts a tracker with room for this many entries.
async fn small_tracker(redis: &RedisServer, entries: usize) -> Tracker {
    let mut config = config_over(registry(&redis.url()));
    config.registry.entries_total = entries;
    started(config).await
}

fn entries(prefix: &str, count: u8) -> Vec<Entry> {
    (0..count)
        .map(|at| entry(&format!("{prefix}{at}"), at))
        .collect()
}

/// Sends a batch, and reads its acknowledgement: reports of evicted entries may come before it.
async fn batch(joined: &mut Joined, entries: Vec<Entry>, removed: Vec<EntryKey>) -> AnnounceAck {
    let announce = Announce {
        sequence: joined.sequence,
        stage: AnnounceStage::Delta,
        entries,
        removed,
        extensions: Vec::new(),
    };
    joined.sequence += 1;
    framed::write(&mut joined.session.control_send, &announce)
        .await
        .unwrap();
    loop {
        let control = &mut joined.session.control_recv;
        let frame = within(framed::read_frame(control, SMALL_BODY_MAX_BYTES)).await;
        let frame = frame.unwrap();
        if frame.kind == AnnounceAck::TYPE {
            return frame.decode().unwrap();
        }
        assert_eq!(frame.kind, EntriesEvicted::TYPE);
    }
}

/// An entry that was not announced before.
fn another(number: &mut u32) -> Entry {
    *number += 1;
    entry(&format!("more{number}"), 200)
}

/// Whether one more entry is refused. One that is not is withdrawn again.
async fn is_refused(joined: &mut Joined, entry: Entry) -> bool {
    let key = EntryKey {
        name: entry.name.clone(),
        content: entry.info.id(),
    };
    let is_refused = batch(joined, vec![entry], Vec::new()).await.refused > 0;
    if !is_refused {
        batch(joined, Vec::new(), vec![key]).await;
    }
    is_refused
}

#[tokio::test]
async fn what_a_network_has_at_another_tracker_counts_when_entries_must_yield() {
    let redis = redis_or_skip!();
    let (a, b) = (
        small_tracker(&redis, 1_000).await,
        small_tracker(&redis, 10).await,
    );
    let (spread, local, honest) = (
        Node::in_network(ABUSER),
        Node::in_network(ABUSER),
        Node::in_network(HONEST),
    );
    let mut at_b = local.join(&b).await;
    at_b.announce(entries("a", 2)).await;
    let mut theirs = honest.join(&b).await;
    theirs.announce(entries("h", 8)).await;
    let mut at_a = spread.join(&a).await;
    at_a.announce(entries("s", 60)).await;
    // B is full, and the abuser's network has fewer entries there; over both trackers it has more.
    let mut number = 0;
    eventually("B counts what the network has at A", async || {
        if is_refused(&mut at_b, another(&mut number)).await {
            return Some(());
        }
        // It was granted before B knew: the honest node announces again what yielded.
        batch(&mut theirs, entries("h", 8), Vec::new()).await;
        None
    })
    .await;
    // A third network is served at the cost of the abuser's, which is the lighter one at B.
    let mut newcomer = Node::in_network([127, 0, 3, 1]).join(&b).await;
    newcomer.announce(entries("n", 1)).await;
    let found = newcomer.find("h*").await;
    assert_eq!(names(&found).len(), 8, "the honest node keeps its entries");
    // When the spread node leaves, the network gets its share at B again.
    at_a.leave(qshare_wire::CloseCode::Goodbye);
    eventually("B forgets what was used at A", async || {
        let is_refused = is_refused(&mut at_b, another(&mut number)).await;
        (!is_refused).then_some(())
    })
    .await;
}
