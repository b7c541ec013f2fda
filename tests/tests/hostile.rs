//! Peers that lie, stall, flood and babble: the download comes from whoever is honest, and the
//! liar is named.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::Ordering::Relaxed;

use qshare_tests::asker::Asker;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::Ended;
use qshare_tests::world::World;

const MIB: usize = 1 << 20;

/// A download that meets the hostile peer first; the honest node comes when `met` says so.
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

/// Everything of which the test's peer is the only source came from elsewhere.
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
}

#[test]
fn one_that_says_to_have_what_it_has_not_does_no_harm() {
    let (got, peer) = meet(Manner::NeverYet, |peer| peer.until_asked(1));
    assert_nothing_from(&got, &peer);
    let asked = peer.counts().chunk_requests.load(Relaxed);
    assert!(asked < 500, "asked {asked} times");
}

fn until_connected(peer: &TestPeer) {
    qshare_tests::process::eventually("a connection", || {
        (peer.counts().interests.load(Relaxed) > 0).then_some(())
    });
}

#[test]
fn nonsense_about_chunks_does_no_harm() {
    let (got, peer) = meet(Manner::NonsenseHave, until_connected);
    assert_nothing_from(&got, &peer);
}

#[test]
fn a_flood_of_news_does_no_harm() {
    let (got, peer) = meet(Manner::FloodsHave, until_connected);
    assert_nothing_from(&got, &peer);
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
fn frames_that_are_no_messages_do_no_harm() {
    let (got, peer) = meet(Manner::Junk, until_connected);
    assert_nothing_from(&got, &peer);
}

#[test]
fn a_promise_of_a_huge_frame_takes_no_memory() {
    let (got, peer) = meet(Manner::HugeFrame, until_connected);
    assert_nothing_from(&got, &peer);
}

#[test]
fn wrong_hash_pages_are_refused() {
    let (got, peer) = meet(Manner::WrongHashes, |peer| {
        qshare_tests::process::eventually("a hash request", || {
            (peer.counts().hash_requests.load(Relaxed) > 0).then_some(())
        });
    });
    assert_nothing_from(&got, &peer);
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
    let askers: Vec<Asker> = (0..4).map(|_| Asker::start(&node, found.info)).collect();
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
        // Only who was asked for hashes knows that they are wrong; the chunks there are right.
        if manner != Manner::WrongHashes {
            assert_nothing_from(&got, peer);
        }
    }
}
