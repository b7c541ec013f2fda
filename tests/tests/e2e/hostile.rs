//! Peers that lie, stall, flood and send junk: the download completes from honest peers and names
//! the liar.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use qshare_content::Chunks;
use qshare_tests::asker::Asker;
use qshare_tests::client::{Client, runtime, soon};
use qshare_tests::files::{assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Ended, eventually};
use qshare_tests::world::World;

const MIB: usize = 1 << 20;

/// Runs a download that meets the hostile peer first; the honest node starts when `met` returns.
fn meet(manner: Manner, met: impl FnOnce(&TestPeer)) -> (Ended, TestPeer) {
    let bytes = noise(4 * MIB, 30 + manner as u64);
    let world = World::new();
    let tracker = world.tracker();
    let hostile = TestPeer::start(manner, tracker.address, "x.bin", &bytes);
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    met(&hostile);
    world.put("node", "x.bin", &bytes);
    let _node = world.node("node", tracker.address);
    let got = getting.end().well();
    assert_same(&world.path("to/x.bin"), &bytes);
    (got, hostile)
}

fn named(got: &Ended, peer: &TestPeer) -> bool {
    got.err.contains(&peer.id.short())
}

/// Asserts that the test's peer is no source of the download.
fn assert_nothing_from(got: &Ended, peer: &TestPeer) {
    let sources = &got.json()[0]["sources"];
    let id = peer.id.to_string();
    let is_there = sources
        .as_array()
        .unwrap()
        .iter()
        .any(|source| source["node"] == id.as_str());
    assert!(!is_there, "{got:?}");
}

#[test]
fn a_liar_is_named_and_what_it_sent_is_thrown_away() {
    let (got, liar) = meet(Manner::WrongBytes, |liar| liar.until_answered(1));
    assert_nothing_from(&got, &liar);
    assert!(named(&got, &liar), "{got:?}");
    let wasted = got.json()[0]["wasted_bytes"].as_u64().unwrap();
    assert!(wasted > 0, "{got:?}");
}

#[test]
fn with_only_a_liar_the_code_is_4_and_no_file_appears() {
    for length in [4 * MIB, 1000] {
        let world = World::new();
        let tracker = world.tracker();
        let bytes = noise(length, 29);
        let liar = TestPeer::start(Manner::WrongBytes, tracker.address, "x.bin", &bytes);
        let got = world.get("to", tracker.address, &["x.bin"]).with(4);
        assert!(!world.path("to/x.bin").exists());
        assert!(named(&got, &liar), "{got:?}");
    }
}

#[test]
fn a_liar_about_several_contents_is_asked_for_no_more() {
    // Far more chunks than are requested at once.
    const FILES: usize = 600;
    let world = World::new();
    let tracker = world.tracker();
    let files: Vec<(String, Vec<u8>)> = (0..FILES)
        .map(|at| (format!("{at:03}"), noise(100, 1000 + at as u64)))
        .collect();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    let liar = TestPeer::with_files(Manner::WrongBytes, tracker.address, &files);
    let getting = world.start_get("to", tracker.address, &["*"]);
    getting.says("failed verification for several contents");
    let asked = liar.counts().chunk_requests.load(Relaxed);
    assert!((3..FILES).contains(&asked), "asked {asked} times");
}

#[test]
fn a_small_file_comes_from_the_honest_node_when_the_other_answers_badly() {
    let manners = [
        Manner::WrongBytes,
        Manner::WrongLength,
        Manner::AlwaysBusy,
        Manner::NotHere,
        Manner::Endless,
        Manner::Junk,
        Manner::HugeFrame,
        Manner::Trickle,
        Manner::StallsMidChunk,
        Manner::Silent,
    ];
    let world = World::new();
    let tracker = world.tracker();
    let name = |manner| format!("small-{manner:?}");
    let peers = manners.map(|manner| {
        let name = name(manner);
        TestPeer::start(manner, tracker.address, &name, name.as_bytes())
    });
    let names = manners.map(name);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let getting = world.start_get("to", tracker.address, &names);
    for peer in &peers {
        peer.until_asked(1);
    }
    for name in &names {
        world.put("node", name, name.as_bytes());
    }
    let _node = world.node("node", tracker.address);
    getting.end().well();
    for name in names {
        assert_same(&world.path("to").join(name), name.as_bytes());
    }
}

