//! Sessions and leases of nodes, and the one door to everything else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use qshare_content::{AssetName, ContentId, ContentInfo, NodeId};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::catalog::Listed;
use crate::config::RegistryConfig;
use crate::find::{Find, FindError, Page, Readiness};
use crate::room::{Node, Room};
use crate::slab::Key;
use crate::watch::{HolderChange, WatchError, WatchId};
use crate::work::{DRAWN_STEPS, HOLDER_STEPS, NAME_STEPS};

/// Names a group without giving away its secret; all zero is the open swarm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub [u8; 32]);

impl GroupId {
    /// The swarm that everybody is in who reaches the tracker.
    pub const OPEN: GroupId = GroupId([0; 32]);
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "GroupId({a:02x}{b:02x}…)")
    }
}

/// Names a session; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Where its packets come from.
    pub observed: SocketAddr,
    /// Where it says that it listens. A claim: whom to tell of it is the caller's decision.
    pub claimed: Arc<[SocketAddr]>,
}

/// A node that holds a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who it is.
    pub node: NodeId,
    /// Where it is.
    pub contact: Contact,
    /// Whether it says that it has all of it.
    pub complete: bool,
}

/// Some of those who hold a content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Who they are.
    pub holders: Vec<Holder>,
    /// What drawing them cost, in steps of some 4 ns.
    pub steps: u64,
}

/// One thing that a node shares: at most one for each name and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// What the node calls it.
    pub name: AssetName,
    /// Length and root.
    pub info: ContentInfo,
    /// Whether the node has all of it.
    pub complete: bool,
}

/// Names an entry of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryKey {
    /// What the node calls it.
    pub name: AssetName,
    /// Which content.
    pub content: ContentId,
}

/// The session has ended, or was replaced by a newer one of the same node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this session has ended")]
pub struct SessionGone;

/// Why a full announcement cannot end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnnouncing {
    /// The session has ended.
    #[error(transparent)]
    Gone(#[from] SessionGone),
    /// None had begun in this session.
    #[error("no full announcement had begun")]
    NotBegun,
}

/// Why a session is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many nodes as the registry may know are known.
    #[error("the tracker knows {limit} nodes, and takes no more")]
    Full {
        /// [`RegistryConfig::nodes_max`].
        limit: usize,
    },
}

/// Why an entry is not taken. The others of its batch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No file may be so long.
    #[error("the length is over {} bytes", qshare_content::LENGTH_MAX_BYTES)]
    TooLong,
    /// The node announces as much as one node may.
    #[error("a node may announce {limit} files")]
    NodeFull {
        /// [`RegistryConfig::entries_per_node`].
        limit: usize,
    },
    /// All nodes together announce as much as the registry may keep.
    #[error("the tracker keeps {limit} entries, and takes no more")]
    RegistryFull {
        /// [`RegistryConfig::entries_total`].
        limit: usize,
    },
    /// The names of all nodes together take as much room as the registry may give them.
    #[error("the tracker keeps {limit_bytes} bytes of names, and takes no more")]
    NamesFull {
        /// [`RegistryConfig::name_bytes_total`].
        limit_bytes: usize,
    },
}

/// An entry that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position in the batch.
    pub position: usize,
    /// Why.
    pub refusal: Refusal,
}

/// What the owner of a registry is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The node opened a newer session: close this one's connection. Its id is dead already.
    Superseded(SessionId),
    /// Something happened to a watched content: [`Registry::poll_change`] until it is `None`.
    WatchReady(WatchId),
}

/// When to call [`Registry::handle_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Not later than this, though nothing is answered wrongly if it is.
    pub at: Instant,
    /// What is due then.
    pub reason: TimeoutReason,
}

/// What a timeout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// A node that was lost without a goodbye has not come back.
    LeaseExpires,
}

/// How much a registry holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open sessions.
    pub sessions: usize,
    /// Nodes, those whose lease is running included.
    pub nodes: usize,
    /// Entries of all nodes.
    pub entries: usize,
    /// Distinct (name, content) of each group.
    pub assets: usize,
    /// Distinct contents of each group.
    pub contents: usize,
    /// Bytes of names.
    pub name_bytes: usize,
    /// Open watches.
    pub watches: usize,
}

