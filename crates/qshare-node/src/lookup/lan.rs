//! Asks the nodes of the local network.
//!
//! The answer of a tracker takes precedence. The local network is asked if no tracker is
//! configured, or if none answers or finds the file.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{FileMetadata, NodeId, Query};
use qshare_net::framed;
use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::{EntryKind, Find, Found};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::cursors::Cursors;
use super::merge::Neighbourhood;
use crate::access::Access;
use crate::error::SourceFault;
use crate::neighbours::Neighbours;
use crate::peers::Dialler;
use crate::trackers::{Trackers, answers_to};
use crate::vocabulary::{Contact, Findings, FoundFile, HolderNews};

/// Limit on the nodes that are asked one question.
const ASKED_MAX: usize = 32;
/// A one-shot command gives its trackers this long before it starts discovery. They have usually
/// answered by then, and no multicast is needed.
const HEAD_START: Duration = Duration::from_millis(150);
/// Time from the start of discovery until all nodes can have answered: they delay their answers by
/// up to 120 ms (RFC 6762, section 6).
const FIRST_ANSWERS: Duration = Duration::from_millis(300);
/// Deadline for one node's answer, including the time to connect.
const ANSWER_DEADLINE: Duration = Duration::from_millis(1500);
/// Interval at which a download asks each node again whether it holds the content.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Time for which a download with a tracker relies on the tracker alone.
const TRACKERS_FIRST: Duration = Duration::from_secs(3);
/// Limit on the pages that one node may send for one question.
const PAGES_MAX: usize = 512;

/// Asks neighbours for the files that they share.
pub(crate) struct LanLookup {
    neighbours: Arc<Neighbours>,
    dialler: Arc<Dialler>,
    trackers: Arc<Trackers>,
    /// Whether this is a one-shot command, which starts discovery only if it needs to.
    is_one_shot: bool,
}

impl LanLookup {
    pub(crate) fn new(
        neighbours: Arc<Neighbours>,
        dialler: Arc<Dialler>,
        trackers: Arc<Trackers>,
        is_one_shot: bool,
    ) -> LanLookup {
        LanLookup {
            neighbours,
            dialler,
            trackers,
            is_one_shot,
        }
    }

    /// Whether discovery runs, or can be started.
    pub(crate) fn is_on(&self) -> bool {
        self.neighbours.is_on()
    }

    /// Asks the nodes of the local network after a head start for the trackers; `hurry` signals
    /// that the trackers have answered. Returns None if no node could be asked by `until`.
    pub(crate) async fn find(
        &self,
        query: &Query,
        limit: usize,
        until: Instant,
        hurry: &CancellationToken,
    ) -> Option<Findings> {
        if !self.is_on() {
            return None;
        }
        if self.is_one_shot && !self.trackers.is_empty() {
            let _ = timeout(HEAD_START, hurry.cancelled()).await;
        }
        let since = self.neighbours.started(until).await?;
        let everybody = (since + FIRST_ANSWERS).min(until);
        let mut changes = self.neighbours.changes();
        let mut asked: HashSet<NodeId> = HashSet::new();
        let mut asking = JoinSet::new();
        let mut neighbourhood = Neighbourhood::default();
        let mut answered = false;
        loop {
            changes.borrow_and_update();
            for (node, addresses) in self.neighbours.askable(Instant::now(), ASKED_MAX) {
                if asked.len() < ASKED_MAX && asked.insert(node) {
                    asking.spawn(self.question(node, addresses, query.clone(), limit).ask());
                }
            }
            // Once trackers have answered, do not wait for a network that may be empty.
            let expected = answered || hurry.is_cancelled();
            let enough = expected && asking.is_empty() && Instant::now() >= everybody;
            if enough || Instant::now() >= until {
                break;
            }
            let wake = match Instant::now() < everybody {
                true => everybody,
                false => until,
            };
            tokio::select! {
                Some(answer) = asking.join_next(), if !asking.is_empty() => {
                    let Ok(Some(found)) = answer else { continue };
                    answered = true;
                    neighbourhood.add(found, limit);
                }
                _ = changes.changed() => {}
                () = hurry.cancelled(), if !hurry.is_cancelled() => {}
                () = sleep_until(wake) => {}
            }
        }
        // The addresses of some nodes became known only after the nodes were asked.
        for holder in neighbourhood.holders_mut() {
            let addresses = self.neighbours.addresses(&holder.node);
            if !addresses.is_empty() {
                holder.addresses = addresses;
            }
        }
        answered.then(|| neighbourhood.into_findings())
    }

    /// Reports which nodes of the network hold a content, until the receiver is dropped. Relies on
    /// a tracker first, if there is one.
    pub(crate) async fn watch(&self, access: Access, news: mpsc::Sender<HolderNews>) {
        if !self.is_on() {
            return;
        }
        tokio::select! {
            () = news.closed() => {}
            () = self.watch_until_closed(&access, &news) => {}
        }
    }

