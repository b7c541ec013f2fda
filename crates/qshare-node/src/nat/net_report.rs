//! What lies between this machine and the internet, as a tracker sees it: addresses, what becomes
//! of ports, what is let in, and whether the router maps ports when it is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use qshare_content::{NodeId, TrackerAddress};
use qshare_net::{
    DialError, DialTarget, Endpoint, EndpointConfig, Greeting, GroupSecret, Identity,
    IdentityError, KnockError, KnockTarget, KnownTrackers, Session, TransportConfig, Traversal,
    TrustError, dial, knock, map_port, resolve,
};
use qshare_wire::hello::Role;
use qshare_wire::{ALPN_PEER, CloseCode, is_private};
use quinn::Connection;
use tokio::time::timeout;

use crate::error::{FindError, StartError};
use crate::nat::port_mapping::MappedPort;

/// Time for the tracker to be reached by each family.
const DIAL_DEADLINE: Duration = Duration::from_secs(4);
/// Time for saying goodbye.
const GOODBYE: Duration = Duration::from_millis(50);
/// Time for the router to take back what it was asked for.
const GIVE_BACK: Duration = Duration::from_millis(1500);

/// What [`net_report`] wants to know.
#[derive(Debug)]
pub struct NetReportConfig {
    /// Who is asked.
    pub tracker: TrackerAddress,
    /// The group that it must belong to.
    pub group: Option<GroupSecret>,
    /// Where tracker keys are remembered.
    pub known_trackers: Option<KnownTrackers>,
    /// Whether the router is asked for a port, which is given back at once.
    pub port_mapping: bool,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum NetReportError {
    /// This machine gave no socket.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no identity to show.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The tracker does not answer, or refuses.
    #[error(transparent)]
    Tracker(#[from] FindError),
}

/// What a tracker sees of this machine.
#[derive(Debug, Clone)]
pub struct NetReport {
    /// Who told it.
    pub tracker: NodeId,
    /// Over IPv4, or why not.
    pub ipv4: Result<Seen, String>,
    /// Over IPv6, or why not.
    pub ipv6: Result<Seen, String>,
    /// What the router does when it is asked.
    pub port_mapping: PortMappingFound,
}

/// How one family looks from the tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Our own address, on the way to the tracker.
    pub local: IpAddr,
    /// Where the tracker sees us.
    pub observed: SocketAddr,
    /// What becomes of the port.
    pub mapping: AddressMapping,
    /// What is let in.
    pub filtering: Filtering,
    /// Why something of that is not known.
    pub trouble: Option<String>,
}

/// What becomes of addresses and ports on the way out (RFC 4787 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressMapping {
    /// Nothing: the tracker sees our own address.
    None,
    /// Whoever is sent to sees the same. Told from two ports of one machine: a router that looks
    /// at the address alone would look like this, too.
    Same,
    /// Each destination sees another.
    PerDestination,
    /// What was sent to the tracker's second port did not arrive.
    Unknown,
}

/// What is let in from a port that was never sent to (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// All.
    Open,
    /// Nothing; what answers is.
    Answers,
    /// Not even an answer came from the tracker's second port.
    Unknown,
}

/// What is between us and the internet, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing.
    Open,
    /// Our own address, but strangers are not let in.
    Firewall,
    /// One outside address for all, and all are let in.
    FullCone,
    /// One outside address for all; who was sent to is let in.
    Cone,
    /// Another outside address for each destination.
    Symmetric,
    /// It cannot be told.
    Unknown,
}

