//! Nodes on the same network: who they are, and asking them what they share.
//!
//! Where a tracker answers, it is believed to know; the network is asked when it does not, or
//! there is none. Discovery starts with a node that shares, and with the first need of a one-shot
//! command.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qshare_content::{AssetName, ContentId, NodeId, Query};
use qshare_net::{LanDiscovery, LanError, LanEvent, LocalNetworks, framed};
use qshare_wire::hello::Role;
use qshare_wire::limits::MATCHES_MAX;
use qshare_wire::tracker::{Find, Found};
use rand::seq::IteratorRandom;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::node::Inner;
use crate::peers::reach;
use crate::trackers::session::{HolderNews, SessionState, answers_to};
use crate::vocabulary::{Contact, Findings, FoundFile};

/// Nodes of the network that are remembered.
const NODES_MAX: usize = 256;
/// Of these, how many are asked one question.
const ASKED_MAX: usize = 32;
/// A one-shot command gives its trackers this long before it looks around itself: usually they
/// have answered by then, and nothing needs to be multicast.
const HEAD_START: Duration = Duration::from_millis(150);
/// From the start of discovery until everybody has had time to answer: RFC 6762 section 6 has
/// them wait for up to 120 ms.
const FIRST_ANSWERS: Duration = Duration::from_millis(300);
/// Time for one node's answer, reaching it included.
const ANSWER_DEADLINE: Duration = Duration::from_millis(1500);
/// A node that could not be asked is left alone for this long.
const REST: Duration = Duration::from_secs(15);
/// While a download goes on, how often nodes are asked whether they have it by now.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a download that has a tracker relies on it alone.
const TRACKERS_FIRST: Duration = Duration::from_secs(3);
/// Pages that one node may fill for one question.
const PAGES_MAX: usize = 512;

/// How discovery stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Discovery {
    /// Nobody has needed it yet.
    Idle,
    /// At work since then.
    Since(Instant),
    /// Turned off, or of no use here.
    Useless,
}

struct Known {
    addresses: Vec<SocketAddr>,
    /// It could not be asked; not before then again.
    rests_until: Option<Instant>,
}

/// The nodes of the network.
pub(crate) struct Lan {
    wanted: CancellationToken,
    discovery: watch::Sender<Discovery>,
    known: Mutex<BTreeMap<NodeId, Known>>,
    /// Counts what was learnt.
    news: watch::Sender<u64>,
    links: Mutex<LocalNetworks>,
}

impl Lan {
    pub(crate) fn new(is_on: bool) -> Lan {
        let discovery = match is_on {
            true => Discovery::Idle,
            false => Discovery::Useless,
        };
        Lan {
            wanted: CancellationToken::new(),
            discovery: watch::Sender::new(discovery),
            known: Mutex::default(),
            news: watch::Sender::new(0),
            links: Mutex::default(),
        }
    }

    /// Whether the network is to be looked at, and can be.
    pub(crate) fn is_on(&self) -> bool {
        *self.discovery.borrow() != Discovery::Useless
    }

    /// Everybody who was found.
    pub(crate) fn nodes(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let known = self.lock();
        let nodes = known.iter();
        nodes
            .map(|(&node, known)| (node, known.addresses.clone()))
            .collect()
    }

    /// Where a node is on this network, if it is.
    pub(crate) fn addresses(&self, node: &NodeId) -> Vec<SocketAddr> {
        let known = self.lock();
        known
            .get(node)
            .map(|known| known.addresses.clone())
            .unwrap_or_default()
    }

    /// Whether an address is on one of our own networks, or this machine's.
    pub(crate) fn is_near(&self, ip: IpAddr) -> bool {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        ip.to_canonical().is_loopback() || links.reach(ip)
    }

    fn handle(&self, event: LanEvent) {
        let mut known = self.lock();
        match event {
            LanEvent::Found { node, addresses } => {
                if known.len() == NODES_MAX && !known.contains_key(&node) {
                    return;
                }
                debug!(peer = %node, ?addresses, "on this network");
                let rests_until = None;
                let found = Known {
                    addresses,
                    rests_until,
                };
                known.insert(node, found);
            }
            LanEvent::Gone { node } => {
                debug!(peer = %node, "left this network");
                known.remove(&node);
            }
        }
        drop(known);
        self.news.send_modify(|count| *count += 1);
    }

    /// Some nodes that may be asked now.
    fn askable(&self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let now = Instant::now();
        let known = self.lock();
        let awake = known.iter().filter(|(_, known)| {
            let until = known.rests_until;
            until.is_none_or(|until| until <= now)
        });
        awake
            .map(|(&node, known)| (node, known.addresses.clone()))
            .choose_multiple(&mut rand::rng(), ASKED_MAX)
    }

