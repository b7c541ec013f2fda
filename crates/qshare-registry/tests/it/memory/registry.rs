//! The registry as a tracker uses it, one promise a test.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use super::common::{World, address, entry, info, node_id, part};
use qshare_content::Query;
use qshare_registry::{
    Counts, Cursor, GroupId, HolderChange, NotAnnouncing, OpenError, Order, Output, Readiness,
    Refusal, RegistryConfig, TimeoutReason, WatchError,
};

const LEASE: Duration = Duration::from_secs(30);

fn world() -> World {
    World::new(RegistryConfig::default())
}

fn world_with(change: impl FnOnce(&mut RegistryConfig)) -> World {
    let mut config = RegistryConfig::default();
    change(&mut config);
    World::new(config)
}

#[test]
fn the_newest_session_wins_and_the_late_loss_of_the_older_changes_nothing() {
    let mut world = world();
    let older = world.open(1);
    world.announce(older, &[entry("a", 1)]);
    let newer = world.open(1);
    assert_eq!(world.outputs(), [Output::Superseded(older)]);
    world.close(older, true);
    assert_eq!(world.names("a"), ["a"]);
    let now = world.now;
    assert!(world.registry.handle_announced(now, older, &[]).is_err());
    world.close(newer, true);
    assert!(world.names("a").is_empty());
}

#[test]
fn a_clean_goodbye_drops_everything_at_once() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1), part("b", 2)]);
    world.close(session, true);
    assert_eq!(world.registry.counts(), Counts::default());
    assert_eq!(world.registry.poll_timeout(), None);
}

#[test]
fn after_a_loss_the_lease_keeps_the_entries_for_30_seconds() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1)]);
    world.close(session, false);
    let due = world.registry.poll_timeout().unwrap();
    assert_eq!(
        (due.at, due.reason),
        (world.now + LEASE, TimeoutReason::LeaseExpires)
    );
    world.pass(LEASE - Duration::from_millis(1));
    assert_eq!(world.names("a"), ["a"]);
    world.pass(Duration::from_millis(1));
    assert!(world.names("a").is_empty());
    assert_eq!(world.registry.counts(), Counts::default());
}

#[test]
fn a_node_without_entries_leaves_no_lease() {
    let mut world = world();
    let session = world.open(1);
    world.close(session, false);
    assert_eq!(world.registry.poll_timeout(), None);
    assert_eq!(world.registry.counts(), Counts::default());
}

#[test]
fn a_returning_node_takes_over_without_a_gap_and_drops_what_it_announces_no_more() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("kept", 1), entry("gone", 2)]);
    world.close(session, false);
    world.pass(LEASE / 2);
    let session = world.open(1);
    let now = world.now;
    world
        .registry
        .handle_announcement_begun(now, session)
        .unwrap();
    world.announce(session, &[entry("kept", 1), entry("new", 3)]);
    assert_eq!(world.names("*"), ["gone", "kept", "new"]);
    let ended = world.registry.handle_announcement_ended(now, session);
    assert_eq!(ended, Ok(1));
    assert_eq!(world.names("*"), ["kept", "new"]);
    world.pass(2 * LEASE);
    assert_eq!(world.names("*"), ["kept", "new"]);
}

#[test]
fn an_announcement_that_was_cut_off_drops_nothing_and_must_begin_again() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1)]);
    let now = world.now;
    world
        .registry
        .handle_announcement_begun(now, session)
        .unwrap();
    world.close(session, false);
    let session = world.open(1);
    let ended = world.registry.handle_announcement_ended(now, session);
    assert_eq!(ended, Err(NotAnnouncing::NotBegun));
    assert_eq!(world.names("a"), ["a"]);
}

#[test]
fn a_lookup_by_id_gives_a_bounded_number_of_names() {
    let mut world = world_with(|config| config.names_per_content = 3);
    let session = world.open(1);
    let empty: Vec<_> = (0..50).map(|n| entry(&format!("{n}/empty"), 1)).collect();
    world.announce(session, &empty);
    assert_eq!(world.names(&info(1).id().to_string()).len(), 3);
    let digits = &info(1).id().to_string()[..8];
    assert_eq!(world.names(&format!("id:{digits}")).len(), 1);
}

#[test]
fn pages_of_any_size_list_everything_once_and_in_order() {
    let mut world = world_with(|config| config.lookup_steps_max = 100);
    let session = world.open(1);
    let entries: Vec<_> = (0..60)
        .map(|n| entry(&format!("d{}/f{:02}", n % 3, n / 2), n))
        .collect();
    world.announce(session, &entries);
    let mut expected: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.to_string(), entry.info.id()))
        .collect();
    expected.sort();
    for limit in [1, 2, 7, 60, 100] {
        assert_eq!(world.listing(Query::Name("**".into()), limit), expected);
        let some = world.listing(Query::Name("d1/*5".into()), limit);
        let matching = expected
            .iter()
            .filter(|(name, _)| name.starts_with("d1/") && name.ends_with('5'));
        assert_eq!(some, matching.cloned().collect::<Vec<_>>());
    }
}

