//! A report about the network between this machine and the Internet, as a tracker sees it: NAT,
//! firewall, and whether the router maps ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use qshare_content::{NodeId, TrackerAddress};
use qshare_net::{
    Endpoint, EndpointConfig, Greeting, GroupSecret, Identity, IdentityError, KnockError,
    KnockTarget, KnownTrackers, MappingError, Session, TransportConfig, Traversal, knock, map_port,
};
use qshare_wire::hello::Role;
use qshare_wire::{ALPN_PEER, CloseCode, is_private};
use quinn::Connection;
use tokio::time::timeout;

use crate::error::{FindError, StartError, TrackerFault};
use crate::trackers::{dial_tracker, resolve_tracker};
use crate::vocabulary::MappedPort;

/// Deadline for saying goodbye.
const GOODBYE: Duration = Duration::from_millis(50);
/// Deadline for the router to remove the port mapping.
const GIVE_BACK: Duration = Duration::from_millis(1500);

/// The configuration of [`net_report`].
#[derive(Debug)]
pub struct NetReportConfig {
    /// The tracker to ask.
    pub tracker: TrackerAddress,
    /// The group that it must belong to.
    pub group: Option<GroupSecret>,
    /// Storage of remembered tracker keys.
    pub known_trackers: Option<KnownTrackers>,
    /// Whether the router is asked for a port mapping, which is removed at once.
    pub port_mapping: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum NetReportError {
    /// No socket can be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No identity can be created.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The tracker does not answer, or refuses.
    #[error(transparent)]
    Tracker(#[from] FindError),
}

/// The diagnosis of this machine's network.
#[derive(Debug, Clone)]
pub struct NetReport {
    /// The tracker's id.
    pub tracker: NodeId,
    /// Over IPv4, or why the tracker was not reached.
    pub ipv4: Result<Seen, TrackerFault>,
    /// Over IPv6, or why the tracker was not reached.
    pub ipv6: Result<Seen, TrackerFault>,
    /// Whether the router maps ports.
    pub port_mapping: PortMappingFound,
}

/// The observations of a tracker over one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// This machine's own address on the path to the tracker.
    pub local: IpAddr,
    /// Where the tracker sees this machine.
    pub observed: SocketAddr,
    /// How addresses and ports are mapped.
    pub mapping: AddressMapping,
    /// Which packets are let in.
    pub filtering: Filtering,
    /// Why some of this is unknown.
    pub trouble: Option<String>,
}

/// How a NAT maps addresses and ports of outgoing packets (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressMapping {
    /// Not at all: the tracker sees this machine's own address.
    None,
    /// Every destination sees the same port. This is judged by two ports of one machine, so a NAT
    /// that maps by destination address alone looks the same.
    Same,
    /// Each destination sees another port.
    PerDestination,
    /// Packets to the tracker's second port did not arrive.
    Unknown,
}

/// Which packets are let in (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// All packets.
    Open,
    /// Only answers to packets that were sent before.
    Answers,
    /// Not even an answer came from the tracker's second port.
    Unknown,
}

/// The kind of NAT or firewall, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Neither NAT nor firewall.
    Open,
    /// No NAT, but a firewall that lets in answers only.
    Firewall,
    /// Full-cone NAT: one external address for all destinations, and all packets are let in.
    FullCone,
    /// Restricted-cone NAT: one external address for all destinations; answers are let in.
    Cone,
    /// Symmetric NAT: another external address for each destination.
    Symmetric,
    /// Unknown.
    Unknown,
}

impl NatKind {
    /// Returns the kind in one word, for scripts.
    pub fn name(self) -> &'static str {
        match self {
            NatKind::Open => "open",
            NatKind::Firewall => "firewall",
            NatKind::FullCone => "full-cone",
            NatKind::Cone => "cone",
            NatKind::Symmetric => "symmetric",
            NatKind::Unknown => "unknown",
        }
    }
}

impl Seen {
    /// Returns the kind of NAT or firewall.
    pub fn kind(&self) -> NatKind {
        match (self.mapping, self.filtering) {
            // A tracker on this machine sees nothing of the path to others.
            _ if self.observed.ip().is_loopback() => NatKind::Unknown,
            (AddressMapping::PerDestination, _) => NatKind::Symmetric,
            (AddressMapping::None, Filtering::Open) => NatKind::Open,
            (AddressMapping::None, Filtering::Answers) => NatKind::Firewall,
            (AddressMapping::Same, Filtering::Open) => NatKind::FullCone,
            (AddressMapping::Same, Filtering::Answers) => NatKind::Cone,
            (AddressMapping::Unknown, _) | (_, Filtering::Unknown) => NatKind::Unknown,
        }
    }
}

