//! Finding a way to a node: straight to where it was seen, by probes from both sides after an
//! introduction, through a relay in the end. All of them are tried at once; the first that is
//! there is taken, but the relay only once the others had some time.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::punch::Introduced;
use qshare_net::{Callee, Endpoint, Session, connect, greet, is_virtual};
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::limits::{CANDIDATE_PORT_MIN, CANDIDATES_MAX};
use qshare_wire::{Address, Candidate, CandidateKind, is_private};
use quinn::Connection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::node::Inner;
use crate::tracker_link::{LinkState, resolve_candidates};

/// Time for one attempt to reach a node at one address.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// A node with a public address answers before this, and nobody need introduce us.
const INTRODUCE_AFTER: Duration = Duration::from_millis(50);
/// The relay is made ready after this time without a direct way, and used after that one.
const RELAY_READY_AFTER: Duration = Duration::from_millis(400);
const RELAY_AFTER: Duration = Duration::from_millis(800);
/// How long after an introduction an answer to a probe is still waited for.
const PUNCH_WAIT: Duration = Duration::from_secs(5);

/// Which ways are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ways {
    /// Whatever works.
    All,
    /// There is a relayed one already.
    Direct,
}

/// What is known of a node after an introduction.
struct Met {
    answered: mpsc::Receiver<SocketAddr>,
    /// The node's virtual address, or why there is none.
    relay: Result<SocketAddr, &'static str>,
    probed: usize,
}

