//! Topics of private shares: found by those who know them, and by nobody else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use qshare_content::{Query, Topic};
use qshare_registry::{AnnouncedTopic, GroupId, HolderChange, Output, RegistryConfig, SessionId};

use super::common::{World, entry, node_id};

const TOPIC: Topic = Topic([0x5a; 32]);

fn announce(world: &mut World, session: SessionId, topics: &[(Topic, bool)]) -> usize {
    let batch: Vec<AnnouncedTopic> = topics
        .iter()
        .map(|&(topic, complete)| AnnouncedTopic { topic, complete })
        .collect();
    let refused = world
        .registry
        .handle_topics_announced(world.now, session, &batch);
    refused.unwrap().len()
}

fn holders(world: &mut World, group: GroupId, topic: Topic) -> Vec<(u8, bool)> {
    let sample = world
        .registry
        .topic_holders(world.now, group, topic, 256, None);
    let mut holders: Vec<(u8, bool)> = sample
        .holders
        .iter()
        .map(|holder| (holder.node.0[0], holder.complete))
        .collect();
    holders.sort_unstable();
    holders
}

#[test]
fn a_topic_has_holders_for_those_who_know_it_in_its_group() {
    let mut world = World::new(RegistryConfig::default());
    let (one, two) = (world.open(1), world.open(2));
    assert_eq!(announce(&mut world, one, &[(TOPIC, true)]), 0);
    assert_eq!(announce(&mut world, two, &[(TOPIC, false)]), 0);
    let expected = [(1, true), (2, false)];
    assert_eq!(holders(&mut world, GroupId::OPEN, TOPIC), expected);
    assert!(holders(&mut world, GroupId::OPEN, Topic([1; 32])).is_empty());
    assert!(holders(&mut world, GroupId([1; 32]), TOPIC).is_empty());
    announce(&mut world, two, &[(TOPIC, true)]);
    world
        .registry
        .handle_topics_withdrawn(world.now, one, &[TOPIC, Topic([9; 32])])
        .unwrap();
    assert_eq!(holders(&mut world, GroupId::OPEN, TOPIC), [(2, true)]);
}

#[test]
fn no_lookup_lists_a_topic() {
    let mut world = World::new(RegistryConfig::default());
    let one = world.open(1);
    announce(&mut world, one, &[(TOPIC, true), (Topic([0x5b; 32]), true)]);
    world.announce(one, &[entry("public", 1)]);
    for glob in ["**", "*", "t*", "*c"] {
        let listed = world.listing(Query::Name(glob.into()), 10);
        assert!(listed.len() <= 1, "{glob}: {listed:?}");
    }
    for digit in "0123456789abcdef".chars() {
        let prefix: Query = format!("id:{digit}").parse().unwrap();
        let listed = world.listing(prefix, 10);
        assert!(listed.iter().all(|(name, _)| name == "public"));
    }
    let id = qshare_content::ContentId(TOPIC.0);
    let by_node = format!("{}/topic", node_id(1));
    for query in [id.to_string(), by_node, "topic".into(), "topi".into()] {
        let page = world.find(&query);
        assert!(page.matches.is_empty(), "{query}");
        assert!(page.near.iter().all(|name| name.as_str() == "public"));
    }
    assert!(world.holders(id).is_empty());
}

#[test]
fn a_watcher_of_a_topic_hears_of_every_change() {
    let mut world = World::new(RegistryConfig::default());
    let (watcher, holder) = (world.open(1), world.open(2));
    let watch = world
        .registry
        .watch_topic(world.now, watcher, TOPIC)
        .unwrap();
    announce(&mut world, holder, &[(TOPIC, false)]);
    assert_eq!(world.outputs(), [Output::WatchReady(watch)]);
    let joined = world.changes(watch);
    assert!(matches!(&joined[..], [HolderChange::Joined(who)] if who.node == node_id(2)));
    announce(&mut world, holder, &[(TOPIC, true)]);
    let changed = world.changes(watch);
    assert!(matches!(&changed[..], [HolderChange::Changed(who)] if who.complete));
    world.close(holder, true);
    world.work_off();
    assert_eq!(world.changes(watch), [HolderChange::Left(node_id(2))]);
}

#[test]
fn topics_end_with_the_lease_and_with_an_announcement_that_omits_them() {
    let mut world = World::new(RegistryConfig::default());
    let one = world.open(1);
    announce(&mut world, one, &[(TOPIC, true), (Topic([1; 32]), true)]);
    let registry = &mut world.registry;
    registry.handle_announcement_begun(world.now, one).unwrap();
    announce(&mut world, one, &[(TOPIC, true)]);
    let registry = &mut world.registry;
    assert_eq!(registry.handle_announcement_ended(world.now, one), Ok(1));
    world.work_off();
    assert!(holders(&mut world, GroupId::OPEN, Topic([1; 32])).is_empty());
    assert_eq!(holders(&mut world, GroupId::OPEN, TOPIC), [(1, true)]);
    world.close(one, false);
    assert_eq!(holders(&mut world, GroupId::OPEN, TOPIC), [(1, true)]);
    world.pass(Duration::from_secs(31));
    world.work_off();
    assert!(holders(&mut world, GroupId::OPEN, TOPIC).is_empty());
}

#[test]
fn topics_count_as_entries_and_the_heaviest_node_loses_them_first() {
    let mut world = World::new(RegistryConfig {
        entries_total: 4,
        ..RegistryConfig::default()
    });
    let greedy = world.open_at(1, ([203, 0, 113, 1], 64500).into());
    let topics: Vec<(Topic, bool)> = (0..6).map(|at| (Topic([at; 32]), true)).collect();
    assert_eq!(announce(&mut world, greedy, &topics), 2);
    assert_eq!(world.registry.counts().entries, 4);
    let modest = world.open_at(2, ([198, 51, 100, 1], 64500).into());
    assert_eq!(announce(&mut world, modest, &[(TOPIC, true)]), 0);
    assert_eq!(holders(&mut world, GroupId::OPEN, TOPIC), [(2, true)]);
    let told = Output::EntriesEvicted(GroupId::OPEN, node_id(1));
    assert!(world.outputs().contains(&told));
    let evicted = world.registry.take_evicted(GroupId::OPEN, node_id(1));
    assert_eq!((evicted.count, evicted.entries.len()), (1, 0));
}
