//! The registry in memory: sessions, leases, and the groups that they belong to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use qshare_content::fair::{FairShares, Network};
use qshare_content::{AssetName, ContentId, LENGTH_MAX_BYTES, NodeId, Topic};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::catalog::topic_info;
use crate::config::RegistryConfig;
use crate::group::Group;
use crate::inventory::topic_entry;
use crate::lookup::{Find, FindError, Page, Readiness, Sample};
use crate::node::Node;
use crate::resources::Resources;
use crate::slab::Key;
use crate::types::{
    Announced, AnnouncedTopic, Contact, Counts, EntryKey, Evicted, GroupId, HolderChange,
    NotAnnouncing, OpenError, Output, Refusal, Refused, SessionGone, SessionId, Timeout,
    TimeoutReason, WatchError, WatchId,
};
use crate::upkeep::{Chore, ChoreKind};
use crate::work::{DRAWN_STEPS, HOLDER_STEPS, NAME_STEPS};

/// Stands in the place of a topic's name, and is never listed.
pub(crate) fn topic_name() -> AssetName {
    #[expect(clippy::expect_used, reason = "a constant, which a test parses")]
    AssetName::new("topic").expect("a valid name")
}

/// The node of a session.
#[derive(Clone, Copy)]
struct Owner {
    group: GroupId,
    node: Key<Node>,
}

/// Who holds what, until when, in memory.
pub struct Registry {
    pub(crate) resources: Resources,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) groups_by_number: BTreeMap<u32, GroupId>,
    sessions: BTreeMap<SessionId, Owner>,
    watches: BTreeMap<WatchId, GroupId>,
    pub(crate) leases: BTreeSet<(Instant, GroupId, NodeId)>,
    /// What is left to do of calls that would have taken too long.
    pub(crate) chores: VecDeque<Chore>,
    warm_at: Instant,
    now: Instant,
    last_session: u64,
    last_watch: u64,
    last_group: u32,
}

impl Registry {
    /// Creates an empty registry that starts now. All its randomness comes from `seed`.
    pub fn new(config: RegistryConfig, now: Instant, seed: u64) -> Registry {
        Registry {
            warm_at: now + config.warming,
            resources: Resources {
                // Only decides who yields; Resources::admit checks the limits.
                memory: FairShares::new(u64::MAX),
                nodes: FairShares::new(config.nodes_max as u64),
                config,
                outputs: VecDeque::new(),
                rng: SmallRng::seed_from_u64(seed),
                entries: 0,
                name_bytes: 0,
                evicted: 0,
            },
            groups: BTreeMap::new(),
            groups_by_number: BTreeMap::new(),
            sessions: BTreeMap::new(),
            watches: BTreeMap::new(),
            leases: BTreeSet::new(),
            chores: VecDeque::new(),
            now,
            last_session: 0,
            last_watch: 0,
            last_group: 0,
        }
    }

    /// Opens a session of a node, which its handshake identified. The node keeps what it announced
    /// in an earlier session whose lease is running; a session that is still open is superseded.
    /// Claimed addresses beyond [`RegistryConfig::candidates_per_node`] are dropped.
    ///
    /// # Errors
    ///
    /// [`OpenError::Full`] if there are [`RegistryConfig::nodes_max`] nodes and no other network
    /// has more of them than the newcomer's would have. Else a node of the network that has most
    /// makes room.
    pub fn handle_session_opened(
        &mut self,
        now: Instant,
        group: GroupId,
        node: NodeId,
        observed: SocketAddr,
        claimed: &[SocketAddr],
    ) -> Result<SessionId, OpenError> {
        self.handle_timeout(now);
        let contact = self.contact(observed, claimed);
        let known = self.groups.get(&group).and_then(|group| group.node(node));
        if known.is_none() && !self.make_room_for_node(Network::of(observed.ip())) {
            let limit = self.resources.config.nodes_max;
            return Err(OpenError::Full { limit });
        }
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let entry = self.groups.entry(group).or_insert_with(|| {
            self.last_group += 1;
            self.groups_by_number.insert(self.last_group, group);
            Group::new(self.last_group, self.resources.rng.random())
        });
        let key = match known {
            Some(key) => {
                let earlier = &mut entry.nodes[key];
                if let Some(until) = earlier.lease_until.take() {
                    self.leases.remove(&(until, group, node));
                }
                if let Some(superseded) = earlier.session.take() {
                    self.sessions.remove(&superseded);
                    let output = Output::Superseded(superseded);
                    self.resources.outputs.push_back(output);
                }
                for watch in &earlier.watches {
                    self.watches.remove(watch);
                }
                entry.close_watches(key);
                entry.abandon_announcement(key);
                key
            }
            None => entry.add_node(node, contact.clone(), &mut self.resources),
        };
        entry.nodes[key].session = Some(session);
        self.sessions.insert(session, Owner { group, node: key });
        self.set_contact(group, key, contact);
        Ok(session)
    }

