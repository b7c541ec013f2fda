//! A registry against a model that is too simple to be wrong, on random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use qshare_content::{ContentId, NamePattern, NodeId};
use qshare_registry::Announced;

use super::registered::{Registered, Watched, entry, info, query, until_believed};

// Few of each, so that histories meet the same thing again.
const NODES: u8 = 4;
const CONTENTS: u8 = 3;
const NAMES: [&str; 3] = ["a", "a/b", "c/d/e"];

/// How many random histories are tried, and how long they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) histories: u32,
    pub(crate) steps: usize,
    /// Steps between two comparisons of every answer.
    pub(crate) steps_between: usize,
}

/// A name, a content, and whether the node has all of it.
type Said = (usize, u8, bool);

#[derive(Clone, Debug)]
enum Step {
    /// Opens a session and announces all entries, whatever came before.
    Join(u8, Vec<Said>),
    /// Opens a session and announces some entries. Whether all follow is left open: until then,
    /// what it announced before stays.
    Begin(u8, Vec<Said>),
    Announce(u8, Vec<Said>),
    Withdraw(u8, Said),
    Leave(u8),
    /// Loses its connection and returns within the lease.
    Return(u8, Vec<Said>),
    /// Loses its connection for longer than the lease.
    Vanish(u8),
    Watch(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    let said = (0..NAMES.len(), 0..CONTENTS, any::<bool>());
    let some = prop::collection::vec(said.clone(), 0..6);
    prop_oneof![
        6 => (node.clone(), some.clone()).prop_map(|(node, all)| Step::Join(node, all)),
        3 => (node.clone(), some.clone()).prop_map(|(node, some)| Step::Begin(node, some)),
        8 => (node.clone(), some.clone()).prop_map(|(node, some)| Step::Announce(node, some)),
        6 => (node.clone(), said).prop_map(|(node, said)| Step::Withdraw(node, said)),
        2 => node.clone().prop_map(Step::Leave),
        2 => (node.clone(), some).prop_map(|(node, all)| Step::Return(node, all)),
        1 => node.clone().prop_map(Step::Vanish),
        3 => (node, 0..CONTENTS).prop_map(|(node, content)| Step::Watch(node, content)),
    ]
}

fn entries(said: &[Said]) -> Vec<Announced> {
    let announced = said.iter().map(|&(name, content, complete)| Announced {
        complete,
        ..entry(NAMES[name], content)
    });
    announced.collect()
}

/// Every entry in one flat map; every question is answered by looking through all of it.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(NodeId, &'static str, ContentId), bool>,
    open: BTreeSet<u8>,
}

impl Model {
    fn say(&mut self, node: NodeId, said: &[Said]) {
        for &(name, content, complete) in said {
            let key = (node, NAMES[name], info(content).id());
            self.entries.insert(key, complete);
        }
    }

    fn forget(&mut self, node: NodeId) {
        self.entries.retain(|key, _| key.0 != node);
    }

    fn holders(&self, content: ContentId) -> BTreeMap<NodeId, bool> {
        let mut holders = BTreeMap::new();
        for ((node, _, held), complete) in &self.entries {
            if *held == content {
                *holders.entry(*node).or_insert(false) |= complete;
            }
        }
        holders
    }

    fn listing(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, ContentId)> {
        let keys = self.entries.keys().filter(|(_, name, _)| wanted(name));
        let found: BTreeSet<_> = keys.map(|(_, name, id)| (name.to_string(), *id)).collect();
        found.into_iter().collect()
    }
}

/// What a watcher believes, from the holders at first and the changes since.
struct Watcher {
    watch: usize,
    node: u8,
    content: ContentId,
    believes: BTreeMap<NodeId, bool>,
}

struct Compared<'a, R> {
    registered: &'a mut R,
    model: Model,
    watchers: Vec<Watcher>,
}

