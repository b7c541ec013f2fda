//! The registry against a model with its bounds, its counts, its outputs and announcements that
//! overlap, on random histories. The suite has a simpler one for every registry.
//!
//! proptest prints the history that fails, shrunk, and the seed to run it again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::common::{World, address, entry, info, node_id, part};
use proptest::prelude::*;
use qshare_content::{ContentId, NamePattern, NodeId, Query};
use qshare_registry::{
    EntryKey, GroupId, HolderChange, Output, RegistryConfig, SessionId, WatchId,
};

// Few of each, so that histories meet the same thing again.
const NODES: u8 = 3;
const CONTENTS: u8 = 2;
const NAMES: [&str; 3] = ["a", "a/b", "c/d/e"];
const ENTRIES_PER_NODE: usize = 5;
const ENTRIES_TOTAL: usize = 12;

#[derive(Clone, Debug)]
enum Step {
    Open {
        group: u8,
        node: u8,
    },
    Close {
        session: usize,
        clean: bool,
    },
    Begin {
        session: usize,
    },
    Announce {
        session: usize,
        name: usize,
        content: u8,
        complete: bool,
    },
    Withdraw {
        session: usize,
        name: usize,
        content: u8,
    },
    End {
        session: usize,
    },
    Watch {
        session: usize,
        content: u8,
    },
    Read {
        watch: usize,
    },
    Pass {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..5usize;
    let name = 0..NAMES.len();
    prop_oneof![
        3 => (0..2u8, 0..NODES).prop_map(|(group, node)| Step::Open { group, node }),
        1 => (session.clone(), any::<bool>())
            .prop_map(|(session, clean)| Step::Close { session, clean }),
        3 => session.clone().prop_map(|session| Step::Begin { session }),
        3 => session.clone().prop_map(|session| Step::End { session }),
        14 => (session.clone(), name.clone(), 0..CONTENTS, any::<bool>()).prop_map(
            |(session, name, content, complete)| Step::Announce { session, name, content, complete }
        ),
        3 => (session.clone(), name, 0..CONTENTS)
            .prop_map(|(session, name, content)| Step::Withdraw { session, name, content }),
        3 => (session, 0..CONTENTS).prop_map(|(session, content)| Step::Watch { session, content }),
        4 => any::<usize>().prop_map(|watch| Step::Read { watch }),
        2 => (0..25u64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

type NodeKey = (GroupId, NodeId);
/// (group, node, name, content)
type Key = (GroupId, NodeId, &'static str, ContentId);

/// Every entry in one flat map; every question answered by looking through all of it.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Key, Said>,
    /// The sessions in the order in which they were opened, ended ones included.
    sessions: Vec<(SessionId, NodeKey)>,
    open: BTreeSet<SessionId>,
    announcing: BTreeSet<SessionId>,
    leases: BTreeMap<NodeKey, u64>,
    clock_seconds: u64,
}

#[derive(Clone, Copy)]
struct Said {
    complete: bool,
    /// Said since the running announcement of its node began.
    fresh: bool,
}

impl Model {
    fn session(&self, choice: usize) -> Option<(SessionId, NodeKey)> {
        // Among the last few, so that both open and ended ones are met.
        let index = self.sessions.len().checked_sub(1 + choice)?;
        Some(self.sessions[index])
    }

    fn of_node(&self, node: NodeKey) -> usize {
        let entries = self.entries.keys();
        entries.filter(|(g, n, ..)| (*g, *n) == node).count()
    }

    fn forget(&mut self, node: NodeKey) {
        self.entries.retain(|(g, n, ..), _| (*g, *n) != node);
    }

    fn pass(&mut self, seconds: u64) {
        self.clock_seconds += seconds;
        let expired: Vec<NodeKey> = self
            .leases
            .iter()
            .filter(|(_, until)| **until <= self.clock_seconds)
            .map(|(node, _)| *node)
            .collect();
        for node in expired {
            self.leases.remove(&node);
            self.forget(node);
        }
    }

    fn listing(&self, group: GroupId, wanted: impl Fn(&Key) -> bool) -> Vec<(String, ContentId)> {
        let found: BTreeSet<_> = self
            .entries
            .keys()
            .filter(|key| key.0 == group && wanted(key))
            .map(|(_, _, name, content)| (name.to_string(), *content))
            .collect();
        found.into_iter().collect()
    }

    fn holders(&self, group: GroupId, content: ContentId) -> BTreeMap<NodeId, bool> {
        let mut holders = BTreeMap::new();
        for ((g, node, _, c), said) in &self.entries {
            if (*g, *c) == (group, content) {
                *holders.entry(*node).or_insert(false) |= said.complete;
            }
        }
        holders
    }
}

/// What a watcher believes, from a first sample and the changes since.
struct Watcher {
    id: WatchId,
    session: SessionId,
    node: NodeKey,
    content: ContentId,
    believes: BTreeMap<NodeId, bool>,
}

struct Pair {
    world: World,
    model: Model,
    watchers: Vec<Watcher>,
}

impl Pair {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Open { group, node } => self.open(GroupId([group; 32]), node),
            Step::Close { session, clean } => {
                let Some((session, node)) = self.model.session(session) else {
                    return;
                };
                self.world.close(session, clean);
                if self.model.open.remove(&session) {
                    self.model.announcing.remove(&session);
                    if clean {
                        self.model.forget(node);
                    } else if self.model.of_node(node) > 0 {
                        let until = self.model.clock_seconds + 30;
                        self.model.leases.insert(node, until);
                    }
                }
            }
            Step::Begin { session } => {
                let Some((session, node)) = self.model.session(session) else {
                    return;
                };
                let World { registry, now, .. } = &mut self.world;
                let begun = registry.handle_announcement_begun(*now, session);
                assert_eq!(begun.is_ok(), self.model.open.contains(&session));
                if begun.is_ok() {
                    self.model.announcing.insert(session);
                    for (key, said) in &mut self.model.entries {
                        said.fresh &= (key.0, key.1) != node;
                    }
                }
            }
            Step::End { session } => {
                let Some((session, node)) = self.model.session(session) else {
                    return;
                };
                let World { registry, now, .. } = &mut self.world;
                let ended = registry.handle_announcement_ended(*now, session);
                assert_eq!(ended.is_ok(), self.model.announcing.remove(&session));
                if ended.is_ok() {
                    let entries = &mut self.model.entries;
                    entries.retain(|key, said| (key.0, key.1) != node || said.fresh);
                }
            }
            Step::Announce {
                session,
                name,
                content,
                complete,
            } => {
                self.announce(session, NAMES[name], content, complete);
            }
            Step::Withdraw {
                session,
                name,
                content,
            } => {
                let Some((session, (group, node))) = self.model.session(session) else {
                    return;
                };
                if self.model.open.contains(&session) {
                    self.world.withdraw(session, &[entry(NAMES[name], content)]);
                    let key = (group, node, NAMES[name], info(content).id());
                    self.model.entries.remove(&key);
                }
            }
            Step::Watch { session, content } => self.watch(session, info(content).id()),
            Step::Read { watch } => self.read(watch),
            Step::Pass { seconds } => {
                self.world.pass(Duration::from_secs(seconds));
                self.model.pass(seconds);
            }
        }
    }

    fn open(&mut self, group: GroupId, node: u8) {
        let key = (group, node_id(node));
        self.world.outputs();
        self.world.group = group;
        let session = self.world.open_at(node, address(node));
        let older = self.model.sessions.iter().copied();
        let older: Vec<SessionId> = older
            .filter(|(id, of)| *of == key && self.model.open.contains(id))
            .map(|(id, _)| id)
            .collect();
        let superseded: Vec<Output> = older.iter().map(|&id| Output::Superseded(id)).collect();
        assert_eq!(self.world.outputs(), superseded);
        for id in older {
            self.model.open.remove(&id);
            self.model.announcing.remove(&id);
        }
        self.model.leases.remove(&key);
        self.model.sessions.push((session, key));
        self.model.open.insert(session);
    }

    fn announce(&mut self, session: usize, name: &'static str, content: u8, complete: bool) {
        let Some((session, (group, node))) = self.model.session(session) else {
            return;
        };
        let entry = if complete {
            entry(name, content)
        } else {
            part(name, content)
        };
        let World { registry, now, .. } = &mut self.world;
        let refused = registry.handle_announced(*now, session, &[entry]);
        assert_eq!(refused.is_ok(), self.model.open.contains(&session));
        let Ok(refused) = refused else {
            return;
        };
        let key = (group, node, name, info(content).id());
        let was_full = self.model.entries.len() == ENTRIES_TOTAL;
        for output in self.world.outputs() {
            if let Output::EntriesEvicted(group, node) = output {
                assert!(was_full, "evicted although there was room");
                let evicted = self.world.registry.take_evicted(group, node);
                assert_eq!(evicted.entries.len() as u64, evicted.count);
                for EntryKey { name, content } in evicted.entries {
                    let name = NAMES.iter().find(|known| **known == name.as_str());
                    let key = (group, node, *name.unwrap(), content);
                    assert!(self.model.entries.remove(&key).is_some());
                }
            }
        }
        let fits = self.model.of_node((group, node)) < ENTRIES_PER_NODE
            && self.model.entries.len() < ENTRIES_TOTAL;
        let taken = fits || self.model.entries.contains_key(&key);
        assert_eq!(refused.is_empty(), taken);
        if taken {
            let fresh = true;
            self.model.entries.insert(key, Said { complete, fresh });
        }
    }

    fn watch(&mut self, session: usize, content: ContentId) {
        let Some((session, node)) = self.model.session(session) else {
            return;
        };
        let World { registry, now, .. } = &mut self.world;
        let watch = registry.watch(*now, session, content);
        assert_eq!(watch.is_ok(), self.model.open.contains(&session));
        if let Ok(id) = watch {
            let mut believes = self.model.holders(node.0, content);
            believes.remove(&node.1);
            self.watchers.push(Watcher {
                id,
                session,
                node,
                content,
                believes,
            });
        }
    }

    /// Reads all changes of a watch; what it believes then must be so.
    fn read(&mut self, choice: usize) {
        let open = &self.model.open;
        self.watchers
            .retain(|watcher| open.contains(&watcher.session));
        let count = self.watchers.len();
        let Some(watcher) = self.watchers.get_mut(choice % count.max(1)) else {
            return;
        };
        for change in self.world.changes(watcher.id) {
            match change {
                HolderChange::Joined(holder) => {
                    let earlier = watcher.believes.insert(holder.node, holder.complete);
                    assert_eq!(earlier, None);
                }
                HolderChange::Changed(holder) => {
                    let earlier = watcher.believes.insert(holder.node, holder.complete);
                    assert_eq!(earlier, Some(!holder.complete));
                }
                HolderChange::Left(node) => {
                    assert!(watcher.believes.remove(&node).is_some());
                }
            }
        }
        let mut holders = self.model.holders(watcher.node.0, watcher.content);
        holders.remove(&watcher.node.1);
        assert_eq!(watcher.believes, holders);
    }

    fn compare(&mut self) {
        for group in [GroupId([0; 32]), GroupId([1; 32])] {
            self.world.group = group;
            for glob in ["**", "*", "a/*"] {
                let pattern = NamePattern::new(glob).unwrap();
                let expected = self.model.listing(group, |key| pattern.matches(key.2));
                let query = Query::Name(glob.into());
                assert_eq!(self.world.listing(query, 2), expected, "{glob}");
            }
            for name in NAMES {
                let expected = self.model.listing(group, |key| key.2 == name);
                assert_eq!(self.world.listing(name.parse().unwrap(), 1), expected);
                let of_node = self
                    .model
                    .listing(group, |key| key.2 == name && key.1 == node_id(1));
                let query = format!("{}/{name}", node_id(1)).parse().unwrap();
                assert_eq!(self.world.listing(query, 3), of_node);
            }
            for content in (0..CONTENTS).map(|content| info(content).id()) {
                let holders = self.model.holders(group, content);
                assert_eq!(self.world.holders(content), holders);
                let complete = holders.values().filter(|&&complete| complete).count();
                for found in self.world.find(&content.to_string()).matches {
                    assert_eq!(found.complete, complete);
                    assert_eq!(found.partial, holders.len() - complete);
                }
                let names = self.model.listing(group, |key| key.3 == content);
                assert_eq!(self.world.listing(Query::Id(content), 100), names);
            }
        }
        let counts = self.world.registry.counts();
        let contents: BTreeSet<_> = self.model.entries.keys().map(|k| (k.0, k.3)).collect();
        let assets: BTreeSet<_> = self.model.entries.keys().map(|k| (k.0, k.2, k.3)).collect();
        let name_bytes: usize = assets.iter().map(|(_, name, _)| name.len()).sum();
        assert_eq!(counts.sessions, self.model.open.len());
        assert_eq!(counts.entries, self.model.entries.len());
        assert_eq!(counts.contents, contents.len());
        assert_eq!(counts.assets, assets.len());
        assert_eq!(counts.name_bytes, name_bytes);
        assert_eq!(
            counts.nodes,
            self.model.open.len() + self.model.leases.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_the_answers_of_the_model(steps in prop::collection::vec(step(), 1..150)) {
        let config = RegistryConfig {
            entries_per_node: ENTRIES_PER_NODE,
            entries_total: ENTRIES_TOTAL,
            lookup_steps_max: 100,
            holders_per_network: 1,
            ..RegistryConfig::default()
        };
        let mut pair = Pair {
            world: World::new(config),
            model: Model::default(),
            watchers: Vec::new(),
        };
        for step in &steps {
            pair.take(step);
            pair.compare();
        }
        for watcher in 0..pair.watchers.len() {
            pair.read(watcher);
        }
    }
}
