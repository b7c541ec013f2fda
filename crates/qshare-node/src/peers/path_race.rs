//! Finding a way to a node: straight to where it was seen, by probes from both sides after an
//! introduction, through a relay in the end. All of them are tried at once; the first that is
//! there is taken, but the relay only once the others had some time.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::punch::Introduced;
use qshare_net::{DialTarget, Endpoint, Session, connect, dial, greet, is_virtual};
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::limits::{BIRTHDAY_PORTS, CANDIDATE_PORT_MIN, CANDIDATES_MAX};
use qshare_wire::{Address, Candidate, CandidateKind, is_private};
use quinn::Connection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info};

use crate::node::Inner;
use crate::peers::{Peer, adopt};
use crate::trackers::session::{SessionState, resolve_candidates};
use crate::vocabulary::PathKind;

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
pub(crate) enum PathsWanted {
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
    hard: bool,
}

/// Finds a way to a node and exchanges Hellos on it. The error says for people what was tried.
pub(crate) async fn find_path(
    inner: &Arc<Inner>,
    node: NodeId,
    addresses: &[SocketAddr],
    ways: PathsWanted,
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
                            Ok(_) if ways == PathsWanted::All => {
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
                let hard = met.as_ref().is_some_and(|met| met.hard);
                let ports = if hard { format!(" and of {BIRTHDAY_PORTS} ports") } else { String::new() };
                race.causes.push(format!("no answer to probes of {probed} addresses{ports}"));
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
                        if let (Some(until), Some(met)) = (punch_until, met) {
                            inner.tasks.spawn(leave_once_answered(inner.clone(), node, met, until));
                        }
                        return Ok(session);
                    }
                }
            }
        }
    }
}

/// The relay is in use, but the probes are still on their way: leaves it when one is answered.
async fn leave_once_answered(inner: Arc<Inner>, node: NodeId, met: Met, until: Instant) {
    let mut met = Some(met);
    let answered = tokio::select! {
        () = inner.stopping.cancelled() => return,
        answered = next_answer(&mut met) => answered,
        () = sleep_until(until) => return,
    };
    let Some(address) = answered else { return };
    let is_relayed = |peer: Arc<Peer>| peer.path() == PathKind::Relay;
    if !inner.peers.connected(&node).is_some_and(is_relayed) {
        return;
    }
    let target = DialTarget::Node(node);
    let dialled = dial(
        &inner.endpoint,
        &inner.greeting,
        target,
        address,
        DIAL_DEADLINE,
    )
    .await;
    match dialled {
        Ok(session) => {
            if adopt(&inner, session, true).is_some() {
                info!(peer = %node, "left the relay, a probe was answered");
            }
        }
        Err(error) => debug!(peer = %node, %error, "the relay stays"),
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
        let (inner, target) = (self.inner.clone(), DialTarget::Node(self.node));
        self.dials.spawn(async move {
            let connected = connect(&inner.endpoint, target, address, DIAL_DEADLINE).await;
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
        let real = self.inner.endpoint.real_address(address);
        let cause = cause.replace(&address.to_string(), "it");
        let described = match is_virtual(address.ip()) {
            true => format!("relay: {cause}"),
            false => format!("{real}: {cause}"),
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
        let SessionState::Up(up) = link.state() else {
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
    let may_birthday_punch = introduction.may_birthday_punch();
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
    // A tracker that is not asked to does not say that both agree; ours is not taken for granted.
    let hard = match may_birthday_punch && inner.greeting.features & FEATURE_BIRTHDAY_PUNCH != 0 {
        true => seen_in_public(&candidates),
        false => None,
    };
    let relay = match relay {
        None => Err("the tracker does not relay"),
        Some(ticket) => inner
            .traversal
            .open_channel(peer, tracker, &ticket)
            .ok_or("too many channels"),
    };
    let answered = inner.traversal.introduced(Introduced {
        peer,
        id,
        key,
        addresses,
        birthday: hard,
    });
    Met {
        answered,
        relay,
        probed,
        hard: hard.is_some(),
    }
}

/// Where a tracker sees a node, if that is an address of the public IPv4 internet: the only one
/// that is sent many probes.
fn seen_in_public(candidates: &[Candidate]) -> Option<SocketAddr> {
    let seen = candidates
        .iter()
        .filter(|candidate| candidate.kind == CandidateKind::Observed && candidate.is_plausible());
    let public = |candidate: &Candidate| match candidate.address {
        Address::Socket(address) => match address.ip().to_canonical() {
            IpAddr::V4(ip) if is_unicast(ip) && !is_private(ip.into()) => {
                Some(SocketAddr::new(ip.into(), address.port()))
            }
            _ => None,
        },
        Address::TrackerHost { .. } => None,
    };
    seen.filter_map(public).next()
}

fn is_unicast(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first < 224
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
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, text: &str) -> Candidate {
        let address = Address::Socket(text.parse().unwrap());
        Candidate { kind, address }
    }

    #[test]
    fn many_probes_go_to_nothing_but_a_public_address_that_was_observed() {
        use CandidateKind::{Local, Mapped, Observed};
        let public = candidate(Observed, "198.51.100.1:5000");
        let at = |candidates: &[Candidate]| seen_in_public(candidates);
        assert_eq!(at(&[public]), Some("198.51.100.1:5000".parse().unwrap()));
        let mapped = candidate(Observed, "[::ffff:198.51.100.1]:5000");
        assert_eq!(at(&[mapped]), at(&[public]));
        for (kind, text) in [
            (Local, "198.51.100.1:5000"),
            (Mapped, "198.51.100.1:5000"),
            (Observed, "198.51.100.1:1023"),
            (Observed, "192.168.1.2:5000"),
            (Observed, "127.0.0.1:5000"),
            (Observed, "100.64.0.1:5000"),
            (Observed, "224.0.0.251:5353"),
            (Observed, "255.255.255.255:5000"),
            (Observed, "0.0.0.0:5000"),
            (Observed, "[2001:db8::1]:5000"),
        ] {
            assert_eq!(at(&[candidate(kind, text)]), None, "{text}");
        }
        let host = Candidate {
            kind: Observed,
            address: Address::TrackerHost { port: 5000 },
        };
        assert_eq!(at(&[host]), None);
    }
}