    fn let_rest(&self, node: &NodeId) {
        if let Some(known) = self.lock().get_mut(node) {
            known.rests_until = Some(Instant::now() + REST);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Discovers, and advertises this node once it has something to share, until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let lan = &inner.lan;
    if !lan.is_on() {
        return;
    }
    let shares = inner.greeting.role == Role::Node;
    if !shares {
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = lan.wanted.cancelled() => {}
        }
    }
    match discover(&inner, shares).await {
        Ok(()) => debug!("discovery on the local network has ended"),
        Err(error) => debug!(%error, "the local network is left alone"),
    }
    lan.discovery.send_replace(Discovery::Useless);
}

async fn discover(inner: &Arc<Inner>, shares: bool) -> Result<(), LanError> {
    let lan = &inner.lan;
    let listen = match inner.endpoint.local_addr() {
        // Reachable from this machine only.
        Ok(listen) if listen.ip().to_canonical().is_loopback() => return Ok(()),
        Ok(listen) => listen,
        Err(_) => return Ok(()),
    };
    let mut discovery = LanDiscovery::start(inner.endpoint.id(), inner.greeting.group.clone())?;
    lan.discovery.send_replace(Discovery::Since(Instant::now()));
    if shares {
        discovery.advertise(listen)?;
    }
    let mut offers = inner.catalogue.watch_offers();
    offers.mark_changed();
    let mut advertised = shares;
    loop {
        tokio::select! {
            () = inner.stopping.cancelled() => break,
            event = discovery.next() => match event {
                Some(event) => lan.handle(event),
                None => {
                    warn!("too much is advertised on the local network; it is left alone");
                    return Ok(());
                }
            },
            // A download that others can take part in.
            Ok(()) = offers.changed(), if !advertised => {
                advertised = *offers.borrow_and_update();
                if advertised {
                    discovery.advertise(listen)?;
                }
            }
        }
    }
    discovery.close().await;
    Ok(())
}

/// Lets discovery begin, and waits until it has: since when. None if it does not work here.
async fn begin(inner: &Inner, until: Instant) -> Option<Instant> {
    let lan = &inner.lan;
    lan.wanted.cancel();
    let mut discovery = lan.discovery.subscribe();
    let begun = discovery.wait_for(|discovery| *discovery != Discovery::Idle);
    match timeout_at(until, begun).await {
        Ok(Ok(discovery)) => match *discovery {
            Discovery::Since(since) => Some(since),
            Discovery::Idle | Discovery::Useless => None,
        },
        _ => None,
    }
}

/// Asks the nodes of the network, after the trackers have had their chance (`hurry` says that
/// they have). None if nobody here could be asked by then.
pub(crate) async fn find(
    inner: &Arc<Inner>,
    query: &Query,
    limit: usize,
    until: Instant,
    hurry: &CancellationToken,
) -> Option<Findings> {
    if !inner.lan.is_on() {
        return None;
    }
    if inner.greeting.role == Role::OneShot && !inner.trackers.is_empty() {
        let _ = timeout(HEAD_START, hurry.cancelled()).await;
    }
    let since = begin(inner, until).await?;
    let everybody = (since + FIRST_ANSWERS).min(until);
    let mut news = inner.lan.news.subscribe();
    let mut asked: HashSet<NodeId> = HashSet::new();
    let mut asking = JoinSet::new();
    let mut files: BTreeMap<(AssetName, ContentId), FoundFile> = BTreeMap::new();
    let (mut answered, mut truncated) = (false, false);
    loop {
        news.borrow_and_update();
        for (node, addresses) in inner.lan.askable() {
            if asked.len() < ASKED_MAX && asked.insert(node) {
                let (inner, query) = (inner.clone(), query.clone());
                asking.spawn(async move { ask(&inner, node, addresses, &query, limit).await });
            }
        }
        // With trackers that answered, nobody waits for a network that may be empty.
        let expected = answered || hurry.is_cancelled();
        let enough = expected && asking.is_empty() && Instant::now() >= everybody;
        if enough || Instant::now() >= until {
            break;
        }
        let wake = if Instant::now() < everybody {
            everybody
        } else {
            until
        };
        tokio::select! {
            Some(answer) = asking.join_next(), if !asking.is_empty() => {
                let Ok(Some(found)) = answer else { continue };
                answered = true;
                truncated |= found.truncated;
                for file in found.files {
                    truncated |= !add(&mut files, file, limit);
                }
            }
            _ = news.changed() => {}
            () = hurry.cancelled(), if !hurry.is_cancelled() => {}
            () = tokio::time::sleep_until(wake) => {}
        }
    }
    // Some addresses became known only after their node was asked.
    for holder in files.values_mut().flat_map(|file| &mut file.holders) {
        let addresses = inner.lan.addresses(&holder.node);
        if !addresses.is_empty() {
            holder.addresses = addresses;
        }
    }
    answered.then(|| Findings {
        files: files.into_values().collect(),
        truncated,
        near: Vec::new(),
    })
}

/// Adds one node's file to what others have; false if there is no room.
fn add(
    files: &mut BTreeMap<(AssetName, ContentId), FoundFile>,
    file: FoundFile,
    limit: usize,
) -> bool {
    let key = (file.name.clone(), file.content);
    let room = files.len() < limit;
    match files.get_mut(&key) {
        Some(known) => {
            // Every node answers for itself alone.
            known.complete += file.complete;
            known.partial += file.partial;
            known.holders.extend(file.holders);
        }
        None if room => _ = files.insert(key, file),
        None => return false,
    }
    true
}

/// What one node shares of what is wanted.
async fn ask(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    query: &Query,
    limit: usize,
) -> Option<Findings> {
    match timeout(
        ANSWER_DEADLINE,
        ask_pages(inner, node, addresses, query, limit),
    )
    .await
    {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(cause)) => debug!(peer = %node, %cause, "cannot be asked"),
        Err(_) => debug!(peer = %node, "does not answer"),
    }
    inner.lan.let_rest(&node);
    None
}

