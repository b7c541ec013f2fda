//! A registry that is full, and one that has much to do at once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use qshare_content::{AssetName, ContentInfo, Hash, NodeId, Query};
use qshare_registry::{
    Announced, GroupId, HolderChange, OpenError, Order, Output, Refusal, RegistryConfig, SessionId,
};

use super::common::{World, entry, info, node_id};

fn world_with(change: impl FnOnce(&mut RegistryConfig)) -> World {
    let mut config = RegistryConfig::default();
    change(&mut config);
    World::new(config)
}

/// A public address: the host of a /24.
fn at(network: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, network, host], 64500))
}

fn numbered(name: impl Into<String>, number: u32) -> Announced {
    let mut root = [0; 32];
    root[..4].copy_from_slice(&number.to_le_bytes());
    Announced {
        is_collection: false,
        name: AssetName::new(name).unwrap(),
        info: ContentInfo {
            length: 1,
            root: Hash(root),
        },
        complete: true,
        metadata: Default::default(),
    }
}

fn files(directory: &str, count: u32) -> Vec<Announced> {
    let file = |n| numbered(format!("{directory}/{n:06}.bin"), n);
    (0..count).map(file).collect()
}

/// The number of a node's entries, by lookups of its names.
fn left(world: &mut World, directory: &str) -> usize {
    world
        .listing(Query::Name(format!("{directory}/**")), 1_000)
        .len()
}

#[test]
fn when_the_entries_are_used_up_the_network_that_has_most_yields_and_is_told() {
    let mut world = world_with(|config| config.entries_total = 1_000);
    // Ten identities of one network have a hundred entries each, less than the honest node.
    let hostile: Vec<SessionId> = (0..10).map(|n| world.open_at(n, at(1, n))).collect();
    for (n, &session) in hostile.iter().enumerate() {
        assert!(
            world
                .announce(session, &files(&format!("h{n}"), 100))
                .is_empty()
        );
    }
    let honest = world.open_at(100, at(2, 1));
    assert!(world.announce(honest, &files("honest", 300)).is_empty());
    assert_eq!(left(&mut world, "honest"), 300);
    let counts = world.registry.counts();
    assert_eq!((counts.entries, counts.evicted), (1_000, 300));

    let mut told = 0;
    for output in world.outputs() {
        let Output::EntriesEvicted(group, node) = output else {
            panic!("{output:?}");
        };
        let evicted = world.registry.take_evicted(group, node);
        assert!(!evicted.entries.is_empty() && evicted.count <= 31);
        for key in &evicted.entries {
            assert!(world.names(key.name.as_str()).is_empty(), "{:?}", key.name);
        }
        told += evicted.count;
    }
    assert_eq!(told, 300, "each of the ten gave its part");
    // They cannot take it back while the honest network has less.
    let refused = world.announce(hostile[0], &files("again", 50));
    assert_eq!(left(&mut world, "honest"), 300);
    assert!(refused.len() >= 20, "{}", refused.len());
}

#[test]
fn when_the_memory_for_names_is_used_up_long_names_yield_to_a_single_file() {
    let mut world = world_with(|config| config.name_bytes_total = 100_000);
    let long = "x".repeat(200);
    for (node, network) in [(1, 1), (2, 1)] {
        let session = world.open_at(node, at(network, node));
        let names = (0..400).map(|n| numbered(format!("{node}/{long}/{n}"), n));
        let refused = world.announce(session, &names.collect::<Vec<_>>());
        assert!(node == 1 || !refused.is_empty());
    }
    let honest = world.open_at(3, at(2, 1));
    assert!(world.announce(honest, &[entry("report.pdf", 1)]).is_empty());
    assert_eq!(world.names("report.pdf"), ["report.pdf"]);
    assert!(world.registry.counts().name_bytes <= 100_000);
}

