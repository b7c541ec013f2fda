//! Hostile sessions. The tracker refuses or closes them and keeps serving honest sessions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use crate::common::{DEADLINE, Joined, Node, config, entry, find, names, start, within};
use qshare_content::Query;
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialTarget, dial};
use qshare_tracker::Tracker;
use qshare_wire::limits::ANNOUNCE_ENTRIES_MAX;
use qshare_wire::tracker::{Announce, AnnounceStage, Entry, EntryKey, Find, Found};
use qshare_wire::{CloseCode, FRAME_HEADER_BYTES, Message, Refusal, Refused};
use serde::{Deserialize, Serialize};

fn frame(kind: u16, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn whole_frame(kind: u16, body: &[u8]) -> Vec<u8> {
    frame(kind, body.len() as u32, body)
}

/// Sends `bytes` on a new stream, as a request.
async fn send(session: &Joined, bytes: &[u8]) -> quinn::RecvStream {
    let (mut send, recv) = session.session.connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    recv
}

/// Opens two sessions of different nodes: an honest one that shares "a", and a hostile one.
async fn honest_and_hostile(tracker: &Tracker) -> (Joined, Joined) {
    let mut honest = Node::new(None).join(tracker).await;
    honest.announce(vec![entry("a", 1)]).await;
    let hostile = Node::new(None).join(tracker).await;
    (honest, hostile)
}

#[tokio::test]
async fn an_unknown_request_is_refused_and_the_connection_lives() {
    let tracker = start();
    let session = Node::new(None).join(&tracker).await;
    for bytes in [whole_frame(999, b"later"), frame(999, u32::MAX, b"")] {
        let mut answer = send(&session, &bytes).await;
        let refused: Refused = within(framed::read(&mut answer)).await.unwrap();
        assert_eq!(refused.refusal(), Refusal::Invalid);
    }
    assert!(session.find("a").await.matches.is_empty());
}

#[tokio::test]
async fn junk_in_the_place_of_a_request_closes_only_that_connection() {
    let tracker = start();
    for bytes in [
        whole_frame(Find::TYPE, &[0xff; 64]),
        frame(Find::TYPE, u32::MAX, b""),
    ] {
        let (honest, hostile) = honest_and_hostile(&tracker).await;
        send(&hostile, &bytes).await;
        let (code, reason) = hostile.closed().await;
        assert_eq!(code, CloseCode::Protocol);
        assert!(!reason.is_empty());
        assert_eq!(names(&honest.find("a").await), ["a"]);
    }
}

#[tokio::test]
async fn junk_on_the_control_stream_closes_only_that_connection() {
    let tracker = start();
    for bytes in [
        whole_frame(Announce::TYPE, &[0xff; 64]),
        frame(Announce::TYPE, u32::MAX, b""),
        frame(999, u32::MAX, b""),
    ] {
        let (honest, mut hostile) = honest_and_hostile(&tracker).await;
        let control = &mut hostile.session.control_send;
        control.write_all(&bytes).await.unwrap();
        assert_eq!(hostile.closed().await.0, CloseCode::Protocol);
        assert_eq!(names(&honest.find("a").await), ["a"]);
    }
}

#[tokio::test]
async fn an_unknown_frame_on_the_control_stream_is_passed_over() {
    let tracker = start();
    let mut session = Node::new(None).join(&tracker).await;
    let control = &mut session.session.control_send;
    control
        .write_all(&whole_frame(999, b"later"))
        .await
        .unwrap();
    let refused: Refused = within(framed::read(&mut session.session.control_recv))
        .await
        .unwrap();
    assert_eq!(refused.refusal(), Refusal::Invalid);
    session.announce(vec![entry("a", 1)]).await;
}

/// An announcement whose encoder does not enforce the length limits.
#[derive(Serialize, Deserialize)]
struct Overlong {
    sequence: u64,
    stage: AnnounceStage,
    entries: Vec<Entry>,
    removed: Vec<EntryKey>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Message for Overlong {
    const TYPE: u16 = Announce::TYPE;
    const BODY_MAX_BYTES: usize = Announce::BODY_MAX_BYTES;
    const NAME: &'static str = "Overlong";
}

#[tokio::test]
async fn overlong_lists_break_the_protocol() {
    let tracker = start();
    let overlong = Overlong {
        sequence: 0,
        stage: AnnounceStage::Delta,
        entries: vec![entry("b", 2); ANNOUNCE_ENTRIES_MAX + 1],
        removed: Vec::new(),
        extensions: Vec::new(),
    };
    let (honest, mut hostile) = honest_and_hostile(&tracker).await;
    let control = &mut hostile.session.control_send;
    framed::write(control, &overlong).await.unwrap();
    if let Some((code, reason)) = hostile.ended().await {
        assert_eq!(code, CloseCode::Protocol);
        assert!(reason.contains("entries"), "{reason}");
    }
    assert_eq!(names(&honest.find("*").await), ["a"]);
}

#[tokio::test]
async fn batches_out_of_order_break_the_protocol() {
    let tracker = start();
    for (sequence, stage) in [(1, AnnounceStage::Delta), (0, AnnounceStage::FullEnd)] {
        let mut session = Node::new(None).join(&tracker).await;
        let announce = Announce {
            sequence,
            stage,
            entries: Vec::new(),
            removed: Vec::new(),
            extensions: Vec::new(),
        };
        let control = &mut session.session.control_send;
        framed::write(control, &announce).await.unwrap();
        assert_eq!(session.closed().await.0, CloseCode::Protocol);
    }
}

#[tokio::test]
async fn who_does_not_read_answers_keeps_nobody_else_waiting() {
    let mut config = config();
    config.limits.transfer_deadline = Duration::from_secs(2);
    config.limits.answers_max_bytes = 1 << 20;
    let tracker = Tracker::start(config).unwrap();
    let (mut honest, hostile) = honest_and_hostile(&tracker).await;
    let long = "x".repeat(200);
    let many = |from: u32| {
        let name = |n| format!("{long}/{n}");
        (from..from + 1_000)
            .map(move |n| entry(&name(n), 2))
            .collect()
    };
    honest.announce(many(0)).await;
    honest.announce(many(1_000)).await;
    let mut request = find("**");
    request.limit = 1_000;
    // The hostile session requests 250 KB ten times and reads nothing.
    let mut unread = Vec::new();
    for _ in 0..10 {
        let (mut send, recv) = hostile.session.connection.open_bi().await.unwrap();
        framed::write(&mut send, &request).await.unwrap();
        unread.push((send, recv));
    }
    within(async {
        // The tracker may refuse small answers as busy until the deadline frees the memory.
        loop {
            match honest.ask(&find("a")).await {
                Ok(found) => break assert_eq!(names(&found), ["a"]),
                Err(ReadError::Refused(refused)) => assert_eq!(refused.refusal(), Refusal::Busy),
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn too_many_requests_are_refused_with_a_time_and_then_end_the_session() {
    let mut config = config();
    config.limits.requests_per_second = 1;
    config.limits.requests_burst = 5;
    let tracker = Tracker::start(config).unwrap();
    let session = Node::new(None).join(&tracker).await;
    let mut refusals = 0;
    let ended = loop {
        match session.ask(&find("a")).await {
            Ok(_) => assert_eq!(refusals, 0, "granted after a refusal, at once"),
            Err(ReadError::Refused(refused)) => {
                assert_eq!(refused.refusal(), Refusal::Busy);
                assert!(refused.retry_after_ms > 0);
                refusals += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, ReadError::Broken(_)), "{ended}");
    assert!(refusals > 0);
    assert_eq!(session.closed().await.0, CloseCode::Flood);
}

#[tokio::test]
async fn an_honest_session_is_answered_while_another_asks_for_much_at_once() {
    let tracker = start();
    let (honest, mut hostile) = honest_and_hostile(&tracker).await;
    // Each name has 965 bytes.
    let component = "a".repeat(240);
    let name = |n| format!("{n:05}/{component}/{component}/{component}/{:a<236}", "");
    for batch in 0..6 {
        let batch = (batch * 900..(batch + 1) * 900).map(|n| entry(&name(n), 2));
        hostile.announce(batch.collect()).await;
    }
    // The pattern matches no name, and each comparison is costly.
    let mut costly = find("x");
    costly.query = Query::Name(format!("**/*a{}z*", "?".repeat(229)));
    const AT_ONCE: usize = 250;
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..AT_ONCE {
        let (mut send, mut recv) = hostile.session.connection.open_bi().await.unwrap();
        framed::write(&mut send, &costly).await.unwrap();
        send.finish().unwrap();
        let answered = answered.clone();
        tokio::spawn(async move {
            let _ = answered.send(framed::read::<Found>(&mut recv).await.is_ok());
        });
    }
    // The first answer shows that the tracker is processing the costly lookups.
    within(answers.recv()).await.unwrap();
    // Between two answers to the honest session, the hostile session gets a few turns: as many as
    // come round while a small answer travels, and far fewer than it requested.
    let mut meanwhile = Vec::new();
    let mut left = AT_ONCE - 1;
    while left > AT_ONCE / 2 {
        assert_eq!(names(&honest.find("a").await), ["a"]);
        let replies: Vec<bool> = std::iter::from_fn(|| answers.try_recv().ok()).collect();
        left -= replies.len();
        // The tracker refuses lookups that waited too long for a turn. A refusal costs no turn.
        meanwhile.push(replies.into_iter().filter(|&is_answer| is_answer).count());
    }
    assert!(meanwhile.len() >= 4, "{meanwhile:?}");
    assert!(meanwhile.iter().all(|&turns| turns <= 40), "{meanwhile:?}");
}

#[tokio::test]
async fn a_costly_lookup_is_charged_by_its_work() {
    let mut config = config();
    config.limits.requests_per_second = 1;
    config.limits.requests_burst = 50;
    let tracker = Tracker::start(config).unwrap();
    let (honest, mut hostile) = honest_and_hostile(&tracker).await;
    let long = "a".repeat(240);
    let many = (0..900).map(|n| entry(&format!("{n:05}/{long}/{long}/{long}"), 2));
    hostile.announce(many.collect()).await;
    let mut costly = find("x");
    costly.query = Query::Name(format!("**/*a{}z*", "?".repeat(229)));
    let mut granted = 0;
    let refused = loop {
        match hostile.ask(&costly).await {
            Ok(_) => granted += 1,
            Err(ReadError::Refused(refused)) => break refused,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(refused.refusal(), Refusal::Busy);
    assert!(refused.retry_after_ms > 0);
    assert!(
        (1..10).contains(&granted),
        "{granted} of what costs 11 each"
    );
    assert_eq!(names(&honest.find("a").await), ["a"]);
}

#[tokio::test]
async fn a_nodes_protocol_is_not_spoken() {
    let tracker = start();
    let node = Node::new(None);
    let target = DialTarget::Node(tracker.id());
    let dialled = dial(
        &node.endpoint,
        &node.greeting,
        target,
        tracker.listen(),
        DEADLINE,
    );
    assert!(dialled.await.is_err());
    assert_eq!(tracker.counts().sessions, 0);
}

#[tokio::test]
async fn a_batch_that_is_begun_and_not_ended_is_waited_for_only_so_long() {
    let mut config = config();
    config.limits.transfer_deadline = Duration::from_millis(200);
    // The memory limit has room for one such batch. Another batch waits until the first times out.
    config.limits.announcements_max_bytes = 1 << 20;
    let tracker = Tracker::start(config).unwrap();
    let mut slow = Node::new(None).join(&tracker).await;
    let begun = frame(Announce::TYPE, 1 << 20, &[0; 100]);
    slow.session.control_send.write_all(&begun).await.unwrap();
    let mut honest = Node::new(None).join(&tracker).await;
    honest.announce(vec![entry("a", 1)]).await;
    assert_eq!(slow.closed().await.0, CloseCode::Protocol);
    assert_eq!(names(&honest.find("a").await), ["a"]);
}
