//! Serving: fair shares, no pause when a download becomes a seed, an orderly end.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::Cell;
use std::fs::File;

use qshare_content::ContentInfo;
use qshare_net::framed::ReadError;
use qshare_tests::asker::PageHoarder;
use qshare_tests::client::{Asked, Client, News, SlowReaders, runtime, soon};
use qshare_tests::files::{assert_same, info, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::tracker_client::address_on_loopback;
use qshare_tests::world::{Node, Tracker, World};
use qshare_wire::{CloseCode, Refusal};
use quinn::{ConnectionError, VarInt};

const MIB: usize = 1 << 20;
const CHUNK: usize = 128 << 10;

fn shared_by_a_node(world: &World, bytes: &[u8]) -> (Tracker, Node, ContentInfo) {
    let tracker = world.tracker();
    world.put("node", "x.bin", bytes);
    let node = world.node("node", tracker.address);
    let found = tracker.client().until_complete("x.bin", 1);
    (tracker, node, found.info)
}

#[test]
fn who_asks_for_hundreds_of_chunks_takes_no_more_than_its_share() {
    const MODEST: u32 = 16;
    /// Rare chunks among those that the greedy one asks for.
    const RARE: u32 = 125;
    /// Waiting requests of the modest client: enough for one at each of its turns.
    const AT_ONCE: u32 = 16;
    let world = World::new();
    let (_tracker, node, content) = shared_by_a_node(&world, &noise(64 * MIB, 90));
    let greedy_got = Cell::new(0);
    let at_end = runtime().block_on(async {
        let id = node.id.parse().unwrap();
        // Every other chunk is rare. Among hundreds there is always a rare one, among a few not.
        let before = Client::connect(node.address, id, false).await;
        for chunk in (1..512).step_by(2) {
            let mut asked = before.ask(content, chunk).await;
            asked.head().await.unwrap();
            asked.rest().await;
        }
        let greedy = Client::connect(node.address, id, false).await;
        let modest = Client::connect(node.address, id, false).await;
        let take_all = async {
            let mut waiting = Vec::new();
            for chunk in 0..2 * RARE {
                waiting.push(greedy.ask(content, chunk).await);
            }
            let taken = waiting.into_iter().map(|mut asked| {
                let got = &greedy_got;
                async move {
                    asked.head().await.unwrap();
                    asked.rest().await;
                    got.set(got.get() + 1);
                }
            });
            join_all(taken.collect()).await;
            std::future::pending::<()>().await;
        };
        let take_some = async {
            let mut waiting: Vec<Asked> = Vec::new();
            // Begins when the other has asked for everything.
            while greedy_got.get() == 0 {
                tokio::task::yield_now().await;
            }
            let before = greedy_got.get();
            for chunk in 0..MODEST + AT_ONCE {
                waiting.push(modest.ask(content, 511 - 2 * chunk).await);
                if waiting.len() > AT_ONCE as usize {
                    let mut first = waiting.remove(0);
                    first.head().await.unwrap();
                    assert_eq!(first.rest().await.len(), CHUNK);
                }
            }
            greedy_got.get() - before
        };
        soon("all chunks for the modest", async {
            tokio::select! {
                () = take_all => unreachable!(),
                at_end = take_some => at_end,
            }
        })
        .await
    });
    println!("{at_end} for the greedy, {MODEST} for the modest");
    // As many of each compete. Else the greedy one would get all its rare ones first.
    assert!(at_end < RARE, "{at_end} for the greedy");
}

/// All of them at once, on one task.
async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        match futures.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[test]
fn a_storm_of_withdrawals_costs_nothing_and_leaves_nothing_behind() {
    let world = World::new();
    let (_tracker, node, content) = shared_by_a_node(&world, &noise(64 * MIB, 91));
    runtime().block_on(soon("the end of the storm", async {
        let client = Client::connect(node.address, node.id.parse().unwrap(), true).await;
        // While it does not take these, nothing else is sent to it.
        let mut held = Vec::new();
        for chunk in 510..512 {
            let mut asked = client.ask(content, chunk).await;
            asked.head().await.unwrap();
            held.push(asked);
        }
        let mut sent = 0;
        for round in 0..10 {
            let mut waiting = Vec::new();
            for chunk in 1..200 {
                waiting.push(client.ask(content, round + chunk).await);
            }
            for asked in &mut waiting {
                asked.send.reset(VarInt::from_u32(0)).unwrap();
            }
            for mut asked in waiting {
                match asked.head().await {
                    Err(ReadError::Refused(refused)) => {
                        assert_eq!(refused.refusal(), Refusal::Withdrawn);
                    }
                    // Taken back before it was read.
                    Err(ReadError::Ended) => {}
                    // Sent before it was taken back: on a busy machine the two above are blocked
                    // for so long that they no longer keep others from being sent.
                    Ok(_) => sent += 1,
                    other @ Err(_) => panic!("{other:?}"),
                }
            }
        }
        assert!(sent < 100, "{sent} of 1,990 were sent");
        let mut news = client.interest(content).await;
        news.until(|news| news.count() > 0).await;
        assert_eq!(news.queue_bytes, 2 * CHUNK as u64, "only what is held up");
        for mut asked in held {
            assert_eq!(asked.rest().await.len(), CHUNK);
        }
        let mut asked = client.ask(content, 7).await;
        asked.head().await.unwrap();
        assert_eq!(asked.rest().await.len(), CHUNK);
    }));
}

#[test]
fn those_who_take_a_sip_now_and_then_do_not_keep_all_places() {
    // As many as there are places (`ServeConfig::active_max`).
    const SIPPERS: u32 = 10;
    let world = World::new();
    let bytes = noise(4 * MIB, 92);
    let (tracker, node, large) = with_a_large_file(&world, &bytes, 2 << 30);
    let _readers = SlowReaders::start(node.address, node.id.parse().unwrap(), large, SIPPERS);
    world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
}

#[test]
fn small_answers_whose_header_cannot_be_sent_do_not_keep_all_places() {
    // As many small answers as the node sends at once (`ServeConfig::small_active_max`).
    const SMALL: u32 = 64;
    let world = World::new();
    let bytes = noise(2_000, 93);
    let (tracker, node, large) = with_a_large_file(&world, &bytes, 512 * CHUNK as u64);
    let small = tracker.client().until_complete("x.bin", 1).info;
    runtime().block_on(soon("the unread chunk", async {
        let client = Client::connect_narrow(node.address, node.id.parse().unwrap()).await;
        // The node has to begin all of them before it notices that the chunk is blocked.
        let mut unread = client.ask(large, 0).await;
        let mut held_up = Vec::new();
        for _ in 0..SMALL {
            held_up.push(client.ask(small, 0).await);
        }
        // All requests have left when the first is answered.
        unread.head().await.unwrap();
        world.get("to", tracker.address, &["x.bin"]).well();
        // The node has not given up any of these answers: they were held up during the download.
        let chunk = async { assert_eq!(unread.rest().await.len(), CHUNK) };
        let small_answers = held_up.into_iter().map(|mut asked| async move {
            asked.head().await.unwrap();
            assert_eq!(asked.rest().await.len(), 2_000);
        });
        tokio::join!(chunk, join_all(small_answers.collect()));
    }));
    assert_same(&world.path("to/x.bin"), &bytes);
}

/// A node that has these bytes as `x.bin`, and a file of zeros that take no room on the disk.
fn with_a_large_file(world: &World, bytes: &[u8], large: u64) -> (Tracker, Node, ContentInfo) {
    let tracker = world.tracker();
    world.put("node", "x.bin", bytes);
    world.put("node", "large.bin", &[]);
    let path = world.asset("node", "large.bin");
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(large).unwrap();
    let node = world.node("node", tracker.address);
    let client = tracker.client();
    client.until_complete("x.bin", 1);
    let large = client.until_complete("large.bin", 1).info;
    (tracker, node, large)
}

#[test]
fn those_who_ask_for_pages_of_hashes_and_read_none_leave_room_for_others() {
    const HOARDERS: usize = 48;
    const NEWCOMERS: usize = 10;
    const CHUNKS: usize = 1016;
    const PAGE_BYTES: usize = CHUNKS * 32;
    /// All of the room but the quarter of which each client has its share.
    const HELD_MIN_BYTES: usize = 46 << 20;
    /// Some time after that.
    const REFUSED_MIN: usize = 20_000;
    const MEMORY_MAX_BYTES: u64 = 150 << 20;
    let world = World::new();
    let bytes = noise(4 * MIB, 97);
    let (tracker, node, large) = with_a_large_file(&world, &bytes, (CHUNKS * CHUNK) as u64);
    let hoarders: Vec<_> = (0..HOARDERS)
        .map(|_| PageHoarder::start(&node, large))
        .collect();
    eventually("the node to hold all that it gives away", || {
        let held: usize = hoarders.iter().map(PageHoarder::held).sum();
        let refused: usize = hoarders.iter().map(PageHoarder::refused).sum();
        (held * PAGE_BYTES > HELD_MIN_BYTES && refused > REFUSED_MIN).then_some(())
    });
    let id = node.id.parse().unwrap();
    runtime().block_on(soon("a page for each newcomer", async {
        for _ in 0..NEWCOMERS {
            let client = Client::connect(node.address, id, false).await;
            assert_eq!(client.hashes(large).await.unwrap().hashes.len(), CHUNKS);
        }
    }));
    world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let peak = node.process.peak_memory_bytes();
    println!("peak memory of the node: {} MiB", peak >> 20);
    assert!(peak < MEMORY_MAX_BYTES, "{peak}");
}

/// A download that is held back before its last chunk by the only source, and a client of it.
struct NearlyDone {
    getting: Process,
    source: TestPeer,
    content: ContentInfo,
    address: std::net::SocketAddr,
    id: qshare_content::NodeId,
    _tracker: Tracker,
}

impl NearlyDone {
    /// Somebody who knows a chunk that it has.
    async fn client(&self) -> (Client, News) {
        let client = Client::connect(self.address, self.id, true).await;
        let mut news = client.interest(self.content).await;
        news.until(|news| news.count() > 0).await;
        (client, news)
    }

    /// Asks it for the first chunk that it has; returns when the answer has begun.
    async fn begin_answer(&self, client: &Client, news: &News) -> (usize, Asked) {
        let there = news.chunks.iter().position(|&has| has).unwrap();
        let mut open = client.ask(self.content, there as u32).await;
        open.head().await.unwrap();
        (there, open)
    }
}

fn nearly_done(world: &World, bytes: &[u8], arguments: &[&str]) -> NearlyDone {
    let tracker = world.tracker();
    let source = TestPeer::start(Manner::Gated, tracker.address, "x.bin", bytes);
    let content = info(bytes);
    source.allow(bytes.len() / CHUNK - 1);
    let client = tracker.client();
    let (_, mut changes) = client.watch(content.id());
    let getting = world.start_get("to", tracker.address, arguments);
    let (address, id) = changes.until(|changed| {
        let partial = changed.joined.iter().find(|holder| !holder.complete)?;
        Some((address_on_loopback(partial), partial.contact.node))
    });
    NearlyDone {
        getting,
        source,
        content,
        address,
        id,
        _tracker: tracker,
    }
}

#[test]
fn a_node_that_completes_becomes_a_seed_without_a_pause() {
    let bytes = noise(4 * MIB, 93);
    let world = World::new();
    let nearly = nearly_done(&world, &bytes, &["--seed", "x.bin"]);
    let content = nearly.content;
    runtime().block_on(soon("the seed", async {
        let (client, mut news) = nearly.client().await;
        news.until(|news| news.count() == news.chunks.len() - 1)
            .await;
        let missing = news.chunks.iter().position(|&has| !has).unwrap() as u32;
        // Under way when the download completes.
        let (there, mut open) = nearly.begin_answer(&client, &news).await;
        nearly.source.open();
        news.until(|news| news.count() == news.chunks.len()).await;
        let whole = &bytes[there * CHUNK..][..CHUNK];
        assert!(open.rest().await == whole, "the open answer");
        // From the moment that it was told, through the renaming of the file and after it.
        for round in 0..20 {
            for chunk in [missing, round] {
                let mut asked = client.ask(content, chunk).await;
                asked.head().await.unwrap();
                let whole = &bytes[chunk as usize * CHUNK..][..CHUNK];
                assert!(asked.rest().await == whole, "chunk {chunk}");
            }
        }
        assert!(client.session.connection.close_reason().is_none());
    }));
    nearly.getting.ready();
    nearly.getting.signal(Signal::TERM);
    nearly.getting.end().well();
}

#[test]
fn a_plain_get_sends_what_it_is_sending_and_says_goodbye() {
    let bytes = noise(4 * MIB, 94);
    let world = World::new();
    let nearly = nearly_done(&world, &bytes, &["x.bin"]);
    runtime().block_on(soon("the goodbye", async {
        let (client, mut news) = nearly.client().await;
        let (there, mut open) = nearly.begin_answer(&client, &news).await;
        nearly.source.open();
        news.until(|news| news.count() == news.chunks.len()).await;
        let whole = &bytes[there * CHUNK..][..CHUNK];
        assert!(open.rest().await == whole, "the open answer");
        let closed = client.session.connection.closed().await;
        let ConnectionError::ApplicationClosed(close) = closed else {
            panic!("{closed}");
        };
        let goodbye = VarInt::from_u32(CloseCode::Goodbye.code());
        assert_eq!(close.error_code, goodbye);
    }));
    nearly.getting.end().well();
    assert_same(&world.path("to/x.bin"), &bytes);
}

#[test]
fn a_plain_get_does_not_wait_for_those_who_take_nothing() {
    let bytes = noise(4 * MIB, 95);
    let world = World::new();
    let nearly = nearly_done(&world, &bytes, &["x.bin"]);
    runtime().block_on(soon("the close", async {
        let (client, news) = nearly.client().await;
        let _open = nearly.begin_answer(&client, &news).await;
        nearly.source.open();
        client.session.connection.closed().await;
    }));
    nearly.getting.end().well();
}

#[test]
fn a_tracker_tells_those_who_watch_of_those_who_come_and_go() {
    let bytes = noise(MIB, 96);
    let world = World::new();
    let (tracker, _node, content) = shared_by_a_node(&world, &bytes);
    let client = tracker.client();
    let (holders, mut changes) = client.watch(content.id());
    assert_eq!(holders.holders.len(), 1);
    world.put("other", "y.bin", &bytes);
    let other = world.node("other", tracker.address);
    let id = other.id.parse().unwrap();
    changes.until(|changed| {
        let joined = changed.joined.iter().find(|one| one.contact.node == id)?;
        joined.complete.then_some(())
    });
    other.process.signal(Signal::TERM);
    other.process.end().well();
    changes.until(|changed| changed.left.contains(&id).then_some(()));
}