#[test]
fn one_that_is_always_busy_is_not_asked_without_end() {
    let (got, busy) = meet(Manner::AlwaysBusy, |busy| busy.until_asked(1));
    assert_nothing_from(&got, &busy);
    let asked = busy.counts().chunk_requests.load(Relaxed);
    assert!(asked < 500, "asked {asked} times");
}

#[test]
fn one_that_has_nothing_of_what_it_announced_does_no_harm() {
    let (got, peer) = meet(Manner::NotHere, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 100, "asked {asked} times");
}

#[test]
fn one_that_says_to_have_what_it_has_not_does_no_harm() {
    let (got, peer) = meet(Manner::NeverYet, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 500, "asked {asked} times");
}

fn until_connected(peer: &TestPeer) {
    eventually("a connection", || {
        (peer.counts().interests.load(Relaxed) > 0).then_some(())
    });
}

#[test]
fn nonsense_about_chunks_does_no_harm() {
    let (got, peer) = meet(Manner::NonsenseHave, until_connected);
    assert_nothing_from(&got, &peer);
}

#[test]
fn a_flood_of_news_is_not_listened_to() {
    let (got, peer) = meet(Manner::FloodsHave, |peer| {
        eventually("an end of the flood", || {
            (peer.counts().cut_off.load(Relaxed) > 0).then_some(())
        });
    });
    assert_nothing_from(&got, &peer);
}

#[test]
fn one_that_refuses_and_goes_on_claiming_is_not_asked_without_end() {
    let (_, peer) = meet(Manner::ClaimsAgain, |peer| peer.until_asked(8));
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 500, "asked {asked} times");
}

#[test]
fn one_that_withdraws_for_us_is_not_asked_without_end() {
    let (got, peer) = meet(Manner::AlwaysWithdrawn, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 500, "asked {asked} times");
}

#[test]
fn streams_that_a_peer_opens_are_counted() {
    const STREAMS_MAX: usize = 1000;
    let (_, peer) = meet(Manner::OpensStreams, |peer| peer.until_answered(1));
    let opened = peer.counts().opened.load(Relaxed);
    assert!((1..STREAMS_MAX).contains(&opened), "{opened} streams");
}