#[test]
fn names_that_many_announce_are_freed_when_their_network_yields() {
    let mut world = world_with(|config| config.name_bytes_total = 20_000);
    let long = "x".repeat(200);
    for node in 0..20 {
        let session = world.open_at(node, at(1, node));
        let names = (0..90).map(|n| numbered(format!("{long}/{n:03}"), n));
        world.announce(session, &names.collect::<Vec<_>>());
    }
    let honest = world.open_at(100, at(2, 1));
    let file = [numbered(format!("honest/{long}/{long}"), 1)];
    // Each of the twenty gives up the same name in turn.
    let attempts = (0..20).take_while(|_| !world.announce(honest, &file).is_empty());
    assert!(attempts.count() < 10);
    assert_eq!(left(&mut world, "honest"), 1);
}

#[test]
fn equals_do_not_displace_each_other() {
    let mut world = world_with(|config| {
        config.entries_total = 100;
        config.nodes_max = 2;
    });
    for (node, network) in [(1, 1), (2, 2)] {
        let session = world.open_at(node, at(network, node));
        world.announce(session, &files(&node.to_string(), 50));
    }
    let session = world.open_at(1, at(1, 1));
    let refused = world.announce(session, &[entry("one more", 1)]);
    assert_eq!(refused[0].refusal, Refusal::RegistryFull { limit: 100 });
    let now = world.now;
    let third = world
        .registry
        .handle_session_opened(now, GroupId::OPEN, node_id(3), at(3, 1), &[]);
    assert_eq!(third, Err(OpenError::Full { limit: 2 }));
    assert_eq!(world.registry.counts().evicted, 0);
}

#[test]
fn when_there_are_too_many_nodes_one_of_the_fullest_network_makes_room() {
    let mut world = world_with(|config| config.nodes_max = 4);
    let sessions: Vec<SessionId> = (0..4).map(|n| world.open_at(n, at(1, n))).collect();
    // One of them was lost, and goes before those that are connected.
    world.announce(sessions[2], &[entry("lost", 1)]);
    world.close(sessions[2], false);
    world.outputs();
    let first = world.open_at(100, at(2, 1));
    assert!(world.outputs().is_empty());
    assert!(world.names("lost").is_empty());
    world.open_at(101, at(3, 1));
    let outputs = world.outputs();
    let [Output::SessionEvicted(evicted)] = outputs[..] else {
        panic!("{outputs:?}");
    };
    assert!(sessions.contains(&evicted));
    let now = world.now;
    assert!(world.registry.handle_announced(now, evicted, &[]).is_err());
    assert!(world.registry.handle_announced(now, first, &[]).is_ok());
    assert_eq!(world.registry.counts().nodes, 4);
}

#[test]
fn a_node_that_leaves_with_many_entries_is_removed_bit_by_bit() {
    let mut world = world_with(|_| {});
    let session = world.open(1);
    world.announce(session, &files("a", 10_000));
    world.close(session, true);
    assert!(world.registry.counts().entries > 9_000, "not all at once");
    assert!(world.holders(numbered("a", 5).info.id()).is_empty());
    let calls = world.work_off();
    assert!((10..200).contains(&calls), "{calls}");
    assert_eq!(world.registry.counts(), Default::default());
}

#[test]
fn a_node_that_comes_back_while_its_entries_are_removed_keeps_only_new_ones() {
    let mut world = world_with(|_| {});
    let session = world.open(1);
    world.announce(session, &files("a", 5_000));
    world.close(session, true);
    let again = world.open(1);
    world.announce(again, &files("b", 10));
    world.work_off();
    assert_eq!(world.registry.counts().entries, 10);
    assert_eq!((left(&mut world, "a"), left(&mut world, "b")), (0, 10));
}

#[test]
fn the_end_of_a_large_announcement_removes_the_rest_bit_by_bit() {
    let mut world = world_with(|_| {});
    let session = world.open(1);
    world.announce(session, &files("a", 5_000));
    let now = world.now;
    world
        .registry
        .handle_announcement_begun(now, session)
        .unwrap();
    world.announce(session, &files("a", 100));
    let removed = world.registry.handle_announcement_ended(now, session);
    assert_eq!(removed, Ok(4_900));
    // Meanwhile one comes back, and another announcement begins.
    world.announce(session, &files("a", 101)[100..]);
    world
        .registry
        .handle_announcement_begun(now, session)
        .unwrap();
    world.work_off();
    assert_eq!(left(&mut world, "a"), 101);
}

