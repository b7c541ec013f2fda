//! Asking the nodes of the local network.
//!
//! A tracker that answers is taken to know; the network is asked where no tracker answers or
//! knows, or where there is none.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{ContentId, NodeId, Query};
use qshare_net::framed;
use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::{Find, Found};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::cursors::Cursors;
use super::merge::Neighbourhood;
use crate::error::SourceFault;
use crate::neighbours::Neighbours;
use crate::peers::Dialler;
use crate::trackers::{Trackers, answers_to};
use crate::vocabulary::{Contact, Findings, FoundFile, HolderNews};

/// Nodes that are asked one question.
const ASKED_MAX: usize = 32;
/// A one-shot command gives its trackers this long before it starts discovery. Usually they have
/// answered by then, and nothing needs to be multicast.
const HEAD_START: Duration = Duration::from_millis(150);
/// From the start of discovery until all nodes have had time to answer: they wait for up to 120 ms
/// (RFC 6762, section 6).
const FIRST_ANSWERS: Duration = Duration::from_millis(300);
/// Time for one node's answer, including the time to connect.
const ANSWER_DEADLINE: Duration = Duration::from_millis(1500);
/// How often a download asks each node again whether it holds the content.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a download with a tracker relies on the tracker alone.
const TRACKERS_FIRST: Duration = Duration::from_secs(3);
/// Pages that one node may fill for one question.
const PAGES_MAX: usize = 512;

/// Asks neighbours what they share.
pub(crate) struct LanLookup {
    neighbours: Arc<Neighbours>,
    dialler: Arc<Dialler>,
    trackers: Arc<Trackers>,
    /// Whether this is a one-shot command, which discovers nodes only if it must.
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

    /// Asks the nodes of the local network, after the trackers had their chance; `hurry` tells
    /// that they have. None if no node could be asked by `until`.
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
            // Once trackers have answered, a network that may be empty is not waited for.
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
        // Some addresses became known only after their node was asked.
        for holder in neighbourhood.holders_mut() {
            let addresses = self.neighbours.addresses(&holder.node);
            if !addresses.is_empty() {
                holder.addresses = addresses;
            }
        }
        answered.then(|| neighbourhood.into_findings())
    }

    /// Tells which nodes of the network hold a content, until the receiver is dropped. A tracker
    /// is preferred where there is one.
    pub(crate) async fn watch(&self, content: ContentId, news: mpsc::Sender<HolderNews>) {
        if !self.is_on() {
            return;
        }
        tokio::select! {
            () = news.closed() => {}
            () = self.watch_until_closed(content, &news) => {}
        }
    }

    async fn watch_until_closed(&self, content: ContentId, news: &mpsc::Sender<HolderNews>) {
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
        let query = Query::Id(content);
        let mut changes = self.neighbours.changes();
        let mut next_by_node: HashMap<NodeId, Instant> = HashMap::new();
        let mut asking: JoinSet<Option<Findings>> = JoinSet::new();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            next_by_node.retain(|_, next| *next > now);
            for (node, addresses) in self.neighbours.askable(now, ASKED_MAX) {
                if next_by_node.len() < ASKED_MAX && !next_by_node.contains_key(&node) {
                    next_by_node.insert(node, now + ASK_AGAIN);
                    asking.spawn(self.question(node, addresses, query.clone(), 1).ask());
                }
            }
            tokio::select! {
                Some(found) = asking.join_next(), if !asking.is_empty() => {
                    let found = found.ok().flatten().into_iter();
                    let files = found.flat_map(|found| found.files);
                    let holders: Vec<Contact> = files.flat_map(|file| file.holders).collect();
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
    /// Returns what the neighbour shares; None if it cannot be asked, in which case it rests.
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
        // A node speaks for nobody but itself.
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
                    complete: u32::from(complete),
                    partial: u32::from(!complete),
                    holders: vec![Contact {
                        node,
                        addresses: self.addresses.clone(),
                        complete,
                    }],
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