impl NatKind {
    /// For scripts.
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
    /// All of it in one word.
    pub fn kind(&self) -> NatKind {
        match (self.mapping, self.filtering) {
            // What is on this machine sees nothing of the way to others.
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

/// What the router did when it was asked for a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMappingFound {
    /// It was not asked.
    NotAsked(&'static str),
    /// There is none, or it does not agree.
    None {
        /// What each protocol came to.
        cause: String,
    },
    /// It said yes.
    Mapped {
        /// What it said.
        mapping: MappedPort,
        /// Its outside address, as it says.
        external_ip: Option<Ipv4Addr>,
        /// Whether a knock came through.
        is_proven: bool,
    },
}

enum Failed {
    Away(String),
    Refused(String),
}

/// Looks around. Takes some seconds.
///
/// # Errors
///
/// When the tracker is reached over neither family, or is not who it should be.
pub async fn net_report(config: &NetReportConfig) -> Result<NetReport, NetReportError> {
    let tracker = || config.tracker.clone();
    let unreachable = |cause| FindError::Unreachable(vec![(tracker(), cause)]);
    let resolved = timeout(DIAL_DEADLINE, resolve(&config.tracker)).await;
    let addresses = resolved
        .map_err(|_| unreachable("its name cannot be resolved in time".into()))?
        .map_err(|error| unreachable(error.to_string()))?;
    let (v4, v6): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses
        .into_iter()
        .map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()))
        .partition(SocketAddr::is_ipv4);
    let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let (over_v4, over_v6) = tokio::join!(
        Station::reach(config, any_v4, &v4),
        Station::reach(config, any_v6, &v6)
    );
    let (over_v4, over_v6) = (over_v4?, over_v6?);
    let look = async |station: &Result<Station, Failed>| match station {
        Ok(station) => Ok(station.look().await),
        Err(Failed::Away(cause) | Failed::Refused(cause)) => Err(cause.clone()),
    };
    let (ipv4, ipv6) = tokio::join!(look(&over_v4), look(&over_v6));
    // Afterwards, since it changes what is let in.
    let port_mapping = match (&over_v4, &ipv4) {
        (Ok(station), Ok(seen)) => station.ask_for_port(config, seen).await,
        _ => PortMappingFound::NotAsked("the tracker was not reached over IPv4"),
    };
    let mut found = None;
    let mut causes = Vec::new();
    let mut refused = None;
    for station in [over_v4, over_v6] {
        match station {
            Ok(station) => found = Some(station.leave().await),
            Err(Failed::Refused(cause)) => refused = Some(cause),
            Err(Failed::Away(cause)) => causes.push(cause),
        }
    }
    match (found, refused) {
        (_, Some(cause)) => Err(FindError::Refused(vec![(tracker(), cause)]).into()),
        (None, None) => Err(unreachable(causes.join("; ")).into()),
        (Some(tracker), None) => Ok(NetReport {
            tracker,
            ipv4,
            ipv6,
            port_mapping,
        }),
    }
}

/// A socket of one family, and the session with the tracker on it.
struct Station {
    endpoint: Endpoint,
    traversal: Traversal,
    session: Session,
}

impl Station {
    async fn reach(
        config: &NetReportConfig,
        listen: IpAddr,
        addresses: &[SocketAddr],
    ) -> Result<Result<Station, Failed>, NetReportError> {
        let family = if listen.is_ipv4() { "IPv4" } else { "IPv6" };
        if addresses.is_empty() {
            let why = match config.tracker.host.parse::<IpAddr>() {
                Ok(named) => format!("the tracker is named by an address, {named}"),
                Err(_) => format!("the tracker has no {family} address"),
            };
            return Ok(Err(Failed::Away(why)));
        }
        // Of its own, since a tracker keeps one session for each node.
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
            // A machine may be without one of the two.
            Err(error) => return Ok(Err(Failed::Away(error.to_string()))),
        };
        let traversal = Traversal::install(&endpoint);
        let greeting = Greeting {
            role: Role::OneShot,
            features: 0,
            group: config.group.clone(),
            candidates: Vec::new(),
        };
        let mut failed = Failed::Away(format!("no {family}"));
        for &address in addresses {
            let target = DialTarget::Tracker(config.tracker.id);
            match dial(&endpoint, &greeting, target, address, DIAL_DEADLINE).await {
                Ok(session) => {
                    return Ok(match check_trust(config, &session).await {
                        Ok(()) => Ok(Station {
                            endpoint,
                            traversal,
                            session,
                        }),
                        Err(failed) => Err(failed),
                    });
                }
                Err(
                    error @ (DialError::GroupRefused(_)
                    | DialError::Version(_)
                    | DialError::WrongIdentity { .. }),
                ) => failed = Failed::Refused(error.to_string()),
                Err(error) => failed = Failed::Away(error.to_string()),
            }
        }
        Ok(Err(failed))
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

    /// What is let in must be asked before anything was sent to the second port.
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
            // Silence means something only where an answer would have come in.
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
                "nothing passes between here and the tracker's second port, UDP {second_port}; its \
                 firewall may have to let that in"
            ));
        }
        Ok(())
    }

    async fn knock(&self, at: KnockTarget) -> Result<qshare_net::Knocked, KnockError> {
        knock(&self.traversal, self.connection(), at).await
    }

    async fn ask_for_port(&self, config: &NetReportConfig, seen: &Seen) -> PortMappingFound {
        if !config.port_mapping {
            return PortMappingFound::NotAsked("--no-port-mapping");
        }
        if seen.mapping == AddressMapping::None || is_private(seen.observed.ip()) {
            return PortMappingFound::NotAsked("the tracker sees no router in between");
        }
        let Ok(local) = self.endpoint.local_addr() else {
            return PortMappingFound::NotAsked("there is no socket");
        };
        let mapping = match map_port(local.port()).await {
            Ok(mapping) => mapping,
            Err(error) => {
                return PortMappingFound::None {
                    cause: error.to_string(),
                };
            }
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

async fn check_trust(config: &NetReportConfig, session: &Session) -> Result<(), Failed> {
    let Some(known) = config.known_trackers.clone() else {
        return Ok(());
    };
    let (tracker, peer) = (config.tracker.clone(), session.peer);
    let seen_at = session.connection.remote_address();
    // Reads and writes a file under a lock.
    match tokio::task::spawn_blocking(move || known.check(&tracker, seen_at, peer)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(TrustError::Io { path, cause })) => {
            Err(Failed::Away(format!("{}: {cause}", path.display())))
        }
        Ok(Err(error)) => Err(Failed::Refused(error.to_string())),
        Err(error) => Err(Failed::Away(error.to_string())),
    }
}

/// Our own address on the way to somebody. Nothing is sent.
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
    fn what_is_not_known_is_not_guessed() {
        use AddressMapping as Mapping;
        let kind = |mapping, filtering| seen(mapping, filtering).kind();
        assert_eq!(kind(Mapping::Same, Filtering::Answers), NatKind::Cone);
        assert_eq!(kind(Mapping::Same, Filtering::Unknown), NatKind::Unknown);
        assert_eq!(kind(Mapping::Unknown, Filtering::Open), NatKind::Unknown);
        // Whatever it lets in, others do not know where to send.
        let symmetric = kind(Mapping::PerDestination, Filtering::Unknown);
        assert_eq!(symmetric, NatKind::Symmetric);
        let mut here = seen(Mapping::None, Filtering::Open);
        here.observed = ([127, 0, 0, 1], 5000).into();
        assert_eq!(here.kind(), NatKind::Unknown);
    }
}