#[test]
fn a_cursor_from_elsewhere_harms_nobody() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("b", 1), entry("c", 2)]);
    for text in ["b", "*", "id:0", "id:f", "b*"] {
        for (name, byte) in [("", 0), ("zzz", 255), ("b", 0), ("../\0", 128)] {
            let mut find = world.query(text);
            find.after = Some(Cursor {
                order: if byte == 255 {
                    Order::Backward
                } else {
                    Order::Forward
                },
                name: name.into(),
                content: qshare_content::ContentId([byte; 32]),
            });
            let now = world.now;
            assert!(world.registry.find(now, &find).is_ok());
        }
    }
}

#[test]
fn a_glob_that_cannot_be_compiled_is_an_error() {
    let mut world = world();
    world.open(1);
    let mut find = world.query("x");
    find.query = Query::Name("[".into());
    let now = world.now;
    assert!(world.registry.find(now, &find).is_err());
}

#[test]
fn what_is_not_found_just_after_the_start_may_still_come() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1)]);
    assert_eq!(world.find("b").readiness, Readiness::Warming);
    assert_eq!(world.find("a").readiness, Readiness::Ready);
    world.pass(RegistryConfig::default().warming);
    assert_eq!(world.find("b").readiness, Readiness::Ready);
}

#[test]
fn what_one_group_announced_is_not_seen_from_another() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1)]);
    world.group = GroupId([7; 32]);
    assert!(world.names("**").is_empty());
    assert!(world.holders(info(1).id()).is_empty());
    let same_node = world.open(1);
    assert!(world.outputs().is_empty(), "one session in each group");
    world.announce(same_node, &[entry("b", 2)]);
    assert_eq!(world.names("**"), ["b"]);
    world.close(same_node, true);
    world.group = GroupId::OPEN;
    assert_eq!(world.names("**"), ["a"]);
}

#[test]
fn bounds_refuse_with_a_reason_that_says_which() {
    let limit = 2;
    let mut world = world_with(|config| {
        config.entries_per_node = limit;
        config.entries_total = 3;
        config.nodes_max = limit;
        config.name_bytes_total = 4;
    });
    let one = world.open(1);
    let refused = world.announce(one, &[entry("a", 1), entry("b", 2), entry("c", 3)]);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].position, 2);
    assert_eq!(refused[0].refusal, Refusal::NodeFull { limit });
    assert!(world.announce(one, &[part("a", 1)]).is_empty());

    // A newcomer is served at the cost of who has most, until it would have most itself.
    let two = world.open(2);
    let refused = world.announce(two, &[entry("ddd", 4), entry("dd", 4), entry("e", 5)]);
    assert_eq!(
        refused.iter().map(|r| r.refusal).collect::<Vec<_>>(),
        [
            Refusal::NamesFull { limit_bytes: 4 },
            Refusal::NamesFull { limit_bytes: 4 }
        ]
    );
    assert_eq!(world.names("**").len(), 2);

    let now = world.now;
    let third =
        world
            .registry
            .handle_session_opened(now, GroupId::OPEN, node_id(3), address(3), &[]);
    assert_eq!(third, Err(OpenError::Full { limit }));
    world.open(1);
    assert_eq!(world.registry.counts().name_bytes, 4);
}

#[test]
fn a_length_that_no_file_has_is_refused() {
    let mut world = world();
    let session = world.open(1);
    let mut endless = entry("a", 1);
    endless.info.length = u64::MAX;
    let refused = world.announce(session, &[endless]);
    assert_eq!(refused[0].refusal, Refusal::TooLong);
    assert_eq!(world.registry.counts().entries, 0);
}

#[test]
fn claimed_addresses_beyond_the_bound_are_dropped() {
    let mut world = world_with(|config| config.candidates_per_node = 2);
    let now = world.now;
    let claimed = [address(1), address(2), address(3)];
    let session = world
        .registry
        .handle_session_opened(now, GroupId::OPEN, node_id(1), address(9), &claimed)
        .unwrap();
    world.announce(session, &[entry("a", 1)]);
    let page = world.find("a");
    assert_eq!(&*page.matches[0].holders[0].contact.claimed, &claimed[..2]);
}

#[test]
fn nobody_is_sent_to_itself() {
    let mut world = world();
    let session = world.open(1);
    world.announce(session, &[entry("a", 1)]);
    let now = world.now;
    let holders = world
        .registry
        .holders(now, GroupId::OPEN, info(1).id(), 9, Some(node_id(1)));
    assert!(holders.holders.is_empty());
    let mut find = world.query("a");
    find.asking = Some(node_id(1));
    let page = world.registry.find(now, &find).unwrap();
    assert_eq!(
        (page.matches[0].complete, page.matches[0].holders.len()),
        (1, 0)
    );
}

