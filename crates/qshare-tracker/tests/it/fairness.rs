//! A few identities try to use up what all share. Loopback addresses stand for networks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::ContentId;
use qshare_net::framed::{self, ReadError};
use qshare_net::{DialTarget, connect};
use qshare_tracker::Tracker;
use qshare_wire::tracker::{Announce, AnnounceStage, EntriesEvicted, HoldersChanged};
use qshare_wire::{CloseCode, Message, Refusal};

use crate::common::{DEADLINE, Joined, Node, config, entry, find, names, start, within};

const HOSTILE: [u8; 4] = [127, 0, 2, 1];
const HONEST: [u8; 4] = [127, 0, 3, 1];
const OTHER: [u8; 4] = [127, 0, 4, 1];

async fn join_many(tracker: &Tracker, network: [u8; 4], count: usize) -> Vec<(Node, Joined)> {
    let mut joined = Vec::new();
    for _ in 0..count {
        let node = Node::in_network(network);
        let session = node.join(tracker).await;
        joined.push((node, session));
    }
    joined
}

/// Begins an announcement of `promised` bytes and sends `sent` of them.
async fn begin_announcement(session: &mut Joined, promised: u32, sent: usize) {
    let mut bytes = promised.to_le_bytes().to_vec();
    bytes.extend(Announce::TYPE.to_le_bytes());
    bytes.extend(vec![0; sent]);
    let _ = session.session.control_send.write_all(&bytes).await;
}

/// 64 headers promise all the memory that there is for announcements.
#[tokio::test]
async fn a_promised_announcement_holds_no_memory() {
    let tracker = start();
    let mut hostile = join_many(&tracker, HOSTILE, 64).await;
    for (_, session) in &mut hostile {
        begin_announcement(session, 4 << 20, 0).await;
    }
    // The default deadline of such an announcement is longer than that of this test.
    let mut honest = Node::in_network(HONEST).join(&tracker).await;
    within(honest.announce(vec![entry("a", 1)])).await;
    assert_eq!(names(&honest.find("a").await), ["a"]);
}

#[tokio::test]
async fn announcements_that_arrive_and_do_not_end_yield_to_another_network() {
    let mut config = config();
    config.limits.announcements_max_bytes = 2 << 20;
    let tracker = Tracker::start(config).unwrap();
    let mut hostile = join_many(&tracker, HOSTILE, 4).await;
    let sending: Vec<_> = hostile
        .iter_mut()
        .map(|(_, session)| begin_announcement(session, 4 << 20, 1 << 20))
        .collect();
    let mut honest = Node::in_network(HONEST).join(&tracker).await;
    let honest_announces = async {
        // Enough to need more than what the others leave.
        for n in 0..40u32 {
            let name = |m: u32| format!("{n}/{m}/{}", "x".repeat(200));
            let entries = (0..500).map(|m| entry(&name(m), 1)).collect();
            honest.announce(entries).await;
        }
    };
    let all_send = async {
        for send in sending {
            send.await;
        }
    };
    let ((), sent) = tokio::join!(
        within(honest_announces),
        tokio::time::timeout(DEADLINE, all_send)
    );
    drop(sent);
    assert_eq!(tracker.counts().entries, 40 * 500);
}

