//! Reads what other trackers published: names, contents, holders and sessions.
//!
//! An entry counts if its node has a live session that has not replaced it. What this tracker has
//! in memory itself is left out. Entries that do not count are removed from Redis as they are
//! found.

mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentId, ContentInfo, FileMetadata, Hash, NodeId};
use qshare_registry::{Cursor, Holder, Match, is_topic};
use redis::Value;

use super::layout::{EntryFlags, Layout, Stamp, bytes_of, decode_removed, strings_of};
use super::link::{Link, RegistryFault};
use super::own_sessions::OwnSessions;
use super::scripts::Call;
use super::session_record::{ObservingTracker, SessionRecord};

/// How long a live session is believed without being read again.
const SESSION_FRESH: Duration = Duration::from_secs(1);
/// Sessions that are remembered.
const SESSIONS_MAX: usize = 50_000;
/// Entries read of one name and content if few such are wanted, or many.
const SAMPLE_OF_FEW: usize = 128;
const SAMPLE_OF_MANY: usize = 24;
/// Matches up to which there are few.
const FEW: usize = 16;
/// Entries removed at once because they do not count.
const CLEANED_MAX: usize = 256;

/// A name and its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) name: AssetName,
    pub(super) content: ContentId,
    pub(super) info: ContentInfo,
}

impl Named {
    fn new(name: &str, info: ContentInfo) -> Option<Named> {
        Some(Named {
            name: AssetName::new(name).ok()?,
            content: info.id(),
            info,
        })
    }
}

/// What other trackers' nodes announce under one name.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) found: Match,
    /// Whether one of them announces it under this name. Otherwise only nodes of this tracker do,
    /// and others have the content under another name.
    pub(super) is_named: bool,
    /// The plain SHA-256 that they state. Honest nodes state the same.
    pub(super) digests: BTreeSet<Hash>,
}

/// Names in their order, and where to go on.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) names: Vec<Named>,
    pub(super) more: Option<Cursor>,
}

/// Reads the entries of other trackers' nodes.
pub(crate) struct Reader {
    link: Arc<Link>,
    layout: Layout,
    us: NodeId,
    own: Arc<OwnSessions>,
    observer: ObservingTracker,
    sessions: Mutex<HashMap<NodeId, (Instant, Arc<SessionRecord>)>>,
}

/// What one node announces under a name.
pub(super) struct NodeEntry {
    pub(super) metadata: FileMetadata,
    /// Whether this tracker does not have the entry in memory.
    pub(super) is_elsewhere: bool,
}

/// An entry: the node, and a stamp and flags.
type Entry = (NodeId, Vec<u8>);

/// The entries of one name and content that were read.
struct Entries {
    named: Named,
    /// All there are.
    count: usize,
    read: Vec<Entry>,
}

/// What the nodes of other trackers state about one name.
#[derive(Default)]
struct Stated {
    is_named: bool,
    metadata: FileMetadata,
    digests: BTreeSet<Hash>,
}

/// What is known of the holders of one content.
#[derive(Default)]
struct Held {
    complete: usize,
    partial: usize,
    is_collection: bool,
    holders: BTreeMap<NodeId, Holder>,
}

impl Reader {
    pub(super) fn new(
        link: Arc<Link>,
        layout: Layout,
        us: NodeId,
        own: Arc<OwnSessions>,
        observer: ObservingTracker,
    ) -> Reader {
        Reader {
            link,
            layout,
            us,
            own,
            observer,
            sessions: Mutex::default(),
        }
    }

