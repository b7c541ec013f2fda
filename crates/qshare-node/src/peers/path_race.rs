//! Finds a path to a node: a direct dial, hole punching from both sides after an introduction, and
//! finally a relay. All are tried in parallel and the first to succeed wins, but the relay is used
//! only after a head start of the others.
//!
//! The race returns a session. The caller decides whether the session becomes the node's
//! connection.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qshare_content::NodeId;
use qshare_net::punch::Introduced;
use qshare_net::{
    DialTarget, Endpoint, Greeting, Session, Traversal, connect, dial, greet, is_virtual,
};
use qshare_wire::hello::FEATURE_BIRTHDAY_PUNCH;
use qshare_wire::introduction::{Introduce, Introduction};
use qshare_wire::limits::BIRTHDAY_PORTS;
use qshare_wire::{Address, Candidate, CandidateKind, is_private};
use quinn::Connection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::debug;

use crate::error::{AskError, PathFault, ReachError};
use crate::trackers::{IntroductionFrom, Trackers, local_candidates, resolve_candidates};

/// Deadline of one attempt to reach a node at one address.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// Head start of the direct dial: a node with a public address answers before this, and needs no
/// introduction.
const INTRODUCE_AFTER: Duration = Duration::from_millis(50);
/// The relayed path is dialled after the first of these times without a direct one, and used after
/// the second.
const RELAY_READY_AFTER: Duration = Duration::from_millis(400);
const RELAY_AFTER: Duration = Duration::from_millis(800);
/// How long an answer to a probe is awaited after an introduction.
const PUNCH_WAIT: Duration = Duration::from_secs(5);

/// The kinds of paths to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathsWanted {
    /// Any path.
    All,
    /// Only a direct path, because a relayed one exists already.
    Direct,
}

/// The result of a race.
pub(crate) struct Won {
    pub(crate) session: Session,
    /// The outstanding probes, if the path is relayed.
    pub(crate) late: Option<LateProbes>,
}

/// Probes that may still be answered after the relayed path won.
pub(crate) struct LateProbes {
    answered: mpsc::Receiver<SocketAddr>,
    until: Instant,
}

impl LateProbes {
    /// Waits until a probe is answered, and returns the address. Returns None after the deadline.
    pub(crate) async fn answered(mut self) -> Option<SocketAddr> {
        timeout_at(self.until, self.answered.recv()).await.ok()?
    }
}

/// The result of an introduction.
struct Meeting {
    answered: mpsc::Receiver<SocketAddr>,
    /// The node's virtual address, or the reason why it has none.
    relay: Result<SocketAddr, PathFault>,
    /// The number of addresses and of ports that are probed.
    addresses: usize,
    ports: usize,
}

/// The schedule of a race. Pure: the caller passes the time and the events.
#[derive(Debug)]
struct Timeline {
    begun: Instant,
    introduce_at: Instant,
    wanted: PathsWanted,
    is_introducing: bool,
    /// Deadline for answers to probes.
    punch_until: Option<Instant>,
    /// When to dial the relayed path.
    dial_relay_at: Option<Instant>,
    /// Whether the relayed path is established and held back until [`RELAY_AFTER`].
    is_relay_ready: bool,
}

impl Timeline {
    fn new(now: Instant, wanted: PathsWanted, has_addresses: bool) -> Timeline {
        let patience = match has_addresses {
            true => INTRODUCE_AFTER,
            false => Duration::ZERO,
        };
        Timeline {
            begun: now,
            introduce_at: now + patience,
            wanted,
            is_introducing: true,
            punch_until: None,
            dial_relay_at: None,
            is_relay_ready: false,
        }
    }

    fn handle_introduced(&mut self, now: Instant, has_relay: bool) {
        self.is_introducing = false;
        self.punch_until = Some(now + PUNCH_WAIT);
        if has_relay && self.wanted == PathsWanted::All {
            self.dial_relay_at = Some(self.begun + RELAY_READY_AFTER);
        }
    }

    fn handle_not_introduced(&mut self) {
        self.is_introducing = false;
    }

    /// Handles the answer to a probe, or the deadline for answers.
    fn handle_probing_over(&mut self) {
        self.punch_until = None;
    }