#[test]
fn many_leases_that_expire_at_once_are_worked_off_bit_by_bit() {
    let mut world = world_with(|_| {});
    let now = world.now;
    for n in 0..5_000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let session = world
            .registry
            .handle_session_opened(now, GroupId::OPEN, NodeId(id), at(1, 1), &[])
            .unwrap();
        world.announce(session, &[entry("a", 1)]);
        world.close(session, false);
    }
    world.pass(Duration::from_secs(60));
    let now = world.now;
    world.registry.handle_timeout(now);
    assert!(world.registry.counts().nodes > 3_000);
    while world.registry.poll_timeout().is_some() {
        world.registry.handle_timeout(now);
    }
    assert_eq!(world.registry.counts().nodes, 0);
    assert_eq!(world.registry.counts().entries, 0);
}

#[test]
fn a_node_that_moves_walks_its_own_entries_and_tells_only_their_watchers() {
    let mut world = world_with(|config| config.watches_per_session = 10_000);
    let watcher = world.open(1);
    let now = world.now;
    // Many contents are watched that the other has nothing of.
    for n in 0..5_000 {
        let content = numbered("x", 1_000_000 + n).info.id();
        world.registry.watch(now, watcher, content).unwrap();
    }
    let other = world.open(2);
    world.announce(other, &files("a", 3_000));
    let watched = numbered("x", 2_999).info.id();
    let watch = world.registry.watch(now, watcher, watched).unwrap();
    world
        .registry
        .handle_moved(now, other, at(9, 9), &[])
        .unwrap();
    let calls = world.work_off();
    assert!(calls <= 3_000 / 128, "{calls} calls for 3,000 entries");
    assert_eq!(world.outputs(), [Output::WatchReady(watch)]);
    let changes = world.changes(watch);
    let [HolderChange::Changed(holder)] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(holder.contact.observed, at(9, 9));
}

#[test]
fn globs_visit_the_names_that_their_beginning_or_their_ending_selects() {
    let mut world = world_with(|_| {});
    let session = world.open(1);
    for batch in files("a", 20_000).chunks(1_000) {
        world.announce(session, batch);
    }
    let images = |n: u32| numbered(format!("d{}/{n}.iso", n % 3), 100_000 + n);
    world.announce(session, &(0..30).map(images).collect::<Vec<_>>());
    world.announce(
        session,
        &[numbered("top.iso", 200_000), entry("été.isó", 1)],
    );
    let visited = |world: &mut World, glob: &str| {
        let mut find = world.query(glob);
        find.limit = 10;
        find.holders = 0;
        let mut matches = 0;
        let mut steps = 0;
        loop {
            let now = world.now;
            let page = world.registry.find(now, &find).unwrap();
            matches += page.matches.len();
            steps += page.steps;
            let Some(more) = page.more else {
                return (matches, steps, find.after.map(|after| after.order));
            };
            find.after = Some(more);
        }
    };
    for (glob, expected, order) in [
        ("**/*.iso", 31, Order::Backward),
        ("d1/**", 10, Order::Forward),
        ("d1/*.iso", 10, Order::Forward),
    ] {
        let (matches, steps, in_order) = visited(&mut world, glob);
        assert_eq!(matches, expected, "{glob}");
        assert!(in_order.is_none_or(|in_order| in_order == order), "{glob}");
        assert!(steps < 20_000, "{glob}: {steps}");
    }
    let (matches, ..) = visited(&mut world, "*.iso");
    assert_eq!(matches, 1);
    assert_eq!(world.names("*.isó"), ["été.isó"]);
    assert_eq!(world.names(&format!("{}", info(1).id())), ["été.isó"]);
}