async fn ask_pages(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: Vec<SocketAddr>,
    query: &Query,
    limit: usize,
) -> Result<Findings, String> {
    // A node speaks for nobody but itself.
    if matches!(query, Query::OfNode(owner, _) if *owner != node) {
        return Ok(Findings::default());
    }
    let peer = reach(inner, node, &addresses).await?;
    let mut found = Findings::default();
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let wanted = limit - found.files.len();
        let request = Find {
            query: query.clone(),
            after: after.take(),
            limit: wanted.min(MATCHES_MAX) as u16,
            holders: 0,
            extensions: Vec::new(),
        };
        let (page, ..) = framed::ask::<Find, Found>(&peer.connection(), &request)
            .await
            .map_err(|error| error.to_string())?;
        for entry in answers_to(query, page.matches, wanted) {
            let complete = entry.complete > 0;
            found.files.push(FoundFile {
                name: entry.name,
                content: entry.info.id(),
                info: entry.info,
                complete: u32::from(complete),
                partial: u32::from(!complete),
                holders: vec![Contact {
                    node,
                    addresses: addresses.clone(),
                    complete,
                }],
            });
        }
        match page.more {
            Some(more) if found.files.len() < limit => after = Some(more),
            more => {
                found.truncated = more.is_some();
                return Ok(found);
            }
        }
    }
    found.truncated = true;
    Ok(found)
}

/// Tells which nodes of the network hold a content, until nobody listens. Where there is a
/// tracker, it comes first.
pub(crate) async fn watch(inner: Arc<Inner>, content: ContentId, news: mpsc::Sender<HolderNews>) {
    if !inner.lan.is_on() {
        return;
    }
    let look = async {
        if !inner.trackers.is_empty() {
            sleep(HEAD_START).await;
        }
        let up = |state: SessionState| matches!(state, SessionState::Up(_));
        if inner.trackers.iter().any(|link| up(link.state())) {
            sleep(TRACKERS_FIRST).await;
        }
        let far = Instant::now() + Duration::from_secs(3600);
        if begin(&inner, far).await.is_none() {
            return;
        }
        let query = Query::Id(content);
        let mut changes = inner.lan.news.subscribe();
        let mut next_by_node: HashMap<NodeId, Instant> = HashMap::new();
        let mut asking: JoinSet<Vec<Contact>> = JoinSet::new();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            next_by_node.retain(|_, next| *next > now);
            for (node, addresses) in inner.lan.askable() {
                if next_by_node.len() < ASKED_MAX && !next_by_node.contains_key(&node) {
                    next_by_node.insert(node, now + ASK_AGAIN);
                    let (inner, query) = (inner.clone(), query.clone());
                    asking.spawn(async move {
                        let found = ask(&inner, node, addresses, &query, 1).await;
                        let files = found.into_iter().flat_map(|found| found.files);
                        files.flat_map(|file| file.holders).collect()
                    });
                }
            }
            tokio::select! {
                Some(holders) = asking.join_next(), if !asking.is_empty() => {
                    let holders = holders.unwrap_or_default();
                    if !holders.is_empty() && news.send(HolderNews::Given(holders)).await.is_err() {
                        return;
                    }
                }
                _ = changes.changed() => {}
                () = sleep(ASK_AGAIN) => {}
            }
        }
    };
    tokio::select! {
        () = inner.stopping.cancelled() => {}
        () = news.closed() => {}
        () = look => {}
    }
}