    /// Describes names by what is announced beyond this tracker's memory, with up to `holders`
    /// holders each, or some more. Names that no node announces are left out.
    pub(super) async fn describe(
        self: &Arc<Self>,
        names: Vec<Named>,
        holders: usize,
    ) -> Result<Vec<Described>, RegistryFault> {
        let max = match names.len() <= FEW {
            true => SAMPLE_OF_FEW.max(holders),
            false => SAMPLE_OF_MANY.max(holders),
        };
        // Holders under other names of a content count as well, and most contents have none.
        let mut contents: Vec<ContentId> = names.iter().map(|named| named.content).collect();
        contents.sort();
        contents.dedup();
        let mut asked: Vec<Named> = names.clone();
        let (mut entries, others, all_holders) = tokio::try_join!(
            self.entries(names.clone(), max),
            self.names_of(&contents),
            self.holders_of(&contents, max),
        )?;
        asked.sort();
        let others: Vec<Named> = others
            .into_iter()
            .flatten()
            .filter(|named| asked.binary_search(named).is_err())
            .collect();
        entries.extend(self.entries(others, max).await?);
        let nodes = entries.iter().flat_map(|entries| &entries.read);
        let nodes = nodes.chain(all_holders.iter().flat_map(|(_, read)| read));
        let sessions = self.sessions(nodes.map(|(node, _)| *node).collect());
        let sessions = sessions.await?;
        let mut held: BTreeMap<ContentId, Held> = BTreeMap::new();
        let mut live: BTreeMap<Named, Stated> = BTreeMap::new();
        let mut dead: Vec<(Named, Vec<Entry>)> = Vec::new();
        for of_name in entries {
            let held = held.entry(of_name.named.content).or_default();
            let (found, stated) = self.count(&of_name, &sessions, held);
            if found.len() < of_name.read.len() {
                live.insert(of_name.named.clone(), stated);
            }
            if !found.is_empty() || of_name.count == 0 {
                dead.push((of_name.named, found));
            }
        }
        // A node may have the content under a name that was not read.
        for (content, (count, read)) in contents.iter().zip(&all_holders) {
            let held = held.entry(*content).or_default();
            self.add_others(*count, read, &sessions, held);
        }
        self.clean(dead);
        let described = names.into_iter().filter_map(|named| {
            let stated = live.remove(&named)?;
            let held = held.get(&named.content);
            let found = Match {
                name: named.name,
                info: named.info,
                is_collection: held.is_some_and(|held| held.is_collection),
                complete: held.map_or(0, |held| held.complete),
                partial: held.map_or(0, |held| held.partial),
                holders: held
                    .map(|held| held.holders.values().cloned().collect())
                    .unwrap_or_default(),
                metadata: stated.metadata,
            };
            Some(Described {
                found,
                is_named: stated.is_named,
                digests: stated.digests,
            })
        });
        Ok(described.collect())
    }

    /// Counts entries. Returns those that do not count, and what the nodes of other trackers state.
    fn count(
        &self,
        entries: &Entries,
        sessions: &HashMap<NodeId, Option<Arc<SessionRecord>>>,
        held: &mut Held,
    ) -> (Vec<Entry>, Stated) {
        let mut dead = Vec::new();
        let mut stated = Stated::default();
        let (mut complete, mut partial) = (0, 0);
        for (node, value) in &entries.read {
            let session = sessions.get(node).and_then(Option::as_ref);
            let Some(session) = session.filter(|session| session.counts(value)) else {
                dead.push((*node, value.clone()));
                continue;
            };
            if self.is_in_memory(*node, session, value) {
                continue;
            }
            let flags = EntryFlags::of_value(value);
            stated.is_named = true;
            stated.metadata.merge(&flags.metadata);
            stated.digests.extend(flags.metadata.sha256);
            let is_complete = flags.complete;
            held.is_collection |= flags.is_collection;
            let known = held.holders.get(node);
            let was_complete = known.map(|holder| holder.complete);
            match (was_complete, is_complete) {
                (None, true) => complete += 1,
                (None, false) => partial += 1,
                (Some(false), true) => {
                    complete += 1;
                    held.partial = held.partial.saturating_sub(1);
                }
                (Some(_), _) => {}
            }
            held.holders.insert(
                *node,
                Holder {
                    node: *node,
                    contact: session.details.contact_at(&self.observer),
                    complete: is_complete || was_complete == Some(true),
                },
            );
        }
        // Of a sample, the counts are estimates.
        let read = entries.read.len().max(1);
        held.complete += complete * entries.count.max(read) / read;
        held.partial += partial * entries.count.max(read) / read;
        (dead, stated)
    }