    /// Ends a session. After a clean goodbye all entries of the node go; otherwise they stay for
    /// the lease. A session that is gone already is ignored.
    pub fn handle_session_closed(&mut self, now: Instant, session: SessionId, clean: bool) {
        self.handle_timeout(now);
        let Some(Owner { group, node: key }) = self.sessions.remove(&session) else {
            return;
        };
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        let node = &mut entry.nodes[key];
        node.session = None;
        for watch in &node.watches {
            self.watches.remove(watch);
        }
        if clean || node.entries.is_empty() {
            self.forget(group, key);
        } else {
            let until = now + self.resources.config.lease;
            node.lease_until = Some(until);
            self.leases.insert((until, group, node.id));
            entry.close_watches(key);
        }
    }

    /// Changes the addresses of a session's node, and tells those who watch what it holds.
    pub fn handle_moved(
        &mut self,
        now: Instant,
        session: SessionId,
        observed: SocketAddr,
        claimed: &[SocketAddr],
    ) -> Result<(), SessionGone> {
        self.handle_timeout(now);
        let contact = self.contact(observed, claimed);
        let owner = *self.sessions.get(&session).ok_or(SessionGone)?;
        self.set_contact(owner.group, owner.node, contact);
        Ok(())
    }

    fn set_contact(&mut self, group: GroupId, key: Key<Node>, contact: Contact) {
        let Some(entry) = self.groups.get_mut(&group) else {
            return;
        };
        if entry.set_contact(key, contact, &mut self.resources) {
            self.add_chore(group, key, ChoreKind::TellMoved { after: None });
        }
    }

    /// Begins a full announcement: [`Registry::handle_announced`] follows in batches, then
    /// [`Registry::handle_announcement_ended`]. If one had begun, it begins anew.
    pub fn handle_announcement_begun(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<(), SessionGone> {
        let (group, key, _) = self.of_session(now, session)?;
        group.begin_announcement(key);
        Ok(())
    }

    /// Adds or changes entries, as part of a full announcement or as a difference. They are found
    /// at once. Returns the entries that were refused.
    ///
    /// In a full registry, an entry of the heaviest node of the heaviest network makes room if
    /// that node uses more memory than this one would.
    pub fn handle_announced(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Announced],
    ) -> Result<Vec<Refused>, SessionGone> {
        self.announce(now, session, batch, LENGTH_MAX_BYTES)
    }

    /// Adds or changes topics, under the same rules and limits as entries. A topic is found by
    /// [`Registry::topic_holders`] and [`Registry::watch_topic`] only: no lookup lists it. Returns
    /// the topics that were refused.
    pub fn handle_topics_announced(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[AnnouncedTopic],
    ) -> Result<Vec<Refused>, SessionGone> {
        let batch: Vec<Announced> = batch.iter().map(topic_entry).collect();
        self.announce(now, session, &batch, u64::MAX)
    }