/// Whether the router maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMappingFound {
    /// The router was not asked.
    NotAsked(NotAsked),
    /// No router granted a port.
    None {
        /// The result of each protocol.
        cause: MappingError,
    },
    /// The router granted a port.
    Mapped {
        /// The granted mapping.
        mapping: MappedPort,
        /// The external address that the router claims.
        external_ip: Option<Ipv4Addr>,
        /// Whether a knock arrived.
        is_proven: bool,
    },
}

/// Why the router was not asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked {
    /// The configuration says so.
    TurnedOff,
    /// The tracker sees no NAT.
    NoNat,
    /// There is no socket to map a port to.
    NoSocket,
    /// The tracker was not reached over IPv4.
    NoIpv4,
}

/// Makes a report. Takes some seconds.
///
/// # Errors
///
/// When the tracker is reached over neither address family, or is not the expected one.
pub async fn net_report(config: &NetReportConfig) -> Result<NetReport, NetReportError> {
    let tracker = || config.tracker.clone();
    let unreachable = |fault| FindError::Unreachable(vec![(tracker(), fault)]);
    let addresses = resolve_tracker(&config.tracker)
        .await
        .map_err(unreachable)?;
    let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .into_iter()
        .map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()))
        .partition(SocketAddr::is_ipv4);
    let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let (over_v4, over_v6) = tokio::join!(
        Station::reach(config, any_v4, v4),
        Station::reach(config, any_v6, v6)
    );
    let (over_v4, over_v6) = (over_v4?, over_v6?);
    let look = async |station: &Result<Station, TrackerFault>| match station {
        Ok(station) => Ok(station.look().await),
        Err(fault) => Err(fault.clone()),
    };
    let (ipv4, ipv6) = tokio::join!(look(&over_v4), look(&over_v6));
    // Done last, because a mapping changes which packets the router lets in.
    let port_mapping = match (&over_v4, &ipv4) {
        (Ok(station), Ok(seen)) => station.ask_for_port(config, seen).await,
        _ => PortMappingFound::NotAsked(NotAsked::NoIpv4),
    };
    let mut found = None;
    let mut faults = Vec::new();
    for station in [over_v4, over_v6] {
        match station {
            Ok(station) => found = Some(station.leave().await),
            Err(fault) => faults.push((tracker(), fault)),
        }
    }
    let refusals: Vec<_> = faults
        .iter()
        .filter(|(_, fault)| fault.is_refusal())
        .cloned()
        .collect();
    match found {
        _ if !refusals.is_empty() => Err(FindError::Refused(refusals).into()),
        None => Err(FindError::Unreachable(faults).into()),
        Some(tracker) => Ok(NetReport {
            tracker,
            ipv4,
            ipv6,
            port_mapping,
        }),
    }
}

/// A socket of one address family, and a session with the tracker on it.
struct Station {
    endpoint: Endpoint,
    traversal: Traversal,
    session: Session,
}

impl Station {
    async fn reach(
        config: &NetReportConfig,
        listen: IpAddr,
        addresses: Vec<SocketAddr>,
    ) -> Result<Result<Station, TrackerFault>, NetReportError> {
        if addresses.is_empty() {
            let family = if listen.is_ipv4() { "IPv4" } else { "IPv6" };
            return Ok(Err(TrackerFault::NoAddress(family)));
        }
        // Each session has an identity of its own, because a tracker keeps one session a node.
        let identity = Identity::ephemeral()?;
        let bound = Endpoint::bind(
            &identity,
            &EndpointConfig {
                listen: SocketAddr::new(listen, 0),
                accept_alpn: ALPN_PEER,
                transport: TransportConfig::default(),
            },
        );
        let endpoint = match bound {
            Ok(endpoint) => endpoint,
            // A machine may lack one of the two families.
            Err(error) => return Ok(Err(TrackerFault::NoSocket(Arc::new(error)))),
        };
        let traversal = Traversal::install(&endpoint);
        let greeting = Greeting {
            group: config.group.clone(),
            ..Greeting::new(Role::OneShot)
        };
        let known = config.known_trackers.as_ref();
        let session = dial_tracker(&endpoint, &greeting, &config.tracker, addresses, known).await;
        Ok(session.map(|session| Station {
            endpoint,
            traversal,
            session,
        }))
    }

    fn connection(&self) -> &Connection {
        &self.session.connection
    }

    async fn look(&self) -> Seen {
        let mut seen = Seen {
            local: own_address(self.connection().remote_address())
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            observed: self
                .session
                .hello
                .observed
                .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
            mapping: AddressMapping::Unknown,
            filtering: Filtering::Unknown,
            trouble: None,
        };
        if let Err(error) = self.ask(&mut seen).await {
            seen.trouble = Some(error.to_string());
        }
        seen
    }