    fn handle_relay_dialled(&mut self) {
        self.dial_relay_at = None;
    }

    fn handle_relay_ready(&mut self) {
        self.is_relay_ready = true;
    }

    /// Returns when the relayed path may be used.
    fn use_relay_at(&self) -> Option<Instant> {
        self.is_relay_ready.then(|| self.begun + RELAY_AFTER)
    }

    fn handle_relay_used(&mut self) {
        self.is_relay_ready = false;
    }

    /// Whether nothing is left to wait for, given the number of running dials.
    fn is_over(&self, dials: usize) -> bool {
        dials == 0
            && !self.is_introducing
            && self.punch_until.is_none()
            && self.dial_relay_at.is_none()
            && !self.is_relay_ready
    }
}

/// Finds paths to nodes.
pub(crate) struct PathRace {
    endpoint: Endpoint,
    greeting: Greeting,
    traversal: Traversal,
    trackers: Arc<Trackers>,
}

impl PathRace {
    pub(crate) fn new(
        endpoint: Endpoint,
        greeting: Greeting,
        traversal: Traversal,
        trackers: Arc<Trackers>,
    ) -> PathRace {
        PathRace {
            endpoint,
            greeting,
            traversal,
            trackers,
        }
    }

    /// Finds a path to a node and exchanges Hellos on it.
    ///
    /// # Errors
    ///
    /// [`ReachError::NoPath`] with the fault of each path that was tried.
    pub(crate) async fn run(
        &self,
        node: NodeId,
        addresses: &[SocketAddr],
        wanted: PathsWanted,
    ) -> Result<Won, ReachError> {
        let mut dials = Dials::new(self, node);
        for &address in addresses.iter().filter(|address| !is_virtual(address.ip())) {
            dials.dial(address);
        }
        let mut timeline = Timeline::new(Instant::now(), wanted, !addresses.is_empty());
        let introduce_at = timeline.introduce_at;
        let mut introducing = std::pin::pin!(async {
            sleep_until(introduce_at).await;
            self.introduce(node).await
        });
        let mut meeting: Option<Meeting> = None;
        let mut relayed: Option<Connection> = None;
        loop {
            if timeline.is_over(dials.running.len()) {
                return Err(ReachError::NoPath(dials.faults));
            }
            tokio::select! {
                biased;
                Some(ended) = dials.running.join_next() => {
                    let Ok((address, result)) = ended else { continue };
                    match result {
                        Ok(connection) if is_virtual(address.ip()) => {
                            relayed = Some(connection);
                            timeline.handle_relay_ready();
                        }
                        Ok(connection) => {
                            if let Some(session) = dials.greet(address, connection).await {
                                return Ok(Won { session, late: None });
                            }
                        }
                        Err(fault) => dials.note(fault),
                    }
                }
                introduced = &mut introducing, if timeline.is_introducing => match introduced {
                    Ok(introduced) => {
                        let has_relay = introduced.relay.is_ok();
                        timeline.handle_introduced(Instant::now(), has_relay);
                        if let Err(fault) = &introduced.relay {
                            dials.note(fault.clone());
                        }
                        meeting = Some(introduced);
                    }
                    Err(cause) => {
                        timeline.handle_not_introduced();
                        dials.note(PathFault::Introduction(cause));
                    }
                },
                address = answered(&mut meeting), if timeline.punch_until.is_some() => {
                    timeline.handle_probing_over();
                    debug!(peer = %node, %address, "answers probes");
                    // Send even if the address is being dialled: the packets of that dial may have
                    // met a closed NAT, and QUIC retransmits them only after a while.
                    dials.dial_again(address);
                }
                () = at(timeline.punch_until) => {
                    timeline.handle_probing_over();
                    if let Some(Meeting { addresses, ports, .. }) = meeting {
                        dials.note(PathFault::ProbesUnanswered { addresses, ports });
                    }
                }
                () = at(timeline.dial_relay_at) => {
                    timeline.handle_relay_dialled();
                    if let Some(Meeting { relay: Ok(address), .. }) = meeting {
                        dials.dial(address);
                    }
                }
                () = at(timeline.use_relay_at()) => {
                    timeline.handle_relay_used();
                    let Some(connection) = relayed.take() else { continue };
                    let address = connection.remote_address();
                    if let Some(session) = dials.greet(address, connection).await {
                        let late = timeline.punch_until.zip(meeting);
                        let late = late.map(|(until, meeting)| LateProbes {
                            answered: meeting.answered,
                            until,
                        });
                        return Ok(Won { session, late });
                    }
                }
            }
        }
    }