#[test]
fn a_watcher_hears_who_joins_completes_moves_and_leaves() {
    let mut world = world();
    let watcher = world.open(1);
    let now = world.now;
    let watch = world.registry.watch(now, watcher, info(1).id()).unwrap();
    let other = world.open(2);
    world.announce(other, &[part("a", 1)]);
    assert_eq!(world.outputs(), [Output::WatchReady(watch)]);
    let changes = world.changes(watch);
    assert!(
        matches!(&changes[..], [HolderChange::Joined(h)] if h.node == node_id(2) && !h.complete)
    );

    world.announce(other, &[entry("a", 1)]);
    assert_eq!(world.outputs(), [Output::WatchReady(watch)]);
    let changes = world.changes(watch);
    assert!(matches!(&changes[..], [HolderChange::Changed(h)] if h.complete));

    let other = world.open_at(2, address(99));
    let changes = world.changes(watch);
    assert!(
        matches!(&changes[..], [HolderChange::Changed(h)] if h.contact.observed == address(99))
    );

    world.close(other, false);
    assert!(world.changes(watch).is_empty(), "the lease is running");
    world.pass(LEASE);
    assert_eq!(world.changes(watch), [HolderChange::Left(node_id(2))]);
}

#[test]
fn what_came_and_went_before_it_was_read_is_not_mentioned() {
    let mut world = world();
    let watcher = world.open(1);
    let now = world.now;
    let watch = world.registry.watch(now, watcher, info(1).id()).unwrap();
    let other = world.open(2);
    for _ in 0..5 {
        world.announce(other, &[entry("a", 1)]);
        world.withdraw(other, &[entry("a", 1)]);
    }
    assert_eq!(world.outputs(), [Output::WatchReady(watch)]);
    assert!(world.changes(watch).is_empty());
    world.announce(other, &[part("a", 1)]);
    world.announce(other, &[entry("a", 1)]);
    let changes = world.changes(watch);
    assert!(matches!(&changes[..], [HolderChange::Joined(h)] if h.complete));
}

#[test]
fn nobody_hears_of_itself_and_an_ended_watch_is_silent() {
    let mut world = world();
    let watcher = world.open(1);
    let now = world.now;
    let content = info(1).id();
    let watch = world.registry.watch(now, watcher, content).unwrap();
    world.announce(watcher, &[entry("a", 1)]);
    assert!(world.outputs().is_empty());
    world.registry.unwatch(watch);
    let other = world.open(2);
    world.announce(other, &[entry("a", 1)]);
    assert!(world.outputs().is_empty());
    assert!(world.changes(watch).is_empty());
    assert_eq!(world.registry.counts().watches, 0);
}

#[test]
fn watches_end_with_their_session_and_are_bounded() {
    let mut world = world_with(|config| config.watches_per_session = 2);
    let now = world.now;
    for clean in [true, false] {
        let session = world.open(1);
        world.announce(session, &[entry("a", 9)]);
        for content in [1, 2] {
            let watch = world.registry.watch(now, session, info(content).id());
            assert!(watch.is_ok());
        }
        let third = world.registry.watch(now, session, info(3).id());
        assert_eq!(third, Err(WatchError::TooMany { limit: 2 }));
        world.close(session, clean);
        assert_eq!(world.registry.counts().watches, 0);
        let gone = world.registry.watch(now, session, info(1).id());
        assert_eq!(gone, Err(WatchError::Gone));
    }
}

#[test]
fn what_a_watcher_is_told_does_not_grow_with_the_swarm() {
    let mut world = world_with(|config| config.watched_holders = 10);
    let watcher = world.open(255);
    let now = world.now;
    let watch = world.registry.watch(now, watcher, info(1).id()).unwrap();
    let mut told = 0;
    for node in 0..250 {
        let session = world.open(node);
        world.announce(session, &[entry("a", 1)]);
        let changes = world.changes(watch).len();
        assert!(node >= 10 || changes == 1, "the first ten are all told");
        told += changes;
    }
    // The first 10, then 10/11 + … + 10/250, which is 32.
    assert!((25..60).contains(&told), "told of {told}");
}

#[test]
fn a_watch_that_is_not_read_keeps_a_bounded_number_of_changes() {
    let mut world = world_with(|config| config.changes_per_watch = 4);
    let watcher = world.open(255);
    let now = world.now;
    let watch = world.registry.watch(now, watcher, info(1).id()).unwrap();
    for node in 0..50 {
        let session = world.open(node);
        world.announce(session, &[entry("a", 1)]);
    }
    assert_eq!(world.changes(watch).len(), 4);
}

#[test]
fn watches_that_are_not_read_leave_a_share_of_the_changes_to_others() {
    let mut world = world_with(|config| config.changes_total = 10);
    let (unread, read) = (world.open(254), world.open(255));
    let now = world.now;
    let unread = world.registry.watch(now, unread, info(1).id()).unwrap();
    for node in 0..50 {
        let session = world.open(node);
        world.announce(session, &[entry("a", 1)]);
    }
    let read = world.registry.watch(now, read, info(2).id()).unwrap();
    for node in 50..100 {
        let session = world.open(node);
        world.announce(session, &[entry("b", 2)]);
    }
    assert_eq!(world.changes(read).len(), 5, "half of them");
    assert_eq!(world.changes(unread).len(), 10, "nobody else wanted them");
    let session = world.open(101);
    world.announce(session, &[entry("b", 2)]);
    assert_eq!(
        world.changes(read).len(),
        1,
        "what was told is kept no more"
    );
}