    /// Adds nodes that hold a content under names that were not read.
    fn add_others(
        &self,
        count: usize,
        read: &[Entry],
        sessions: &HashMap<NodeId, Option<Arc<SessionRecord>>>,
        held: &mut Held,
    ) {
        for (node, value) in read {
            let session = sessions.get(node).and_then(Option::as_ref);
            let Some(session) = session.filter(|session| session.counts(value)) else {
                continue;
            };
            if held.holders.contains_key(node) || self.is_in_memory(*node, session, value) {
                continue;
            }
            let EntryFlags {
                complete,
                is_collection,
                ..
            } = EntryFlags::of_value(value);
            held.is_collection |= is_collection;
            // Estimates of a sample may count the node already.
            if held.complete + held.partial < count {
                match complete {
                    true => held.complete += 1,
                    false => held.partial += 1,
                }
            }
            let contact = session.details.contact_at(&self.observer);
            let holder = Holder {
                node: *node,
                contact,
                complete,
            };
            held.holders.insert(*node, holder);
        }
    }

    /// Whether this tracker's own registry has an entry. It lacks what its node announced to
    /// another tracker before.
    fn is_in_memory(&self, node: NodeId, session: &SessionRecord, value: &[u8]) -> bool {
        let stamp = Stamp::decode(value);
        session.tracker == self.us && stamp.is_some_and(|stamp| self.own.are_in_memory(node, stamp))
    }

    async fn entries(&self, names: Vec<Named>, max: usize) -> Result<Vec<Entries>, RegistryFault> {
        let calls: Vec<Call> = names
            .iter()
            .map(|named| self.layout.read(named.name.as_str(), named.content, max))
            .collect();
        let values = self.link.run(&calls).await?;
        names
            .into_iter()
            .zip(&values)
            .map(|(named, value)| {
                let (count, read) = decode_entries(value).ok_or(RegistryFault::Malformed)?;
                Ok(Entries { named, count, read })
            })
            .collect()
    }

    /// Returns who holds each content under whatever name: how many there are, and some of them.
    async fn holders_of(
        &self,
        contents: &[ContentId],
        max: usize,
    ) -> Result<Vec<(usize, Vec<Entry>)>, RegistryFault> {
        let calls: Vec<Call> = contents
            .iter()
            .map(|&content| self.layout.read_holders(content, max))
            .collect();
        let values = self.link.run(&calls).await?;
        let read = values.iter().map(decode_entries);
        read.map(|read| read.ok_or(RegistryFault::Malformed))
            .collect()
    }

    /// Returns the sessions of these nodes; None for those without a live one.
    pub(crate) async fn sessions(
        &self,
        mut nodes: Vec<NodeId>,
    ) -> Result<HashMap<NodeId, Option<Arc<SessionRecord>>>, RegistryFault> {
        nodes.sort();
        nodes.dedup();
        let mut sessions = HashMap::with_capacity(nodes.len());
        let now = Instant::now();
        {
            let known = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.retain(|node| match known.get(node) {
                Some((at, session)) if now.duration_since(*at) < SESSION_FRESH => {
                    sessions.insert(*node, Some(Arc::clone(session)));
                    false
                }
                _ => true,
            });
        }
        let calls: Vec<Call> = nodes
            .iter()
            .map(|&node| self.layout.read_session(node))
            .collect();
        let values = self.link.run(&calls).await?;
        let mut known = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + nodes.len() > SESSIONS_MAX {
            known.retain(|_, (at, _)| now.duration_since(*at) < SESSION_FRESH);
            if known.len() + nodes.len() > SESSIONS_MAX {
                known.clear();
            }
        }
        for (node, value) in nodes.into_iter().zip(&values) {
            let session = bytes_of(value)
                .and_then(SessionRecord::decode)
                .map(Arc::new);
            if let Some(session) = &session {
                known.insert(node, (now, Arc::clone(session)));
            }
            sessions.insert(node, session);
        }
        Ok(sessions)
    }