    async fn watch_until_closed(&self, access: &Access, news: &mpsc::Sender<HolderNews>) {
        if !self.trackers.is_empty() {
            sleep(HEAD_START).await;
        }
        if self.trackers.established().next().is_some() {
            sleep(TRACKERS_FIRST).await;
        }
        let far = Instant::now() + Duration::from_secs(3600);
        if self.neighbours.started(far).await.is_none() {
            return;
        }
        let mut changes = self.neighbours.changes();
        let mut next_by_node: HashMap<NodeId, Instant> = HashMap::new();
        let mut asking: JoinSet<Vec<Contact>> = JoinSet::new();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            next_by_node.retain(|_, next| *next > now);
            for (node, addresses) in self.neighbours.askable(now, ASKED_MAX) {
                if next_by_node.len() < ASKED_MAX && !next_by_node.contains_key(&node) {
                    next_by_node.insert(node, now + ASK_AGAIN);
                    // A private content is asked for by its topic, and only that is said.
                    match access {
                        Access::Public(content) => {
                            let query = Query::Id(*content);
                            let question = self.question(node, addresses, query, 1);
                            asking.spawn(async move {
                                let found = question.ask().await.into_iter();
                                let files = found.flat_map(|found| found.files);
                                files.flat_map(|file| file.holders).collect()
                            });
                        }
                        Access::Private { .. } => {
                            let (dialler, access) = (self.dialler.clone(), access.clone());
                            let neighbours = self.neighbours.clone();
                            asking.spawn(unlock(neighbours, dialler, node, addresses, access));
                        }
                    }
                }
            }
            tokio::select! {
                Some(found) = asking.join_next(), if !asking.is_empty() => {
                    let holders = found.unwrap_or_default();
                    if !holders.is_empty() && news.send(HolderNews::Given(holders)).await.is_err() {
                        return;
                    }
                }
                _ = changes.changed() => {}
                () = sleep(ASK_AGAIN) => {}
            }
        }
    }

    fn question(
        &self,
        node: NodeId,
        addresses: Vec<SocketAddr>,
        query: Query,
        limit: usize,
    ) -> Question {
        Question {
            neighbours: self.neighbours.clone(),
            dialler: self.dialler.clone(),
            node,
            addresses,
            query,
            limit,
        }
    }
}

/// Returns a neighbour as a holder if it unlocks a topic.
async fn unlock(
    neighbours: Arc<Neighbours>,
    dialler: Arc<Dialler>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    access: Access,
) -> Vec<Contact> {
    let unlocked = async {
        let peer = dialler.reach(node, &addresses).await?;
        peer.unlock(&peer.connection(), &access).await
    };
    match timeout(ANSWER_DEADLINE, unlocked).await {
        Ok(Ok(())) => vec![Contact {
            node,
            addresses,
            complete: false,
        }],
        Ok(Err(SourceFault::Ask(_) | SourceFault::Unproven)) => Vec::new(),
        _ => {
            neighbours.let_rest(&node, Instant::now());
            Vec::new()
        }
    }
}

/// A question to one neighbour.
struct Question {
    neighbours: Arc<Neighbours>,
    dialler: Arc<Dialler>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    query: Query,
    limit: usize,
}

impl Question {
    /// Returns the neighbour's files; None if it cannot be asked, in which case this node backs off
    /// from it.
    async fn ask(self) -> Option<Findings> {
        match timeout(ANSWER_DEADLINE, self.ask_pages()).await {
            Ok(Ok(found)) => return Some(found),
            Ok(Err(cause)) => debug!(peer = %self.node, %cause, "cannot ask a neighbour"),
            Err(_) => debug!(peer = %self.node, "a neighbour did not answer in time"),
        }
        self.neighbours.let_rest(&self.node, Instant::now());
        None
    }

    async fn ask_pages(&self) -> Result<Findings, SourceFault> {
        let node = self.node;
        // A node lists only its own files, so a query for another node's file is not sent.
        if matches!(&self.query, Query::OfNode(owner, _) if *owner != node) {
            return Ok(Findings::default());
        }
        let peer = self.dialler.reach(node, &self.addresses).await?;
        let mut found = Findings::default();
        let mut cursors = Cursors::default();
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let wanted = self.limit - found.files.len();
            let request = Find {
                query: self.query.clone(),
                after: after.take(),
                limit: wanted.min(MATCHES_MAX) as u16,
                holders: 0,
                extensions: Vec::new(),
            };
            let (page, ..) = framed::ask::<Find, Found>(&peer.quic(), &request)
                .await
                .map_err(|error| SourceFault::Ask(error.into()))?;
            for entry in answers_to(&self.query, page.matches, wanted) {
                let complete = entry.complete > 0;
                found.files.push(FoundFile {
                    name: entry.name,
                    content: entry.info.id(),
                    info: entry.info,
                    is_collection: entry.kind == EntryKind::Collection,
                    complete: u32::from(complete),
                    partial: u32::from(!complete),
                    holders: vec![Contact {
                        node,
                        addresses: self.addresses.clone(),
                        complete,
                    }],
                    metadata: FileMetadata::decode(&entry.metadata).unwrap_or_default(),
                });
            }
            match page.more {
                Some(more) if found.files.len() < self.limit => {
                    if !cursors.advance(&more) {
                        found.truncated = true;
                        return Ok(found);
                    }
                    after = Some(more);
                }
                more => {
                    found.truncated = more.is_some();
                    return Ok(found);
                }
            }
        }
        found.truncated = true;
        Ok(found)
    }
}