/// What all groups share: bounds, what is used of them, the outputs and the dice.
pub(crate) struct Shared {
    pub(crate) config: RegistryConfig,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) rng: SmallRng,
    nodes: usize,
    entries: usize,
    name_bytes: usize,
}

impl Shared {
    /// Counts one more entry of a node that has `node_entries`, whose name takes `name_bytes`
    /// more, or says which bound forbids it.
    pub(crate) fn admit(&mut self, node_entries: usize, name_bytes: usize) -> Result<(), Refusal> {
        let config = &self.config;
        if node_entries >= config.entries_per_node {
            let limit = config.entries_per_node;
            return Err(Refusal::NodeFull { limit });
        }
        if self.entries >= config.entries_total {
            let limit = config.entries_total;
            return Err(Refusal::RegistryFull { limit });
        }
        if self.name_bytes + name_bytes > config.name_bytes_total {
            let limit_bytes = config.name_bytes_total;
            return Err(Refusal::NamesFull { limit_bytes });
        }
        self.entries += 1;
        self.name_bytes += name_bytes;
        Ok(())
    }

    /// Counts one entry less.
    pub(crate) fn dismiss(&mut self, name_bytes: usize) {
        self.entries -= 1;
        self.name_bytes -= name_bytes;
    }
}

/// Whose a session is.
#[derive(Clone, Copy)]
struct Owner {
    group: GroupId,
    node: Key<Node>,
}

/// Who holds what, until when.
pub struct Registry {
    shared: Shared,
    rooms: BTreeMap<GroupId, Room>,
    sessions: BTreeMap<SessionId, Owner>,
    watches: BTreeMap<WatchId, GroupId>,
    leases: BTreeSet<(Instant, GroupId, NodeId)>,
    warm_at: Instant,
    last_session: u64,
    last_watch: u64,
}

impl Registry {
    /// An empty registry that starts now. All its randomness comes from `seed`.
    pub fn new(config: RegistryConfig, now: Instant, seed: u64) -> Registry {
        Registry {
            warm_at: now + config.warming,
            shared: Shared {
                config,
                outputs: VecDeque::new(),
                rng: SmallRng::seed_from_u64(seed),
                nodes: 0,
                entries: 0,
                name_bytes: 0,
            },
            rooms: BTreeMap::new(),
            sessions: BTreeMap::new(),
            watches: BTreeMap::new(),
            leases: BTreeSet::new(),
            last_session: 0,
            last_watch: 0,
        }
    }