/// Finds a way to a node and exchanges Hellos on it. The error says for people what was tried.
pub(crate) async fn find_way(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: &[SocketAddr],
    ways: Ways,
) -> Result<Session, String> {
    let begun = Instant::now();
    let mut race = Race::new(inner, node);
    for &address in addresses.iter().filter(|address| !is_virtual(address.ip())) {
        race.dial(address);
    }
    let patience = match addresses.is_empty() {
        true => Duration::ZERO,
        false => INTRODUCE_AFTER,
    };
    let mut meeting = std::pin::pin!(async {
        sleep_until(begun + patience).await;
        meet(inner, node).await
    });
    let mut met: Option<Met> = None;
    let mut is_meeting = true;
    let mut punch_until = None;
    let mut relay_at = None;
    let mut relayed: Option<Connection> = None;
    loop {
        if race.dials.is_empty()
            && !is_meeting
            && punch_until.is_none()
            && relay_at.is_none()
            && relayed.is_none()
        {
            return Err(race.describe());
        }
        let use_relay_at = relayed.as_ref().map(|_| begun + RELAY_AFTER);
        tokio::select! {
            biased;
            Some(ended) = race.dials.join_next() => {
                let Ok((address, result)) = ended else { continue };
                match result {
                    Ok(connection) if is_virtual(address.ip()) => relayed = Some(connection),
                    Ok(connection) => {
                        if let Some(session) = race.greet(address, connection).await {
                            return Ok(session);
                        }
                    }
                    Err(cause) => race.note(address, &cause),
                }
            }
            introduced = &mut meeting, if is_meeting => {
                is_meeting = false;
                match introduced {
                    Ok(introduced) => {
                        punch_until = Some(Instant::now() + PUNCH_WAIT);
                        match introduced.relay {
                            Ok(_) if ways == Ways::All => {
                                relay_at = Some(begun + RELAY_READY_AFTER);
                            }
                            Ok(_) => {}
                            Err(cause) => race.causes.push(format!("relay: {cause}")),
                        }
                        met = Some(introduced);
                    }
                    Err(cause) => race.causes.push(format!("introduction: {cause}")),
                }
            }
            answered = next_answer(&mut met), if punch_until.is_some() => {
                punch_until = None;
                if let Some(address) = answered {
                    debug!(peer = %node, %address, "answers probes");
                    // Even if it is being dialled: those packets may have met a closed router,
                    // and would be sent again only after a while.
                    race.dial_again(address);
                }
            }
            () = at(punch_until) => {
                punch_until = None;
                let probed = met.as_ref().map_or(0, |met| met.probed);
                race.causes.push(format!("no answer to probes of {probed} addresses"));
            }
            () = at(relay_at) => {
                relay_at = None;
                if let Some(Met { relay: Ok(address), .. }) = met {
                    race.dial(address);
                }
            }
            () = at(use_relay_at) => {
                if let Some(connection) = relayed.take() {
                    let address = connection.remote_address();
                    if let Some(session) = race.greet(address, connection).await {
                        return Ok(session);
                    }
                }
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn next_answer(met: &mut Option<Met>) -> Option<SocketAddr> {
    match met {
        Some(met) => match met.answered.recv().await {
            Some(address) => Some(address),
            // Nothing came of it; the time-out says so.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Several handshakes with one node.
struct Race<'a> {
    inner: &'a Arc<Inner>,
    node: NodeId,
    dials: JoinSet<(SocketAddr, Result<Connection, String>)>,
    dialled: HashSet<SocketAddr>,
    causes: Vec<String>,
}

impl<'a> Race<'a> {
    fn new(inner: &'a Arc<Inner>, node: NodeId) -> Race<'a> {
        Race {
            inner,
            node,
            dials: JoinSet::new(),
            dialled: HashSet::new(),
            causes: Vec::new(),
        }
    }

    fn dial(&mut self, address: SocketAddr) {
        if self.dialled.insert(address) {
            self.dial_again(address);
        }
    }

    fn dial_again(&mut self, address: SocketAddr) {
        let (inner, callee) = (self.inner.clone(), Callee::Node(self.node));
        self.dials.spawn(async move {
            let connected = connect(&inner.endpoint, callee, address, DIAL_DEADLINE).await;
            (address, connected.map_err(|error| error.to_string()))
        });
    }

    /// Takes a connection for the one, unless it turns out to be none.
    async fn greet(&mut self, address: SocketAddr, connection: Connection) -> Option<Session> {
        let (endpoint, greeting) = (&self.inner.endpoint, &self.inner.greeting);
        match timeout(DIAL_DEADLINE, greet(endpoint, greeting, connection)).await {
            Ok(Ok(session)) => return Some(session),
            Ok(Err(error)) => self.note(address, &error.to_string()),
            Err(_) => self.note(address, "no Hello in time"),
        }
        None
    }

    fn note(&mut self, address: SocketAddr, cause: &str) {
        let described = match is_virtual(address.ip()) {
            true => format!("relay: {}", cause.replace(&address.to_string(), "it")),
            false => format!("{address}: {cause}"),
        };
        if !self.causes.contains(&described) {
            self.causes.push(described);
        }
    }

    fn describe(&self) -> String {
        match self.causes.is_empty() {
            true => "it has no address".into(),
            false => self.causes.join("; "),
        }
    }
}

/// Has some tracker introduce us, and begins to probe.
async fn meet(inner: &Arc<Inner>, node: NodeId) -> Result<Met, String> {
    let mut asked = JoinSet::new();
    for link in &inner.trackers {
        let LinkState::Up(up) = link.state() else {
            continue;
        };
        let request = Introduce {
            node,
            candidates: local_candidates(&inner.endpoint),
            extensions: Vec::new(),
        };
        asked.spawn(async move { (up.introduce(&request).await, up.address) });
    }
    let mut cause = String::from("no tracker is connected");
    while let Some(answered) = asked.join_next().await {
        match answered {
            Ok((Ok(introduction), tracker)) => return Ok(begin(inner, introduction, tracker)),
            Ok((Err(error), _)) => cause = error,
            Err(error) => cause = error.to_string(),
        }
    }
    Err(cause)
}

/// A tracker tells us of somebody who wants to reach us.
pub(crate) fn be_introduced(inner: &Arc<Inner>, introduction: Introduction, tracker: SocketAddr) {
    let peer = introduction.peer;
    if peer == inner.endpoint.id() || inner.peers.is_shunned(&peer) {
        return;
    }
    debug!(%peer, "introduced");
    begin(inner, introduction, tracker);
}

fn begin(inner: &Arc<Inner>, introduction: Introduction, tracker: SocketAddr) -> Met {
    let Introduction {
        peer,
        candidates,
        id,
        key,
        relay,
        ..
    } = introduction;
    let addresses = resolve_candidates(candidates.iter(), tracker);
    let probed = addresses.len();
    let relay = match relay {
        None => Err("the tracker does not relay"),
        Some(ticket) => inner
            .meeting
            .open_channel(peer, tracker, &ticket)
            .ok_or("too many channels"),
    };
    let answered = inner.meeting.introduced(Introduced {
        peer,
        id,
        key,
        addresses,
    });
    Met {
        answered,
        relay,
        probed,
    }
}

/// Where we listen in private networks, for those whom the tracker sees in the same one.
pub(crate) fn local_candidates(endpoint: &Endpoint) -> Vec<Candidate> {
    let Ok(listen) = endpoint.local_addr() else {
        return Vec::new();
    };
    if listen.port() < CANDIDATE_PORT_MIN {
        return Vec::new();
    }
    let bound = listen.ip();
    let of_interfaces = match bound.is_unspecified() {
        true => if_addrs::get_if_addrs().unwrap_or_default(),
        false => Vec::new(),
    };
    let all = of_interfaces
        .iter()
        .map(|interface| interface.ip())
        .filter(|ip| bound.is_ipv6() || ip.is_ipv4())
        .chain((!bound.is_unspecified()).then_some(bound));
    all.filter(|ip| is_private(*ip) && !ip.is_loopback() && !is_link_local(*ip))
        .take(CANDIDATES_MAX - 1)
        .map(|ip| Candidate {
            kind: CandidateKind::Local,
            address: Address::Socket(SocketAddr::new(ip, listen.port())),
        })
        .collect()
}

/// Addresses that mean nothing without the interface that they belong to.
fn is_link_local(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_link_local(),
        std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