#[test]
fn a_chunk_of_which_a_hundredth_is_missing_comes_from_others() {
    let (got, peer) = meet(Manner::StallsNearEnd, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
}

#[test]
fn where_one_stalls_when_99_of_100_chunks_are_there_only_the_rest_is_fetched_again() {
    let bytes = noise(16 * MIB, 31);
    let chunks = Chunks::of_length(bytes.len() as u64);
    let world = World::new();
    let tracker = world.tracker();
    let stalling = TestPeer::start(Manner::StallsInTheEnd, tracker.address, "x.bin", &bytes);
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    let there = chunks.count() as usize * 99 / 100;
    stalling.until_answered(there);
    let honest = TestPeer::start(Manner::Honest, tracker.address, "x.bin", &bytes);
    let got = getting.end().well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let asked = honest.take_asked();
    let fetched: u64 = asked.iter().map(|(_, range)| range.end - range.start).sum();
    let rest = u64::from(chunks.count()) - there as u64;
    assert_eq!(fetched, rest * chunks.chunk_bytes(), "{asked:?}");
    let wasted = got.json()[0]["wasted_bytes"].as_u64().unwrap();
    assert!(wasted * 100 < bytes.len() as u64, "{got:?}");
}

#[test]
fn what_is_missing_of_a_stalled_chunk_is_asked_of_several_others() {
    let bytes = noise(4 * MIB, 34);
    let chunk_bytes = Chunks::of_length(bytes.len() as u64).chunk_bytes();
    let world = World::new();
    let tracker = world.tracker();
    let start = |manner| TestPeer::start(manner, tracker.address, "x.bin", &bytes);
    let stalling = start(Manner::StallsMidChunk);
    let others = [start(Manner::Gated), start(Manner::Gated)];
    tracker.client().until_complete("x.bin", 3);
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    stalling.until_asked(1);
    others.iter().for_each(TestPeer::open);
    getting.end().well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let asked: Vec<_> = others.iter().flat_map(TestPeer::take_asked).collect();
    let part = |range: &Range<u64>| range.end - range.start < chunk_bytes;
    assert!(asked.iter().any(|(_, range)| part(range)), "{asked:?}");
}

#[test]
fn one_byte_a_second_holds_nothing_up() {
    let (got, peer) = meet(Manner::Trickle, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
}

#[test]
fn a_stall_in_the_middle_of_chunks_holds_nothing_up() {
    let (got, peer) = meet(Manner::StallsMidChunk, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
}

#[test]
fn one_that_never_answers_holds_nothing_up() {
    let (got, peer) = meet(Manner::Silent, until_connected);
    assert_nothing_from(&got, &peer);
}

#[test]
fn what_follows_the_end_of_a_chunk_is_nobodys() {
    meet(Manner::Endless, |peer| peer.until_answered(1));
}

#[test]
fn one_that_answers_with_no_messages_is_not_asked_without_end() {
    let (got, peer) = meet(Manner::Junk, until_connected);
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().interests.load(Relaxed);
    assert!(asked < 20, "asked {asked} times");
}

#[test]
fn news_that_are_no_messages_are_not_listened_to() {
    let (got, peer) = meet(Manner::JunkNews, |peer| {
        eventually("an end of the interest", || {
            (peer.counts().cut_off.load(Relaxed) > 0).then_some(())
        });
    });
    assert_nothing_from(&got, &peer);
}

#[test]
fn one_whose_hashes_are_no_messages_is_not_asked_without_end() {
    let (_, peer) = meet(Manner::JunkHashes, |peer| {
        eventually("a hash request", || {
            (peer.counts().hash_requests.load(Relaxed) > 0).then_some(())
        });
    });
    let asked = peer.counts().hash_requests.load(Relaxed);
    assert!(asked < 100, "asked {asked} times");
}

#[test]
fn one_whose_chunks_are_no_messages_is_not_asked_without_end() {
    let (got, peer) = meet(Manner::JunkChunks, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 100, "asked {asked} times");
}

#[test]
fn a_promise_of_a_huge_frame_takes_no_memory() {
    // Twice the receive window of a peer, which may fill before the receiver ends the stream.
    const FLOOD_MAX_BYTES: usize = 64 * MIB;
    let (got, peer) = meet(Manner::HugeFrame, |peer| {
        eventually("an end of the flood", || {
            (peer.counts().cut_off.load(Relaxed) > 0).then_some(())
        });
    });
    assert_nothing_from(&got, &peer);
    let flooded = peer.counts().flooded_bytes.load(Relaxed);
    assert!(flooded < FLOOD_MAX_BYTES, "{flooded} bytes");
}

#[test]
fn wrong_hash_pages_are_refused() {
    let (got, peer) = meet(Manner::WrongHashes, |peer| {
        eventually("a hash request", || {
            (peer.counts().hash_requests.load(Relaxed) > 0).then_some(())
        });
    });
    assert_nothing_from(&got, &peer);
}

#[test]
fn a_page_of_hashes_that_is_wrong_is_refused_and_the_right_ones_before_it_are_kept() {
    // 4,096 hashes are a page.
    const CHUNKS: u32 = 4100;
    let world = World::new();
    let tracker = world.tracker();
    let start = |manner| TestPeer::with_zeros(manner, tracker.address, "x.bin", CHUNKS);
    let liar = start(Manner::WrongLaterHashes);
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    getting.says(&liar.id.short());
    let honest = start(Manner::Gated);
    honest.until_asked(1);
    assert_eq!(liar.counts().chunk_requests.load(Relaxed), 0);
    assert_eq!(honest.counts().hash_requests.load(Relaxed), 1);
}

#[test]
fn an_answer_of_another_length_is_refused() {
    let (got, peer) = meet(Manner::WrongLength, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
}

#[test]
fn those_who_ask_for_everything_and_take_nothing_keep_nobody_from_being_served() {
    const MEMORY_MAX_BYTES: u64 = 150 << 20;
    let bytes = noise(64 * MIB, 27);
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "x.bin", &bytes);
    let node = world.node("node", tracker.address);
    let found = tracker.client().until_complete("x.bin", 1);
    let askers: Vec<Asker> = (0..12).map(|_| Asker::start(&node, found.info)).collect();
    for asker in &askers {
        assert!(
            (1..5000).contains(&asker.streams),
            "{} streams",
            asker.streams
        );
    }
    world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let peak = node.process.peak_memory_bytes();
    println!("peak memory of the node: {} MiB", peak >> 20);
    assert!(peak < MEMORY_MAX_BYTES, "{peak}");
}

#[test]
fn those_who_send_what_nobody_asked_for_soon_find_no_room() {
    const TAKEN_MAX: usize = MIB / 2;
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "x.bin", &noise(16 * MIB, 28));
    let node = world.node("node", tracker.address);
    let content = tracker.client().until_complete("x.bin", 1).info;
    let id = node.id.parse().unwrap();
    let taken = runtime().block_on(soon("an end of what is taken", async {
        let pouring = Client::connect(node.address, id, true).await;
        // When a peer leaves, the node divides its windows among the remaining sources.
        let going = Client::connect(node.address, id, true).await;
        going.leave().await;
        pouring.pour(content).await
    }));
    assert!((1..TAKEN_MAX).contains(&taken), "{taken} bytes");
}

/// More peers than a download connects to.
const MORE_THAN_ARE_CONNECTED: usize = 44;

/// Runs a download whose peer slots are all taken by such peers when the honest node starts.
fn fill_all_places(manner: Manner) {
    let bytes = noise(4 * MIB, 33);
    let world = World::new();
    let tracker = world.tracker();
    let useless: Vec<TestPeer> = (0..MORE_THAN_ARE_CONNECTED)
        .map(|_| TestPeer::start(manner, tracker.address, "x.bin", &bytes))
        .collect();
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    eventually("forty connections", || {
        let connections = |peer: &TestPeer| peer.counts().connections.load(Relaxed);
        let connected = useless.iter().filter(|peer| connections(peer) > 0).count();
        (connected >= 40).then_some(())
    });
    world.put("node", "x.bin", &bytes);
    let _node = world.node("node", tracker.address);
    getting.end().well();
    assert_same(&world.path("to/x.bin"), &bytes);
}

#[test]
fn those_who_have_nothing_do_not_keep_the_places_of_others() {
    fill_all_places(Manner::HasNothing);
}

#[test]
fn those_who_say_nothing_do_not_keep_the_places_of_others() {
    fill_all_places(Manner::Silent);
}

#[test]
fn those_who_have_no_hashes_do_not_keep_the_places_of_others() {
    fill_all_places(Manner::NoHashes);
}

#[test]
fn an_honest_node_is_enough_among_many_hostile_ones() {
    let bytes = noise(8 * MIB, 28);
    let world = World::new();
    let tracker = world.tracker();
    let manners = [
        Manner::WrongBytes,
        Manner::AlwaysBusy,
        Manner::NeverYet,
        Manner::Trickle,
        Manner::StallsMidChunk,
        Manner::Silent,
        Manner::Junk,
        Manner::WrongHashes,
    ];
    let peers: Vec<TestPeer> = manners
        .iter()
        .map(|&manner| TestPeer::start(manner, tracker.address, "x.bin", &bytes))
        .collect();
    world.put("node", "x.bin", &bytes);
    let _node = world.node("node", tracker.address);
    tracker
        .client()
        .until_complete("x.bin", manners.len() as u32 + 1);
    let got = world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
    for (peer, manner) in peers.iter().zip(manners) {
        // Only the peer that sent the hashes is to blame; its chunks are right.
        if manner != Manner::WrongHashes {
            assert_nothing_from(&got, peer);
        }
    }
}