    /// Which packets are let in must be tested before anything is sent to the second port.
    async fn ask(&self, seen: &mut Seen) -> Result<(), KnockError> {
        let at = |port| KnockTarget::Port { port, offer: false };
        let stranger = self.knock(at(seen.observed.port())).await?;
        seen.observed = stranger.observed;
        let second_port = stranger.second_port;
        let ours = self.knock(KnockTarget::Nowhere { second_port }).await?;
        let port = self.endpoint.local_addr().map_or(0, |at| at.port());
        seen.mapping = match ours.came_from {
            _ if seen.observed == SocketAddr::new(seen.local, port) => AddressMapping::None,
            Some(from) if from == seen.observed => AddressMapping::Same,
            Some(_) => AddressMapping::PerDestination,
            None => AddressMapping::Unknown,
        };
        seen.filtering = match (stranger.was_heard, ours.came_from) {
            (true, _) => Filtering::Open,
            // Silence is significant only if an answer from the same address arrives.
            (false, Some(from)) if from.ip() == seen.observed.ip() => {
                match self.knock(at(from.port())).await?.was_heard {
                    true => Filtering::Answers,
                    false => Filtering::Unknown,
                }
            }
            (false, _) => Filtering::Unknown,
        };
        if seen.mapping == AddressMapping::Unknown || seen.filtering == Filtering::Unknown {
            seen.trouble = Some(format!(
                "no packet passes between this machine and the tracker's second port, UDP \
                 {second_port}; a firewall at the tracker may block it"
            ));
        }
        Ok(())
    }

    async fn knock(&self, at: KnockTarget) -> Result<qshare_net::Knocked, KnockError> {
        knock(&self.traversal, self.connection(), at).await
    }

    async fn ask_for_port(&self, config: &NetReportConfig, seen: &Seen) -> PortMappingFound {
        if !config.port_mapping {
            return PortMappingFound::NotAsked(NotAsked::TurnedOff);
        }
        if seen.mapping == AddressMapping::None || is_private(seen.observed.ip()) {
            return PortMappingFound::NotAsked(NotAsked::NoNat);
        }
        let Ok(local) = self.endpoint.local_addr() else {
            return PortMappingFound::NotAsked(NotAsked::NoSocket);
        };
        let mapping = match map_port(local.port()).await {
            Ok(mapping) => mapping,
            Err(cause) => return PortMappingFound::None { cause },
        };
        let mapped = MappedPort {
            protocol: mapping.protocol(),
            gateway: mapping.gateway(),
            port: mapping.external_port(),
        };
        let at = KnockTarget::Port {
            port: mapped.port,
            offer: false,
        };
        let knocked = self.knock(at).await;
        let wanted = SocketAddr::new(seen.observed.ip(), mapped.port);
        let external_ip = mapping.external_ip();
        let _ = timeout(GIVE_BACK, mapping.remove()).await;
        PortMappingFound::Mapped {
            mapping: mapped,
            external_ip,
            is_proven: knocked
                .is_ok_and(|knocked| knocked.was_heard && knocked.came_from == Some(wanted)),
        }
    }

    async fn leave(self) -> NodeId {
        self.endpoint.close(CloseCode::Goodbye, GOODBYE).await;
        self.session.peer
    }
}

/// Returns this machine's own address on the path to another. Nothing is sent.
fn own_address(towards: SocketAddr) -> Option<IpAddr> {
    let towards = SocketAddr::new(towards.ip().to_canonical(), towards.port());
    let any: IpAddr = match towards.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    socket.connect(towards).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mapping: AddressMapping, filtering: Filtering) -> Seen {
        Seen {
            local: [10, 0, 0, 2].into(),
            observed: ([192, 0, 2, 1], 40000).into(),
            mapping,
            filtering,
            trouble: None,
        }
    }

    #[test]
    fn unknown_mappings_and_filters_are_not_guessed() {
        use AddressMapping as Mapping;
        let kind = |mapping, filtering| seen(mapping, filtering).kind();
        assert_eq!(kind(Mapping::Same, Filtering::Answers), NatKind::Cone);
        assert_eq!(kind(Mapping::Same, Filtering::Unknown), NatKind::Unknown);
        assert_eq!(kind(Mapping::Unknown, Filtering::Open), NatKind::Unknown);
        // Whichever packets the NAT lets in, other nodes do not know its external port.
        let symmetric = kind(Mapping::PerDestination, Filtering::Unknown);
        assert_eq!(symmetric, NatKind::Symmetric);
        let mut here = seen(Mapping::None, Filtering::Open);
        here.observed = ([127, 0, 0, 1], 5000).into();
        assert_eq!(here.kind(), NatKind::Unknown);
    }
}