impl<R: Registered> Compared<'_, R> {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Join(node, all) => self.join(*node, all),
            Step::Begin(node, some) => {
                self.registered.begin(*node, &entries(some));
                let id = self.registered.node(*node);
                self.model.open.insert(*node);
                self.model.say(id, some);
                self.forget_watchers(*node);
            }
            Step::Announce(node, some) if self.model.open.contains(node) => {
                self.registered.announce(*node, &entries(some));
                let id = self.registered.node(*node);
                self.model.say(id, some);
            }
            Step::Withdraw(node, said) if self.model.open.contains(node) => {
                self.registered.withdraw(*node, &entries(&[*said]));
                let id = self.registered.node(*node);
                let key = (id, NAMES[said.0], info(said.1).id());
                self.model.entries.remove(&key);
            }
            Step::Leave(node) if self.model.open.contains(node) => {
                self.registered.leave(*node);
                self.gone(*node);
            }
            Step::Return(node, all) if self.model.open.contains(node) => {
                self.registered.lose(*node);
                self.join(*node, all);
            }
            Step::Vanish(node) if self.model.open.contains(node) => {
                self.registered.lose(*node);
                self.registered.pass_a_lease();
                self.gone(*node);
            }
            Step::Watch(node, content) if self.model.open.contains(node) => {
                let content = info(*content).id();
                let (watch, believes) = self.registered.watch(*node, Watched::Content(content));
                self.watchers.push(Watcher {
                    watch,
                    node: *node,
                    content,
                    believes,
                });
            }
            _ => {}
        }
    }

    fn join(&mut self, node: u8, all: &[Said]) {
        self.registered.join(node, &entries(all));
        let id = self.registered.node(node);
        self.gone(node);
        self.model.open.insert(node);
        self.model.say(id, all);
    }

    /// The node's session has ended, and its entries with it.
    fn gone(&mut self, node: u8) {
        let id = self.registered.node(node);
        self.model.forget(id);
        self.model.open.remove(&node);
        self.forget_watchers(node);
    }

    /// Watches end with the session.
    fn forget_watchers(&mut self, node: u8) {
        self.watchers.retain(|watcher| watcher.node != node);
    }

    fn compare(&mut self) {
        let Compared {
            registered: r,
            model,
            watchers,
        } = self;
        for glob in ["**", "*", "a/*"] {
            let pattern = NamePattern::new(glob).unwrap();
            let expected = model.listing(|name| pattern.matches(name));
            r.agree(expected, |r, place| r.listing(place, &query(glob), 2));
        }
        let one = r.node(1);
        for name in NAMES {
            let expected = model.listing(|known| known == name);
            r.agree(expected, |r, place| r.listing(place, &query(name), 1));
            let own = model.entries.keys();
            let own = own.filter(|key| key.0 == one && key.1 == name);
            let own: Vec<_> = own.map(|key| (name.to_owned(), key.2)).collect();
            let text = format!("{one}/{name}");
            r.agree(own, |r, place| r.listing(place, &query(&text), 3));
        }
        for content in (0..CONTENTS).map(|content| info(content).id()) {
            let holders = model.holders(content);
            let complete = holders.values().filter(|&&complete| complete).count();
            let partial = holders.len() - complete;
            let names: BTreeSet<_> = model
                .entries
                .keys()
                .filter(|key| key.2 == content)
                .map(|key| key.1.to_owned())
                .collect();
            let expected: Vec<_> = names
                .into_iter()
                .map(|name| (name, complete, partial, holders.clone()))
                .collect();
            r.agree(expected, |r, place| {
                let matches = r.find(place, &content.to_string()).matches.into_iter();
                matches
                    .map(|found| (found.name, found.complete, found.partial, found.holders))
                    .collect()
            });
            r.agree(holders, |r, place| {
                r.holders(place, Watched::Content(content))
            });
        }
        for watcher in watchers {
            let mut holders = model.holders(watcher.content);
            holders.remove(&r.node(watcher.node));
            until_believed(*r, watcher.watch, &mut watcher.believes, &holders);
        }
    }
}

/// Checks that random histories give the answers of the model. Prints one that does not.
pub(crate) fn any_history<R: Registered>(effort: Effort, mut start: impl FnMut() -> R) {
    let config = Config {
        cases: effort.histories,
        failure_persistence: None,
        // Each trial of a slow registry takes seconds.
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let histories = prop::collection::vec(step(), effort.steps / 2..effort.steps);
    let start = std::cell::RefCell::new(&mut start);
    let tried = TestRunner::new(config).run(&histories, |steps| {
        let mut registered = (*start.borrow_mut())();
        let mut compared = Compared {
            registered: &mut registered,
            model: Model::default(),
            watchers: Vec::new(),
        };
        for steps in steps.chunks(effort.steps_between) {
            for step in steps {
                compared.take(step);
            }
            compared.compare();
        }
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}