    /// A node, known by its handshake, is connected. It takes over what it announced in an
    /// earlier session of which the lease is running; a session that is still open is
    /// superseded. Claimed addresses beyond [`RegistryConfig::candidates_per_node`] are dropped.
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
        let known = self.rooms.get(&group).and_then(|room| room.node(node));
        let limit = self.shared.config.nodes_max;
        if known.is_none() && self.shared.nodes >= limit {
            return Err(OpenError::Full { limit });
        }
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let shared = &mut self.shared;
        let room = self.rooms.entry(group).or_default();
        let key = match known {
            Some(key) => {
                let earlier = &mut room.nodes[key];
                if let Some(until) = earlier.lease_until.take() {
                    self.leases.remove(&(until, group, node));
                }
                if let Some(superseded) = earlier.session.take() {
                    self.sessions.remove(&superseded);
                    shared.outputs.push_back(Output::Superseded(superseded));
                }
                for watch in &earlier.watches {
                    self.watches.remove(watch);
                }
                room.close_watches(key);
                room.abandon_announcement(key);
                room.set_contact(key, contact, shared);
                key
            }
            None => {
                shared.nodes += 1;
                room.add_node(node, contact)
            }
        };
        room.nodes[key].session = Some(session);
        self.sessions.insert(session, Owner { group, node: key });
        Ok(session)
    }

    /// A session is over. After a clean goodbye everything of it goes at once; otherwise what
    /// the node announced stays for the lease. Of a session that is gone already, nothing.
    pub fn handle_session_closed(&mut self, now: Instant, session: SessionId, clean: bool) {
        self.handle_timeout(now);
        let Some(Owner { group, node: key }) = self.sessions.remove(&session) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(&group) else {
            return;
        };
        let node = &mut room.nodes[key];
        node.session = None;
        for watch in &node.watches {
            self.watches.remove(watch);
        }
        if clean || node.entry_count() == 0 {
            self.forget(group, key);
        } else {
            let until = now + self.shared.config.lease;
            node.lease_until = Some(until);
            self.leases.insert((until, group, node.id));
            room.close_watches(key);
        }
    }

    /// The node of a session is to be reached elsewhere.
    pub fn handle_moved(
        &mut self,
        now: Instant,
        session: SessionId,
        observed: SocketAddr,
        claimed: &[SocketAddr],
    ) -> Result<(), SessionGone> {
        let contact = self.contact(observed, claimed);
        let (room, key, shared) = self.of_session(now, session)?;
        room.set_contact(key, contact, shared);
        Ok(())
    }

    /// A full announcement begins: [`Registry::handle_announced`] follows in batches, then
    /// [`Registry::handle_announcement_ended`]. One that had begun begins anew.
    pub fn handle_announcement_begun(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<(), SessionGone> {
        let (room, key, _) = self.of_session(now, session)?;
        room.begin_announcement(key);
        Ok(())
    }

    /// New or changed entries, part of a full announcement or a difference. They can be found
    /// at once. Returns those that were not taken.
    pub fn handle_announced(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[Announced],
    ) -> Result<Vec<Refused>, SessionGone> {
        let (room, key, shared) = self.of_session(now, session)?;
        let refused = batch.iter().enumerate().filter_map(|(position, entry)| {
            let refusal = room.announce(key, entry, shared).err()?;
            Some(Refused { position, refusal })
        });
        Ok(refused.collect())
    }

    /// Entries that are no more. Those that never were are passed over.
    pub fn handle_withdrawn(
        &mut self,
        now: Instant,
        session: SessionId,
        batch: &[EntryKey],
    ) -> Result<(), SessionGone> {
        let (room, key, shared) = self.of_session(now, session)?;
        for EntryKey { name, content } in batch {
            let listed = Listed {
                name: name.as_str().into(),
                content: *content,
            };
            room.withdraw(key, &listed, shared);
        }
        Ok(())
    }

    /// A full announcement ends: what the node announced earlier and not since it began goes.
    /// Returns how many entries that were.
    pub fn handle_announcement_ended(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<usize, NotAnnouncing> {
        let (room, key, shared) = self.of_session(now, session)?;
        room.end_announcement(key, shared)
            .ok_or(NotAnnouncing::NotBegun)
    }

    /// Answers a lookup.
    pub fn find(&mut self, now: Instant, find: &Find) -> Result<Page, FindError> {
        self.handle_timeout(now);
        let readiness = self.readiness(now);
        match self.rooms.get_mut(&find.group) {
            Some(room) => room.find(find, readiness, &mut self.shared),
            None => Ok(Page::empty(readiness)),
        }
    }

    /// A random sample of those who hold a content: at most `limit` and
    /// [`RegistryConfig::holders_max`], never `asking`. Whoever was given out often is given
    /// out less.
    pub fn holders(
        &mut self,
        now: Instant,
        group: GroupId,
        content: ContentId,
        limit: usize,
        asking: Option<NodeId>,
    ) -> Sample {
        self.handle_timeout(now);
        let Some(room) = self.rooms.get_mut(&group) else {
            return Sample::default();
        };
        let Some(held) = room.catalog.content(content) else {
            return Sample::default();
        };
        let limit = limit.min(self.shared.config.holders_max);
        let drawn = room.catalog.contents[held].holders.drawn_for(limit) as u64;
        let holders = room.sample(held, limit, asking, &mut self.shared);
        Sample {
            steps: NAME_STEPS + drawn * DRAWN_STEPS + holders.len() as u64 * HOLDER_STEPS,
            holders,
        }
    }

    /// Whether nodes have had the time to announce themselves since the start.
    pub fn readiness(&self, now: Instant) -> Readiness {
        if now < self.warm_at {
            Readiness::Warming
        } else {
            Readiness::Ready
        }
    }

    /// Tells a session of changes among the holders of a content, itself left out. To miss
    /// nothing, watch first and then ask for [`Registry::holders`].
    pub fn watch(
        &mut self,
        now: Instant,
        session: SessionId,
        content: ContentId,
    ) -> Result<WatchId, WatchError> {
        let limit = self.shared.config.watches_per_session;
        let id = WatchId(self.last_watch + 1);
        let (room, key, _) = self
            .of_session(now, session)
            .map_err(|SessionGone| WatchError::Gone)?;
        if room.nodes[key].watches.len() >= limit {
            return Err(WatchError::TooMany { limit });
        }
        room.nodes[key].watches.push(id);
        room.watches.open(id, key, content);
        let owner = self.sessions.get(&session).ok_or(WatchError::Gone)?;
        self.watches.insert(id, owner.group);
        self.last_watch = id.0;
        Ok(id)
    }

    /// Ends a watch. One that has ended with its session already is passed over.
    pub fn unwatch(&mut self, watch: WatchId) {
        let Some(room) = self
            .watches
            .remove(&watch)
            .and_then(|group| self.rooms.get_mut(&group))
        else {
            return;
        };
        if let Some(watcher) = room.watches.close(watch) {
            room.nodes[watcher].watches.retain(|&other| other != watch);
        }
    }

    /// The next change of a watch, as things stand now: a holder that came and went since the
    /// last call is not mentioned. `None` until the next [`Output::WatchReady`].
    pub fn poll_change(&mut self, now: Instant, watch: WatchId) -> Option<HolderChange> {
        self.handle_timeout(now);
        let group = self.watches.get(&watch)?;
        self.rooms.get_mut(group)?.poll_watch(watch)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// When something is due by itself.
    pub fn poll_timeout(&self) -> Option<Timeout> {
        self.leases.first().map(|&(at, ..)| Timeout {
            at,
            reason: TimeoutReason::LeaseExpires,
        })
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&lease) = self.leases.first()
            && lease.0 <= now
        {
            self.leases.remove(&lease);
            let (_, group, node) = lease;
            if let Some(key) = self.rooms.get(&group).and_then(|room| room.node(node)) {
                self.forget(group, key);
            }
        }
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        let rooms = self.rooms.values();
        Counts {
            sessions: self.sessions.len(),
            nodes: self.shared.nodes,
            entries: self.shared.entries,
            assets: rooms.clone().map(|room| room.catalog.assets.len()).sum(),
            contents: rooms.map(|room| room.catalog.contents.len()).sum(),
            name_bytes: self.shared.name_bytes,
            watches: self.watches.len(),
        }
    }

    fn contact(&self, observed: SocketAddr, claimed: &[SocketAddr]) -> Contact {
        let most = self.shared.config.candidates_per_node;
        Contact {
            observed,
            claimed: claimed.iter().copied().take(most).collect(),
        }
    }

    /// Where the node of an open session is kept.
    fn of_session(
        &mut self,
        now: Instant,
        session: SessionId,
    ) -> Result<(&mut Room, Key<Node>, &mut Shared), SessionGone> {
        self.handle_timeout(now);
        let owner = self.sessions.get(&session).ok_or(SessionGone)?;
        let room = self.rooms.get_mut(&owner.group).ok_or(SessionGone)?;
        Ok((room, owner.node, &mut self.shared))
    }

    /// Drops a node that has neither session nor lease, and its group when it was the last.
    fn forget(&mut self, group: GroupId, key: Key<Node>) {
        let Some(room) = self.rooms.get_mut(&group) else {
            return;
        };
        room.remove_node(key, &mut self.shared);
        self.shared.nodes -= 1;
        if room.nodes.len() == 0 {
            self.rooms.remove(&group);
        }
    }
}