    fn announce(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Announced],
        length_max: u64,
    ) -> Result<Vec<Refused>, SessionGone> {
        let mut refused = Vec::new();
        let mut position = 0;
        loop {
            let (group, key, resources) = self.of_session(now, session)?;
            let stopped = batch[position..]
                .iter()
                .enumerate()
                .find_map(|(at, entry)| {
                    let refusal = match entry.info.length > length_max {
                        true => Refusal::TooLong,
                        false => group.announce(key, entry, resources).err()?,
                    };
                    Some((position + at, refusal))
                });
            group.count_memory(key, resources);
            let Some((at, refusal)) = stopped else {
                break;
            };
            position = at;
            let is_full = matches!(
                refusal,
                Refusal::RegistryFull { .. } | Refusal::NamesFull { .. }
            );
            let owner = *self.sessions.get(&session).ok_or(SessionGone)?;
            if !is_full || !self.make_room_for_entry(owner.group, owner.node, &batch[at]) {
                refused.push(Refused {
                    position: at,
                    refusal,
                });
                position += 1;
            }
        }
        Ok(refused)
    }

    /// Removes entries. Unknown ones are ignored.
    pub fn handle_withdrawn(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[EntryKey],
    ) -> Result<(), SessionGone> {
        let (group, key, resources) = self.of_session(now, session)?;
        for entry in batch {
            group.withdraw(key, entry, resources);
        }
        group.count_memory(key, resources);
        Ok(())
    }

    /// Removes topics. Unknown ones are ignored.
    pub fn handle_topics_withdrawn(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Topic],
    ) -> Result<(), SessionGone> {
        let keys: Vec<EntryKey> = batch
            .iter()
            .map(|&topic| EntryKey {
                name: topic_name(),
                content: topic_info(topic).id(),
            })
            .collect();
        self.handle_withdrawn(now, session, &keys)
    }

    /// Ends a full announcement: entries of the node that were not part of it go. Returns their
    /// number.
    pub fn handle_announcement_ended(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<usize, NotAnnouncing> {
        let (group, key, _) = self.of_session(now, session)?;
        let (round, stale) = group.end_announcement(key).ok_or(NotAnnouncing::NotBegun)?;
        let owner = *self.sessions.get(&session).ok_or(SessionGone)?;
        if stale > 0 {
            let kind = ChoreKind::Sweep { round, after: None };
            self.add_chore(owner.group, key, kind);
        }
        Ok(stale)
    }

    /// Answers a lookup.
    pub fn find(&mut self, now: Instant, find: &Find) -> Result<Page, FindError> {
        self.handle_timeout(now);
        let readiness = self.readiness(now);
        match self.groups.get_mut(&find.group) {
            Some(group) => group.find(find, readiness, &mut self.resources),
            None => Ok(Page::empty(readiness)),
        }
    }

    /// Returns a random sample of the holders of a content: at most `limit` and
    /// [`RegistryConfig::holders_max`], never `asking`. Nodes that were handed out often are
    /// handed out less.
    pub fn holders(
        &mut self,
        now: Instant,
        group: GroupId,
        content: ContentId,
        limit: usize,
        asking: Option<NodeId>,
    ) -> Sample {
        self.handle_timeout(now);
        let Some(group) = self.groups.get_mut(&group) else {
            return Sample::default();
        };
        let Some(held) = group.catalog.content(content) else {
            return Sample::default();
        };
        let limit = limit.min(self.resources.config.holders_max);
        let drawn = group.catalog.contents[held].holders.drawn_for(limit) as u64;
        let sample = group.sample(held, limit, asking, &mut self.resources);
        let holders: Vec<_> = sample.into_iter().map(|(_, holder)| holder).collect();
        Sample {
            steps: NAME_STEPS + drawn * DRAWN_STEPS + holders.len() as u64 * HOLDER_STEPS,
            holders,
        }
    }

    /// Returns a random sample of the holders of a topic, as [`Registry::holders`] does.
    pub fn topic_holders(
        &mut self,
        now: Instant,
        group: GroupId,
        topic: Topic,
        limit: usize,
        asking: Option<NodeId>,
    ) -> Sample {
        self.holders(now, group, topic_info(topic).id(), limit, asking)
    }

    /// Returns whether nodes have had the time to announce themselves since the start.
    pub fn readiness(&self, now: Instant) -> Readiness {
        if now < self.warm_at {
            Readiness::Warming
        } else {
            Readiness::Ready
        }
    }

    /// Lets a session watch the holders of a content, except itself. To miss nothing, watch first
    /// and then ask for [`Registry::holders`].
    pub fn watch(
        &mut self,
        now: Instant,
        session: SessionId,
        content: ContentId,
    ) -> Result<WatchId, WatchError> {
        let limit = self.resources.config.watches_per_session;
        let id = WatchId(self.last_watch + 1);
        let (group, key, _) = self
            .of_session(now, session)
            .map_err(|SessionGone| WatchError::Gone)?;
        if group.nodes[key].watches.len() >= limit {
            return Err(WatchError::TooMany { limit });
        }
        group.open_watch(id, key, content);
        let owner = self.sessions.get(&session).ok_or(WatchError::Gone)?;
        self.watches.insert(id, owner.group);
        self.last_watch = id.0;
        Ok(id)
    }

    /// Lets a session watch the holders of a topic, as [`Registry::watch`] does.
    pub fn watch_topic(
        &mut self,
        now: Instant,
        session: SessionId,
        topic: Topic,
    ) -> Result<WatchId, WatchError> {
        self.watch(now, session, topic_info(topic).id())
    }

    /// Ends a watch. One that ended with its session is ignored.
    pub fn unwatch(&mut self, watch: WatchId) {
        let group = self.watches.remove(&watch);
        if let Some(group) = group.and_then(|group| self.groups.get_mut(&group)) {
            group.close_watch(watch);
        }
    }

    /// Returns the next change of a watch, as things stand now: a holder that came and went since
    /// the last call is left out. `None` until the next [`Output::WatchReady`].
    pub fn poll_change(&mut self, now: Instant, watch: WatchId) -> Option<HolderChange> {
        self.handle_timeout(now);
        let group = self.watches.get(&watch)?;
        self.groups.get_mut(group)?.poll_watch(watch)
    }

    /// Returns the entries of a node that were evicted since the last call; see
    /// [`Output::EntriesEvicted`].
    pub fn take_evicted(&mut self, group: GroupId, node: NodeId) -> Evicted {
        let evicted = self.groups.get_mut(&group).and_then(|group| {
            let key = group.node(node)?;
            group.nodes[key].evicted.take()
        });
        evicted.map(|evicted| *evicted).unwrap_or_default()
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.resources.outputs.pop_front()
    }

    /// Returns when [`Registry::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timeout> {
        if !self.chores.is_empty() {
            return Some(Timeout {
                at: self.now,
                reason: TimeoutReason::WorkIsLeft,
            });
        }
        self.leases.first().map(|&(at, ..)| Timeout {
            at,
            reason: TimeoutReason::LeaseExpires,
        })
    }

    /// Ends leases that have expired, and does a bounded amount of the work that is left.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.expire_leases(now);
        self.do_chores();
    }

    /// Returns how much the registry holds.
    pub fn counts(&self) -> Counts {
        let groups = self.groups.values();
        Counts {
            sessions: self.sessions.len(),
            nodes: usize::try_from(self.resources.nodes.used()).unwrap_or(usize::MAX),
            entries: self.resources.entries,
            assets: groups.clone().map(|group| group.catalog.assets.len()).sum(),
            contents: groups.map(|group| group.catalog.contents.len()).sum(),
            name_bytes: self.resources.name_bytes,
            watches: self.watches.len(),
            evicted: self.resources.evicted,
        }
    }

    fn contact(&self, observed: SocketAddr, claimed: &[SocketAddr]) -> Contact {
        let most = self.resources.config.candidates_per_node;
        Contact {
            observed,
            claimed: claimed.iter().copied().take(most).collect(),
        }
    }

    /// Returns the node of an open session.
    fn of_session(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<(&mut Group, Key<Node>, &mut Resources), SessionGone> {
        self.handle_timeout(now);
        let owner = self.sessions.get(&session).ok_or(SessionGone)?;
        let group = self.groups.get_mut(&owner.group).ok_or(SessionGone)?;
        Ok((group, owner.node, &mut self.resources))
    }

    /// Ends the session of a node that makes room for another, and forgets the node.
    pub(crate) fn evict_node(&mut self, group: GroupId, key: Key<Node>) {
        if let Some(session) = self.remove_node(group, key) {
            let output = Output::SessionEvicted(session);
            self.resources.outputs.push_back(output);
        }
    }

    /// Forgets a node with its session and lease. Returns the session that it had.
    pub(crate) fn remove_node(&mut self, group: GroupId, key: Key<Node>) -> Option<SessionId> {
        let entry = self.groups.get_mut(&group)?;
        let node = &mut entry.nodes[key];
        if let Some(until) = node.lease_until.take() {
            self.leases.remove(&(until, group, node.id));
        }
        for watch in &node.watches {
            self.watches.remove(watch);
        }
        let session = node.session.take();
        if let Some(session) = session {
            self.sessions.remove(&session);
        }
        self.forget(group, key);
        session
    }
}
