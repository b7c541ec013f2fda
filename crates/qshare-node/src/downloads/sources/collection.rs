//! The sources of a collection's members. All holders of a collection are holders of its members,
//! so one watch and one set of bitmaps serve all downloads of members, and none needs a lookup.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qshare_content::{Bitmap, ChunkIndex, NodeAddress, NodeId};
use qshare_net::{TokenBucket, framed};
use qshare_wire::Message;
use qshare_wire::collection::MemberInterest;
use qshare_wire::peer::{Have, HaveMore};
use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::SourceWatch;
use super::static_sources::at_once;
use crate::access::Access;
use crate::error::{AskError, SourceFault};
use crate::peers::{Dialler, Peer};
use crate::vocabulary::{Contact, HolderNews};

/// Holders of a collection that are remembered.
const HOLDERS_MAX: usize = 256;
/// Holders whose members are followed.
const FOLLOWED_MAX: usize = 16;
/// Holders that one member starts with. More of them follow if none of these delivers.
const HOLDERS_PER_MEMBER: usize = 8;
/// Pause before a holder that was lost is followed again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);
/// Deadline for the first answer about a holder's members.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two messages to one member about changed holders.
const NEWS_PAUSE: Duration = Duration::from_millis(200);
/// Burst and rate per second of a holder's messages about its members. They are collected for
/// 20 ms, so there are at most 50 a second.
const HAVE_BURST: f64 = 500.0;
const HAVE_PER_SECOND: f64 = 100.0;
/// Members whose bits in a bitmap cost as much as one message about a few members.
const BITMAP_MEMBERS: f64 = 4096.0;

/// The holders of one collection, and what each has. The watch ends when this is dropped.
pub(crate) struct CollectionSources {
    holders: Mutex<HashMap<NodeId, Holder>>,
    changes: watch::Sender<u64>,
    _stop: DropGuard,
}

impl fmt::Debug for CollectionSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectionSources").finish_non_exhaustive()
    }
}

struct Holder {
    contact: Contact,
    /// The members of an incomplete one, once they are known.
    members: Option<Bitmap>,
}

/// What a follower of a holder reports.
enum Event {
    Have(NodeId, Bitmap, bool),
    HaveMore(NodeId, Vec<u32>),
    Lost(NodeId),
}

impl CollectionSources {
    /// Starts to watch a collection of `members` files.
    pub(crate) fn start(
        watch: &SourceWatch,
        dialler: Arc<Dialler>,
        access: Access,
        members: u32,
        known: Vec<Contact>,
        nodes: &[NodeAddress],
    ) -> Arc<CollectionSources> {
        let stop = CancellationToken::new();
        let sources = Arc::new(CollectionSources {
            holders: Mutex::default(),
            changes: watch::Sender::new(0),
            _stop: stop.clone().drop_guard(),
        });
        sources.join(known);
        // The nodes that a link names are always asked, and answer what they have.
        sources.join(at_once(nodes));
        let news = watch.start(&access, nodes);
        let weak = Arc::downgrade(&sources);
        watch.spawn(async move {
            let run = Run {
                sources: weak,
                dialler,
                access,
                members,
                followed: HashSet::new(),
                tasks: JoinSet::new(),
            };
            let _ = stop.run_until_cancelled(run.run(news)).await;
        });
        sources
    }

    /// Returns some holders of a member, at random.
    pub(crate) fn holders_of(&self, member: u32) -> Vec<Contact> {
        self.some_holders_of(Some(member), HOLDERS_PER_MEMBER)
    }

    /// Returns some holders of a member, or of anything.
    fn some_holders_of(&self, member: Option<u32>, max: usize) -> Vec<Contact> {
        let holders = self.lock();
        let has = |holder: &&Holder| match (member, &holder.members) {
            (None, _) => true,
            (Some(member), Some(members)) => members.contains(ChunkIndex(member)),
            (Some(_), None) => holder.contact.complete,
        };
        let contacts = holders.values().filter(has).map(|holder| Contact {
            // It has all of this member, as far as anybody knows.
            complete: true,
            ..holder.contact.clone()
        });
        contacts.choose_multiple(&mut rand::rng(), max)
    }