    /// Returns those of `nodes` that hold a content, with what they hold now.
    pub(super) async fn still_hold(
        &self,
        content: ContentId,
        nodes: &[NodeId],
    ) -> Result<BTreeMap<NodeId, Holder>, RegistryFault> {
        let names = self.names_of(&[content]).await?;
        let names: Vec<Named> = names.into_iter().flatten().collect();
        let under_names = names.iter().flat_map(|named| {
            let name = named.name.as_str();
            let one = |&node| self.layout.read_one(name, content, node);
            nodes.iter().map(one).collect::<Vec<Call>>()
        });
        // Some of a content's names are read, and a node may have it under another.
        let any = nodes.iter();
        let any = any.map(|&node| self.layout.read_holder(content, node));
        let calls: Vec<Call> = any.chain(under_names).collect();
        let values = self.link.run(&calls).await?;
        let sessions = self.sessions(nodes.to_vec()).await?;
        let mut holders: BTreeMap<NodeId, Holder> = BTreeMap::new();
        for (node, value) in nodes.iter().cycle().zip(&values) {
            let session = sessions.get(node).and_then(Option::as_ref);
            let Some((session, value)) = session.zip(bytes_of(value)) else {
                continue;
            };
            if !session.counts(value) || self.is_in_memory(*node, session, value) {
                continue;
            }
            let complete = EntryFlags::of_value(value).complete;
            let holder = holders.entry(*node).or_insert_with(|| Holder {
                node: *node,
                contact: session.details.contact_at(&self.observer),
                complete,
            });
            holder.complete |= complete;
        }
        Ok(holders)
    }

    /// Returns those of `names` that a node announces, with what it states about them.
    pub(super) async fn announced_by(
        &self,
        node: NodeId,
        names: Vec<Named>,
    ) -> Result<BTreeMap<Named, NodeEntry>, RegistryFault> {
        let calls: Vec<Call> = names
            .iter()
            .map(|named| (named.name.as_str(), named.content))
            .map(|(name, content)| self.layout.read_one(name, content, node))
            .collect();
        let values = self.link.run(&calls).await?;
        let sessions = self.sessions(vec![node]).await?;
        let Some(session) = sessions.get(&node).and_then(Option::as_ref) else {
            return Ok(BTreeMap::new());
        };
        let announced = names.into_iter().zip(&values).filter_map(|(named, value)| {
            let value = bytes_of(value).filter(|value| session.counts(value))?;
            let entry = NodeEntry {
                metadata: EntryFlags::of_value(value).metadata,
                is_elsewhere: !self.is_in_memory(node, session, value),
            };
            Some((named, entry))
        });
        Ok(announced.collect())
    }

    /// Removes entries that do not count, in the background.
    fn clean(self: &Arc<Self>, dead: Vec<(Named, Vec<Entry>)>) {
        if dead.is_empty() {
            return;
        }
        let reader = Arc::clone(self);
        tokio::spawn(async move {
            let mut left = CLEANED_MAX;
            for (named, entries) in dead {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(entries.len().max(1));
                let name = named.name.as_str();
                let call = reader.layout.clean(name, named.content, &entries);
                let Ok(values) = reader.link.run(&[call]).await else {
                    return;
                };
                let removed = values.into_iter().next().and_then(decode_removed);
                let is_empty = removed.as_ref().is_some_and(|removed| {
                    // A name without entries is listed although the content does not know it.
                    removed.unnamed.is_some() || entries.is_empty()
                });
                if is_empty {
                    let has_names = removed.is_some_and(|removed| removed.has_names);
                    let unlisted = unlist(&reader.link, &reader.layout, &named, has_names);
                    if unlisted.await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Removes a name without entries from the indexes, unless another tracker has just published it.
pub(super) async fn unlist(
    link: &Link,
    layout: &Layout,
    named: &Named,
    has_names: bool,
) -> Result<(), RegistryFault> {
    let (name, info) = (named.name.as_str(), &named.info);
    let mut calls = vec![layout.unlist_name(name, info)];
    if !has_names {
        calls.push(layout.unlist_id(info));
    }
    link.run(&calls).await?;
    if is_topic(info) {
        return Ok(());
    }
    let listed = link.run(&[layout.is_listed(name, named.content)]).await?;
    if listed.first() == Some(&Value::Int(1)) {
        link.run(&layout.list(name, info)).await?;
    }
    Ok(())
}

fn decode_entries(value: &Value) -> Option<(usize, Vec<Entry>)> {
    let Value::Array(parts) = value else {
        return None;
    };
    let [Value::Int(count), pairs] = parts.as_slice() else {
        return None;
    };
    let pairs = strings_of(pairs);
    let read = pairs.chunks_exact(2).filter_map(|pair| {
        let node = NodeId(pair[0].try_into().ok()?);
        Some((node, pair[1].to_vec()))
    });
    Some((usize::try_from(*count).ok()?, read.collect()))
}