#[tokio::test]
async fn sessions_that_read_no_answers_keep_nobody_from_theirs() {
    let mut config = config();
    config.limits.answers_max_bytes = 8 << 20;
    let tracker = Tracker::start(config).unwrap();
    let mut honest = Node::in_network(HONEST).join(&tracker).await;
    let long = "x".repeat(200);
    let entries = (0..1_000)
        .map(|n| entry(&format!("{long}/{n}"), 2))
        .collect();
    honest.announce(entries).await;

    let mut request = find("**");
    request.limit = 1_000;
    let mut hostile = Vec::new();
    for _ in 0..3 {
        let node = Node::that_reads_nothing(HOSTILE);
        let session = node.join(&tracker).await;
        let mut streams = Vec::new();
        for _ in 0..240 {
            let Ok((mut send, recv)) = session.session.connection.open_bi().await else {
                break;
            };
            let _ = framed::write(&mut send, &request).await;
            streams.push((send, recv));
        }
        hostile.push((node, session, streams));
    }
    // Each answer takes 250 KB of a budget that the hostile nodes would use up alone.
    for n in 0..90 {
        let found = within(honest.ask(&request)).await;
        assert_eq!(found.unwrap().matches.len(), 1_000, "lookup {n}");
    }
    let ended = within(async {
        let ends = hostile
            .iter()
            .map(|(_, session, _)| Box::pin(session.ended()));
        let mut ends: Vec<_> = ends.collect();
        std::future::poll_fn(|context| {
            let ready = ends
                .iter_mut()
                .find_map(|end| match end.as_mut().poll(context) {
                    std::task::Poll::Ready(end) => Some(end),
                    std::task::Poll::Pending => None,
                });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    });
    if let Some((code, reason)) = ended.await {
        assert_eq!(code, CloseCode::Busy);
        assert!(reason.contains("reconnect in 5 s"), "{reason}");
    }
}

#[tokio::test]
async fn idle_sessions_of_one_network_yield_their_slots_to_another() {
    let mut config = config();
    config.limits.sessions_max = 8;
    let tracker = Tracker::start(config).unwrap();
    let hostile = join_many(&tracker, HOSTILE, 8).await;
    let honest = join_many(&tracker, HONEST, 4).await;
    for (_, session) in &honest {
        assert!(session.find("a").await.matches.is_empty());
    }
    // The longest idle ones went.
    for (_, session) in &hostile[..4] {
        if let Some((code, reason)) = session.ended().await {
            assert_eq!(code, CloseCode::Busy);
            assert!(reason.contains("reconnect in 5 s"), "{reason}");
        }
    }
    for (_, session) in &hostile[4..] {
        assert!(session.find("a").await.matches.is_empty());
    }
    // Each network has half of them: nobody else of the first gets in.
    let mut refused = 0;
    for _ in 0..4 {
        let node = Node::in_network(HOSTILE);
        match node.try_join(&tracker).await {
            Err(_) => refused += 1,
            Ok(session) => refused += usize::from(session.ask(&find("a")).await.is_err()),
        }
    }
    assert_eq!(refused, 4);
    for (_, session) in &honest {
        assert!(session.find("a").await.matches.is_empty());
    }
}

#[tokio::test]
async fn watches_of_one_network_yield_to_another() {
    let mut config = config();
    config.limits.open_streams_max = 64;
    let tracker = Tracker::start(config).unwrap();
    let greedy = Node::in_network(HOSTILE).join(&tracker).await;
    let mut watches = Vec::new();
    for n in 0..64 {
        watches.push(greedy.watch(ContentId([n; 32])).await.unwrap().1);
    }
    let honest = Node::in_network(HONEST).join(&tracker).await;
    let mut kept = Vec::new();
    for n in 0..20 {
        kept.push(honest.watch(ContentId([n; 32])).await.unwrap().1);
        assert!(honest.find("a").await.matches.is_empty());
    }
    // It is told which watches it has lost, and when to come back.
    let lost: &mut crate::common::Watching = watches.last_mut().unwrap();
    match within(framed::read::<HoldersChanged>(lost.stream())).await {
        Err(ReadError::Refused(refused)) => {
            assert_eq!(refused.refusal(), Refusal::Busy);
            assert!(refused.retry_after_ms > 0);
        }
        other => panic!("{other:?}"),
    }
    let mut sharing = Node::in_network(OTHER).join(&tracker).await;
    sharing.announce(vec![entry("a", 1)]).await;
    assert_eq!(names(&honest.find("a").await), ["a"]);
}

#[tokio::test]
async fn identities_that_introduce_each_other_leave_the_relay_to_others() {
    let mut config = config();
    let relay = config.relay.as_mut().unwrap();
    relay.pairs_max = 40;
    let tracker = Tracker::start(config).unwrap();
    let hostile = join_many(&tracker, HOSTILE, 11).await;
    let mut tickets = 0;
    for (n, (_, asker)) in hostile.iter().enumerate() {
        for (asked, _) in &hostile[n + 1..] {
            let introduced = asker.introduce(asked.endpoint.id()).await.unwrap();
            tickets += usize::from(introduced.relay.is_some());
        }
    }
    assert!(tickets >= 40, "{tickets}");
    let (a, b) = (Node::in_network(HONEST), Node::in_network(OTHER));
    let (to_a, _to_b) = (a.join(&tracker).await, b.join(&tracker).await);
    let introduced = to_a.introduce(b.endpoint.id()).await.unwrap();
    assert!(introduced.relay.is_some(), "the relay is full");
    assert_eq!(tracker.relay_counts().unwrap().pairs, 40);
}

#[tokio::test]
async fn one_asker_does_not_use_up_the_introductions_of_its_target() {
    let tracker = start();
    let victim = Node::in_network(OTHER);
    let _session = victim.join(&tracker).await;
    let hostile = Node::in_network(HOSTILE).join(&tracker).await;
    let mut refused = false;
    for _ in 0..500 {
        match hostile.introduce(victim.endpoint.id()).await {
            Ok(_) => {}
            Err(ReadError::Refused(refusal)) => {
                assert_eq!(refusal.refusal(), Refusal::Busy);
                assert!(refusal.retry_after_ms > 0);
                refused = true;
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        refused,
        "one asker may use all that nobody else asks for, and no more"
    );
    let honest = Node::in_network(HONEST).join(&tracker).await;
    for _ in 0..10 {
        honest.introduce(victim.endpoint.id()).await.unwrap();
    }
}

#[tokio::test]
async fn handshakes_without_a_hello_leave_room_for_another_network() {
    let mut config = config();
    config.limits.half_open_max = 4;
    let tracker = Tracker::start(config).unwrap();
    let target = DialTarget::Tracker(Some(tracker.id()));
    let mut silent = Vec::new();
    for _ in 0..4 {
        let node = Node::in_network(HOSTILE);
        let connection = connect(&node.endpoint, target, tracker.listen(), DEADLINE).await;
        silent.push((node, connection.unwrap()));
    }
    let honest = Node::in_network(HONEST).join(&tracker).await;
    assert!(honest.find("a").await.matches.is_empty());
}

/// Two identities with names of 1 KB take all the room that there is for names.
#[tokio::test]
async fn names_of_one_network_yield_to_another_and_their_node_is_told() {
    let mut config = config();
    config.registry.name_bytes_total = 256 << 10;
    let tracker = Tracker::start(config).unwrap();
    let component = "a".repeat(240);
    let long = format!("{component}/{component}/{component}/{component}");
    let mut hostile = join_many(&tracker, HOSTILE, 2).await;
    for (of, (_, session)) in hostile.iter_mut().enumerate() {
        let entries = (0..200).map(|n| entry(&format!("{of}{n:03}/{long}"), 1));
        // More than fits: not all of them are taken.
        session
            .batch(AnnounceStage::Delta, entries.collect(), Vec::new())
            .await;
    }
    let mut honest = Node::in_network(HONEST).join(&tracker).await;
    honest.announce(vec![entry("report.csv", 2)]).await;
    honest.announce(vec![entry(&format!("b/{long}"), 3)]).await;
    let found = honest.find("report.csv").await;
    assert_eq!(names(&found), ["report.csv"]);
    let told = async {
        let mut reports = Vec::new();
        for (_, session) in &mut hostile {
            let recv = &mut session.session.control_recv;
            reports.push(Box::pin(framed::read::<EntriesEvicted>(recv)));
        }
        let report = std::future::poll_fn(|context| {
            let ready = reports
                .iter_mut()
                .find_map(|report| match report.as_mut().poll(context) {
                    std::task::Poll::Ready(report) => Some(report),
                    std::task::Poll::Pending => None,
                });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        report.await.unwrap()
    };
    let report = within(told).await;
    assert!(
        report.entries > 0 && report.retry_after_ms > 0,
        "{report:?}"
    );
}