    /// Reports the holders of a member, or of anything, now and as they change, until the receiver
    /// is dropped.
    pub(crate) fn watch(self: &Arc<Self>, member: Option<u32>) -> mpsc::Receiver<HolderNews> {
        let (sender, receiver) = mpsc::channel(1);
        let sources = self.clone();
        let mut changes = self.changes.subscribe();
        tokio::spawn(async move {
            loop {
                changes.mark_unchanged();
                let contacts = sources.some_holders_of(member, HOLDERS_MAX);
                if sender.send(HolderNews::Joined(contacts)).await.is_err() {
                    return;
                }
                sleep(NEWS_PAUSE).await;
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        receiver
    }

    /// Returns some holders of the collection.
    pub(crate) fn some(&self) -> Vec<Contact> {
        let holders = self.lock();
        let contacts = holders.values().map(|holder| holder.contact.clone());
        contacts.choose_multiple(&mut rand::rng(), HOLDERS_PER_MEMBER)
    }

    /// Returns the number of known holders.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn join(&self, contacts: Vec<Contact>) {
        let mut holders = self.lock();
        for contact in contacts {
            if contact.addresses.is_empty() {
                continue;
            }
            if let Some(known) = holders.get_mut(&contact.node) {
                known.contact.complete |= contact.complete;
                known.contact.addresses = contact.addresses;
            } else if holders.len() < HOLDERS_MAX {
                let node = contact.node;
                let members = None;
                holders.insert(node, Holder { contact, members });
            }
        }
        drop(holders);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind [`CollectionSources`].
struct Run {
    sources: std::sync::Weak<CollectionSources>,
    dialler: Arc<Dialler>,
    access: Access,
    members: u32,
    followed: HashSet<NodeId>,
    tasks: JoinSet<()>,
}

impl Run {
    async fn run(mut self, mut news: mpsc::Receiver<HolderNews>) {
        let (events, mut told) = mpsc::channel(64);
        loop {
            let Some(sources) = self.sources.upgrade() else {
                return;
            };
            self.follow_more(&sources, &events);
            drop(sources);
            tokio::select! {
                update = news.recv() => match update {
                    Some(update) => self.handle_news(update),
                    None => std::future::pending().await,
                },
                Some(event) = told.recv() => self.handle(event),
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Follows holders, up to the limit. Complete ones, too: they see who receives the folder.
    fn follow_more(&mut self, sources: &CollectionSources, events: &mpsc::Sender<Event>) {
        let holders = sources.lock();
        for (node, holder) in holders.iter() {
            if self.followed.len() >= FOLLOWED_MAX {
                return;
            }
            if !self.followed.insert(*node) {
                continue;
            }
            let follow = follow(
                self.dialler.clone(),
                holder.contact.clone(),
                self.access.clone(),
                self.members,
                events.clone(),
            );
            self.tasks.spawn(follow);
        }
    }

    fn handle_news(&mut self, news: HolderNews) {
        let Some(sources) = self.sources.upgrade() else {
            return;
        };
        match news {
            HolderNews::Joined(contacts) | HolderNews::Given(contacts) => sources.join(contacts),
            HolderNews::Left(nodes) => {
                // Those that are followed report themselves what they have.
                let gone = |node: &NodeId| nodes.contains(node) && !self.followed.contains(node);
                sources.lock().retain(|node, _| !gone(node));
                sources.changed();
            }
            HolderNews::Unresolved { node, fault } => debug!(peer = %node, %fault, "no address"),
        }
    }

    fn handle(&mut self, event: Event) {
        let Some(sources) = self.sources.upgrade() else {
            return;
        };
        let mut holders = sources.lock();
        match event {
            Event::Have(node, members, complete) => {
                if let Some(holder) = holders.get_mut(&node) {
                    holder.contact.complete = complete;
                    holder.members = Some(members);
                }
            }
            Event::HaveMore(node, more) => {
                let holder = holders.get_mut(&node);
                if let Some(members) = holder.and_then(|holder| holder.members.as_mut()) {
                    more.iter()
                        .for_each(|&at| _ = members.insert(ChunkIndex(at)));
                }
            }
            Event::Lost(node) => {
                self.followed.remove(&node);
                if let Some(holder) = holders.get_mut(&node) {
                    holder.members = None;
                }
            }
        }
        drop(holders);
        sources.changed();
    }
}

/// Reports the members of a holder until it is lost, and a pause after that.
async fn follow(
    dialler: Arc<Dialler>,
    contact: Contact,
    access: Access,
    members: u32,
    events: mpsc::Sender<Event>,
) {
    let node = contact.node;
    if let Ok(peer) = dialler.reach(node, &contact.addresses).await {
        let followed = follow_peer(&peer, &access, members, &events);
        if let Err(fault) = followed.await {
            debug!(peer = %node, %fault, "does not tell its members any more");
        }
    }
    sleep(FOLLOW_AGAIN).await;
    let _ = events.send(Event::Lost(node)).await;
}

async fn follow_peer(
    peer: &Peer,
    access: &Access,
    members: u32,
    events: &mpsc::Sender<Event>,
) -> Result<(), SourceFault> {
    let connection = peer.connection();
    let request = MemberInterest {
        collection: access.wire_id(),
        extensions: Vec::new(),
    };
    let asked = async {
        peer.unlock(&connection, access).await?;
        let _busy = peer.busy();
        let asked = framed::ask::<MemberInterest, Have>(&connection.connection, &request);
        Ok::<_, SourceFault>(asked.await.map_err(AskError::from)?)
    };
    // The sending half is kept: closing it would end the interest.
    let (first, _send, mut recv) = timeout(ANSWER_DEADLINE, asked)
        .await
        .map_err(|_| AskError::TimedOut(ANSWER_DEADLINE))??;
    let have = |have: Have| {
        let set = match have.complete {
            true => Some(Bitmap::full(members)),
            false => Bitmap::from_bytes(members, &have.bitmap),
        };
        let set = set.ok_or(SourceFault::InvalidHave)?;
        Ok::<Event, SourceFault>(Event::Have(peer.node, set, have.complete))
    };
    let invalid = |_| SourceFault::InvalidHave;
    // The download has ended.
    let closed = |_| SourceFault::Lost;
    events.send(have(first)?).await.map_err(closed)?;
    let mut budget = TokenBucket::new(Instant::now(), HAVE_PER_SECOND, HAVE_BURST);
    loop {
        let frame = framed::read_frame(&mut recv, Have::BODY_MAX_BYTES).await;
        let frame = frame.map_err(AskError::from)?;
        let cost = match frame.kind == Have::TYPE {
            true => 1.0 + f64::from(members) / BITMAP_MEMBERS,
            false => 1.0,
        };
        let now = Instant::now();
        if budget.available(now) < 1.0 {
            return Err(SourceFault::HaveRate);
        }
        budget.charge(now, cost);
        let event = match frame.kind {
            Have::TYPE => have(frame.decode().map_err(invalid)?)?,
            HaveMore::TYPE => {
                let more: HaveMore = frame.decode().map_err(invalid)?;
                Event::HaveMore(peer.node, more.chunks)
            }
            // Later versions may send other messages.
            _ => continue,
        };
        events.send(event).await.map_err(closed)?;
    }
}
