//! The conformance suite on the registry in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use qshare_content::{NodeId, Query, Topic};
use qshare_registry::{
    Announced, AnnouncedTopic, Cursor, EntryKey, Find, GroupId, HolderChange, Registry,
    RegistryConfig, SessionId, WatchId,
};

use super::common::{address, node_id};
use crate::conformance::model::{Effort, any_history};
use crate::conformance::{Answer, Change, Found, Registered, Watched, promises};

const HOLDERS: usize = 16;

/// The registry with a clock that only the test moves.
struct Alone {
    registry: Registry,
    now: Instant,
    sessions: BTreeMap<u8, SessionId>,
    watches: Vec<WatchId>,
}

impl Alone {
    fn new() -> Alone {
        let now = Instant::now();
        Alone {
            registry: Registry::new(RegistryConfig::default(), now, 1),
            now,
            sessions: BTreeMap::new(),
            watches: Vec::new(),
        }
    }

    fn close(&mut self, node: u8, clean: bool) {
        let session = self.sessions.remove(&node).unwrap();
        self.registry
            .handle_session_closed(self.now, session, clean);
        self.registry.handle_timeout(self.now);
    }
}

impl Registered for Alone {
    type Cursor = Cursor;

    fn places(&self) -> usize {
        1
    }

    fn node(&mut self, node: u8) -> NodeId {
        node_id(node)
    }

    fn begin(&mut self, node: u8, entries: &[Announced]) {
        let id = node_id(node);
        let session = self
            .registry
            .handle_session_opened(self.now, GroupId::OPEN, id, address(node), &[])
            .unwrap();
        self.sessions.insert(node, session);
        let begun = self.registry.handle_announcement_begun(self.now, session);
        begun.unwrap();
        self.announce(node, entries);
    }

    fn end(&mut self, node: u8) {
        let session = self.sessions[&node];
        let ended = self.registry.handle_announcement_ended(self.now, session);
        ended.unwrap();
        self.registry.handle_timeout(self.now);
    }

    fn announce(&mut self, node: u8, entries: &[Announced]) {
        let session = self.sessions[&node];
        let refused = self.registry.handle_announced(self.now, session, entries);
        assert!(refused.unwrap().is_empty());
    }

    fn withdraw(&mut self, node: u8, entries: &[Announced]) {
        let keys = entries.iter().map(|entry| EntryKey {
            name: entry.name.clone(),
            content: entry.info.id(),
        });
        let keys: Vec<EntryKey> = keys.collect();
        self.registry
            .handle_withdrawn(self.now, self.sessions[&node], &keys)
            .unwrap();
    }

    fn announce_topics(&mut self, node: u8, topics: &[(Topic, bool)], removed: &[Topic]) {
        let session = self.sessions[&node];
        let topics = topics
            .iter()
            .map(|&(topic, complete)| AnnouncedTopic { topic, complete });
        let topics: Vec<AnnouncedTopic> = topics.collect();
        let registry = &mut self.registry;
        let refused = registry.handle_topics_announced(self.now, session, &topics);
        assert!(refused.unwrap().is_empty());
        registry
            .handle_topics_withdrawn(self.now, session, removed)
            .unwrap();
    }

    fn leave(&mut self, node: u8) {
        self.close(node, true);
    }

    fn lose(&mut self, node: u8) {
        self.close(node, false);
    }

    fn pass_a_lease(&mut self) {
        self.now += RegistryConfig::default().lease + Duration::from_millis(1);
        self.registry.handle_timeout(self.now);
    }

    fn page(
        &mut self,
        _place: usize,
        query: &Query,
        after: Option<Cursor>,
        limit: usize,
    ) -> (Answer, Option<Cursor>) {
        let find = Find {
            group: GroupId::OPEN,
            query: query.clone(),
            after,
            limit,
            holders: HOLDERS,
            asking: None,
            near: true,
        };
        let page = self.registry.find(self.now, &find).unwrap();
        let matches = page.matches.into_iter().map(|found| Found {
            name: found.name.to_string(),
            info: found.info,
            complete: found.complete,
            partial: found.partial,
            holders: found.holders.iter().map(|h| (h.node, h.complete)).collect(),
            metadata: found.metadata,
        });
        let answer = Answer {
            matches: matches.collect(),
            near: page.near.iter().map(ToString::to_string).collect(),
        };
        (answer, page.more)
    }

    fn holders(&mut self, _place: usize, of: Watched) -> BTreeMap<NodeId, bool> {
        let (registry, now, group) = (&mut self.registry, self.now, GroupId::OPEN);
        let sample = match of {
            Watched::Content(content) => registry.holders(now, group, content, HOLDERS, None),
            Watched::Topic(topic) => registry.topic_holders(now, group, topic, HOLDERS, None),
        };
        let holders = sample.holders.iter();
        holders.map(|h| (h.node, h.complete)).collect()
    }

    fn watch(&mut self, node: u8, watched: Watched) -> (usize, BTreeMap<NodeId, bool>) {
        let session = self.sessions[&node];
        let watch = match watched {
            Watched::Content(content) => self.registry.watch(self.now, session, content),
            Watched::Topic(topic) => self.registry.watch_topic(self.now, session, topic),
        };
        self.watches.push(watch.unwrap());
        let mut holders = self.holders(0, watched);
        holders.remove(&node_id(node));
        (self.watches.len() - 1, holders)
    }

    fn changes(&mut self, watch: usize) -> Vec<Change> {
        let watch = self.watches[watch];
        let changes = std::iter::from_fn(|| self.registry.poll_change(self.now, watch));
        changes
            .map(|change| match change {
                HolderChange::Joined(holder) | HolderChange::Changed(holder) => {
                    Change::Holds(holder.node, holder.complete)
                }
                HolderChange::Left(node) => Change::Left(node),
            })
            .collect()
    }

    fn eventually(&mut self, mut check: impl FnMut(&mut Alone) -> Result<(), String>) {
        if let Err(error) = check(self) {
            panic!("{error}");
        }
    }
}

#[test]
fn every_promise_holds() {
    for (name, promise) in promises::<Alone>() {
        eprintln!("{name}");
        promise(&mut Alone::new());
    }
}

#[test]
fn any_history_gives_the_answers_of_the_model() {
    let effort = Effort {
        histories: 256,
        steps: 100,
        steps_between: 1,
    };
    any_history(effort, Alone::new);
}
