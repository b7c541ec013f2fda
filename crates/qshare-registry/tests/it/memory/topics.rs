//! Topics of private shares: found by those who know them, and by nobody else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::Topic;
use qshare_registry::{AnnouncedTopic, GroupId, Output, RegistryConfig, SessionId};

use super::common::{World, node_id};

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