    /// Dials an address at which a node answered a probe.
    pub(crate) async fn dial_answered(&self, node: NodeId, address: SocketAddr) -> Option<Session> {
        let target = DialTarget::Node(node);
        let dialled = dial(
            &self.endpoint,
            &self.greeting,
            target,
            address,
            DIAL_DEADLINE,
        );
        dialled
            .await
            .inspect_err(|error| debug!(peer = %node, %error, "found no direct path"))
            .ok()
    }

    /// Makes all trackers introduce this node, and starts to probe at the first introduction.
    async fn introduce(&self, node: NodeId) -> Result<Meeting, AskError> {
        let mut asked = JoinSet::new();
        for up in self.trackers.established() {
            let request = Introduce {
                node,
                candidates: local_candidates(&self.endpoint),
                extensions: Vec::new(),
            };
            asked.spawn(async move { (up.introduce(&request).await, up.address) });
        }
        let mut fault = AskError::NoTracker;
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((Ok(introduction), tracker)) => return Ok(self.meet(introduction, tracker)),
                Ok((Err(error), _)) => fault = error,
                Err(_) => {}
            }
        }
        Err(fault)
    }

    /// Handles an introduction that the other node requested.
    pub(crate) fn handle_introduction(&self, introduced: IntroductionFrom) {
        debug!(peer = %introduced.introduction.peer, "introduced");
        self.meet(introduced.introduction, introduced.tracker);
    }

    /// Opens the relay's channel and starts to probe.
    fn meet(&self, introduction: Introduction, tracker: SocketAddr) -> Meeting {
        let may_birthday_punch = introduction.may_birthday_punch();
        // Between nodes of two trackers, the relay is the asking node's tracker.
        let relay_at = introduction.relay_address().map(|address| Candidate {
            kind: CandidateKind::Observed,
            address,
        });
        let relay_at = resolve_candidates(relay_at.iter(), tracker);
        let relay_at = relay_at.first().copied().unwrap_or(tracker);
        let Introduction {
            peer,
            candidates,
            id,
            key,
            relay,
            ..
        } = introduction;
        let addresses = resolve_candidates(candidates.iter(), tracker);
        // The tracker sets the flag only if both nodes agree. This node checks its own consent
        // itself, instead of trusting the tracker.
        let agrees = self.greeting.features & FEATURE_BIRTHDAY_PUNCH != 0;
        let birthday = match may_birthday_punch && agrees {
            true => seen_in_public(&candidates),
            false => None,
        };
        let relay = match relay {
            None => Err(PathFault::NoRelay),
            Some(ticket) => self
                .traversal
                .open_channel(peer, relay_at, &ticket)
                .ok_or(PathFault::TooManyChannels),
        };
        let probed = addresses.len();
        let answered = self.traversal.introduced(Introduced {
            peer,
            id,
            key,
            addresses,
            birthday,
        });
        Meeting {
            answered,
            relay,
            addresses: probed,
            ports: birthday.map_or(0, |_| usize::from(BIRTHDAY_PORTS)),
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until a probe is answered. Stays pending if none is; the caller has a deadline.
async fn answered(meeting: &mut Option<Meeting>) -> SocketAddr {
    if let Some(meeting) = meeting
        && let Some(address) = meeting.answered.recv().await
    {
        return address;
    }
    std::future::pending().await
}

/// The handshakes of one race.
struct Dials<'a> {
    race: &'a PathRace,
    node: NodeId,
    running: JoinSet<(SocketAddr, Result<Connection, PathFault>)>,
    dialled: HashSet<SocketAddr>,
    faults: Vec<PathFault>,
}

impl<'a> Dials<'a> {
    fn new(race: &'a PathRace, node: NodeId) -> Dials<'a> {
        Dials {
            race,
            node,
            running: JoinSet::new(),
            dialled: HashSet::new(),
            faults: Vec::new(),
        }
    }

    /// Dials an address, once in each race.
    fn dial(&mut self, address: SocketAddr) {
        if self.dialled.insert(address) {
            self.dial_again(address);
        }
    }

    fn dial_again(&mut self, address: SocketAddr) {
        let (endpoint, target) = (self.race.endpoint.clone(), DialTarget::Node(self.node));
        let named = self.named(address);
        self.running.spawn(async move {
            let connected = connect(&endpoint, target, address, DIAL_DEADLINE).await;
            let fault = |cause| PathFault::Dial {
                address: named,
                cause: Arc::new(cause),
            };
            (address, connected.map_err(fault))
        });
    }

    /// Exchanges Hellos on a connection. None if that fails.
    async fn greet(&mut self, address: SocketAddr, connection: Connection) -> Option<Session> {
        let greeted = greet(&self.race.endpoint, &self.race.greeting, connection);
        let fault = match timeout(DIAL_DEADLINE, greeted).await {
            Ok(Ok(session)) => return Some(session),
            Ok(Err(cause)) => PathFault::Dial {
                address: self.named(address),
                cause: Arc::new(cause),
            },
            Err(_) => PathFault::NoHello {
                address: self.named(address),
            },
        };
        self.note(fault);
        None
    }

    /// Returns the address for reports; None for the relayed path.
    fn named(&self, address: SocketAddr) -> Option<SocketAddr> {
        (!is_virtual(address.ip())).then(|| self.race.endpoint.real_address(address))
    }

    fn note(&mut self, fault: PathFault) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

/// Returns the public IPv4 address at which a tracker sees a node. The many probes of birthday
/// punching are sent only to such an address.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

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

    #[test]
    fn a_node_with_addresses_is_dialled_before_an_introduction() {
        let now = Instant::now();
        let with = Timeline::new(now, PathsWanted::All, true);
        let without = Timeline::new(now, PathsWanted::All, false);
        assert_eq!(with.introduce_at, now + INTRODUCE_AFTER);
        assert_eq!(without.introduce_at, now);
    }

    #[test]
    fn the_relay_is_dialled_late_and_used_later() {
        let now = Instant::now();
        let mut timeline = Timeline::new(now, PathsWanted::All, true);
        assert_eq!(timeline.dial_relay_at, None);
        timeline.handle_introduced(now + 60 * MS, true);
        assert_eq!(timeline.dial_relay_at, Some(now + RELAY_READY_AFTER));
        timeline.handle_relay_dialled();
        assert_eq!(timeline.use_relay_at(), None);
        timeline.handle_relay_ready();
        assert_eq!(timeline.use_relay_at(), Some(now + RELAY_AFTER));
    }

    #[test]
    fn a_race_for_a_direct_path_leaves_the_relay_alone() {
        let now = Instant::now();
        let mut timeline = Timeline::new(now, PathsWanted::Direct, false);
        timeline.handle_introduced(now, true);
        assert_eq!(timeline.dial_relay_at, None);
    }

    #[test]
    fn a_race_is_over_when_nothing_is_left_to_wait_for() {
        let now = Instant::now();
        let mut timeline = Timeline::new(now, PathsWanted::All, true);
        assert!(!timeline.is_over(0), "the introduction is still to come");
        timeline.handle_introduced(now, true);
        assert!(!timeline.is_over(0), "a probe may be answered");
        timeline.handle_probing_over();
        assert!(!timeline.is_over(0), "the relay is still to be dialled");
        timeline.handle_relay_dialled();
        assert!(!timeline.is_over(1) && timeline.is_over(0));
        timeline.handle_relay_ready();
        assert!(!timeline.is_over(0), "the relay is held back");
        timeline.handle_relay_used();
        assert!(timeline.is_over(0));
        let mut alone = Timeline::new(now, PathsWanted::All, true);
        alone.handle_not_introduced();
        assert!(alone.is_over(0));
    }
}
