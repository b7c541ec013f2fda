//! Port mapping: asks the router to forward a UDP port to this machine, over PCP (RFC 6887) and
//! NAT-PMP (RFC 6886), which one daemon on one port usually answers, and UPnP-IGD.
//!
//! A granted mapping is not verified: some routers grant a port and map nothing, others are
//! themselves behind a NAT. [`crate::knock()`] verifies it.
//!
//! IPv4 only: IPv6 addresses are not translated.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping as CrabMapping, PortMappingOptions,
    PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, GatewayIpVersion, PortMappingProtocol, SearchError, SearchOptions};
use qshare_wire::PeerText;
use qshare_wire::limits::CANDIDATE_PORT_MIN;
use rand::Rng;
use tokio::time::timeout;
use tracing::debug;

/// Requested lifetime of a mapping. The mapping is renewed at half of its lifetime. If the process
/// is killed, the mapping expires.
const LIFETIME: Duration = Duration::from_secs(1800);
/// Shortest pause between renewals, however short the granted lifetime.
const RENEW_MIN: Duration = Duration::from_secs(30);
/// Time-outs of PCP and NAT-PMP: 250, 500 and 1,000 ms. The router is one hop away.
const TIMES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_millis(1000)),
};
/// Deadline for discovering UPnP routers. They may wait up to 2 s before they answer.
const SEARCH: Duration = Duration::from_millis(2500);
/// Deadline for each other request to a UPnP router.
const UPNP_DEADLINE: Duration = Duration::from_secs(5);
/// External ports that are tried if another client holds the requested one.
const PORTS_TRIED: usize = 4;
/// Description of the mapping in the router's user interface (UPnP).
const DESCRIPTION: &str = "qshare";

/// A port mapping protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingProtocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// WANIPConnection or WANPPPConnection of UPnP.
    Upnp,
}

impl std::fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MappingProtocol::Pcp => "PCP",
            MappingProtocol::NatPmp => "NAT-PMP",
            MappingProtocol::Upnp => "UPnP",
        })
    }
}

/// Why no port is mapped: the failure of each protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct MappingError(pub Vec<MappingFailure>);

impl From<MappingFailure> for MappingError {
    fn from(failure: MappingFailure) -> MappingError {
        MappingError(vec![failure])
    }
}

/// Why a port is not mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingFailure {
    /// The local port is 0.
    #[error("no local port")]
    NoLocalPort,
    /// There is no default route.
    #[error("no default gateway")]
    NoGateway,
    /// This machine has no address towards the gateway.
    #[error("no route to the gateway {0}")]
    NoRoute(Ipv4Addr),
    /// The router did not answer this protocol.
    #[error("{0}: no answer")]
    NoAnswer(MappingProtocol),
    /// The router refused, or its answer could not be read.
    #[error("{0}: {1}")]
    Refused(MappingProtocol, PeerText),
    /// The router granted a port below 1024, which is never offered to peers.
    #[error("{0}: port {1} belongs to a well-known service")]
    WellKnownPort(MappingProtocol, u16),
}

impl MappingFailure {
    fn refused(protocol: MappingProtocol, error: &dyn std::fmt::Display) -> MappingFailure {
        MappingFailure::Refused(protocol, PeerText::new(&error.to_string()))
    }
}

/// A port that a router granted.
#[derive(Debug)]
pub struct PortMapping {
    local: SocketAddrV4,
    external_ip: Option<Ipv4Addr>,
    by: By,
}

#[derive(Debug, Clone)]
enum By {
    Crab(CrabMapping),
    Upnp {
        gateway: Box<Gateway<Tokio>>,
        port: u16,
        lifetime: Duration,
    },
}

impl PortMapping {
    /// Returns the protocol of the mapping.
    pub fn protocol(&self) -> MappingProtocol {
        match &self.by {
            By::Crab(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => MappingProtocol::NatPmp,
                PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
            },
            By::Upnp { .. } => MappingProtocol::Upnp,
        }
    }

    /// Returns the router's address on the local network.
    pub fn gateway(&self) -> IpAddr {
        match &self.by {
            By::Crab(mapping) => mapping.gateway().into(),
            By::Upnp { gateway, .. } => gateway.addr.ip(),
        }
    }

    /// Returns the router's external address, as it claims.
    pub fn external_ip(&self) -> Option<Ipv4Addr> {
        self.external_ip
    }

    /// Returns the external port.
    pub fn external_port(&self) -> u16 {
        match &self.by {
            By::Crab(mapping) => mapping.external_port().get(),
            By::Upnp { port, .. } => *port,
        }
    }

    /// Returns the time from creation or renewal after which to renew the mapping.
    pub fn renew_after(&self) -> Duration {
        let lifetime = match &self.by {
            By::Crab(mapping) => Duration::from_secs(mapping.lifetime().into()),
            By::Upnp { lifetime, .. } => *lifetime,
        };
        (lifetime.min(LIFETIME) / 2).max(RENEW_MIN)
    }

    /// Renews the mapping. The router may grant another port.
    ///
    /// # Errors
    ///
    /// When the router refuses or does not answer.
    pub async fn renew(&mut self) -> Result<(), MappingError> {
        let protocol = self.protocol();
        match &mut self.by {
            By::Crab(mapping) => mapping
                .renew()
                .await
                .map_err(|error| MappingFailure::refused(protocol, &error).into()),
            By::Upnp { gateway, port, .. } => {
                let (gateway, port) = (gateway.clone(), *port);
                self.by = add_upnp(gateway, self.local, port).await?;
                Ok(())
            }
        }
    }

    /// Deletes the mapping. If the router does not answer, the mapping expires by itself.
    pub async fn remove(self) {
        let protocol = self.protocol();
        let removed = match self.by {
            By::Crab(mapping) => mapping
                .try_drop()
                .await
                .map_err(|(error, _)| MappingFailure::refused(protocol, &error)),
            By::Upnp { gateway, port, .. } => {
                let remove = gateway.remove_port(PortMappingProtocol::UDP, port);
                match timeout(UPNP_DEADLINE, remove).await {
                    Ok(removed) => {
                        removed.map_err(|error| MappingFailure::refused(protocol, &error))
                    }
                    Err(_) => Err(MappingFailure::NoAnswer(protocol)),
                }
            }
        };
        if let Err(cause) = removed {
            debug!(%cause, "cannot delete the port mapping");
        }
    }
}

/// Asks the router to forward a UDP port to `local_port` of this machine, the same port if it is
/// free. Takes up to four seconds.
///
/// # Errors
///
/// The failure of each protocol.
pub async fn map_port(local_port: u16) -> Result<PortMapping, MappingError> {
    let port = NonZeroU16::new(local_port).ok_or(MappingFailure::NoLocalPort)?;
    let gateway = default_gateway().ok_or(MappingFailure::NoGateway)?;
    let local_ip = address_towards(gateway).ok_or(MappingFailure::NoRoute(gateway))?;
    let local = SocketAddrV4::new(local_ip, local_port);
    // Discovery changes nothing at the routers, so it runs beside the other protocols.
    let mut search = std::pin::pin!(search_upnp(local_ip));
    let mut ask = std::pin::pin!(ask_gateway(gateway, local_ip, port));
    let mut found = None;
    let refused = loop {
        tokio::select! {
            asked = &mut ask => match asked {
                Ok((mapping, external_ip)) => {
                    return checked(PortMapping { local, external_ip, by: By::Crab(mapping) }).await;
                }
                Err(causes) => break causes,
            },
            searched = &mut search, if found.is_none() => found = Some(searched),
        }
    };
    let found = match found {
        Some(found) => found,
        None => search.await,
    };
    let upnp = match found {
        Ok((gateway, external_ip)) => add_upnp(gateway, local, local_port)
            .await
            .map(|by| (by, external_ip)),
        Err(cause) => Err(cause),
    };
    match upnp {
        Ok((by, external_ip)) => {
            checked(PortMapping {
                local,
                external_ip,
                by,
            })
            .await
        }
        Err(cause) => {
            let mut causes = refused;
            causes.push(cause);
            Err(MappingError(causes))
        }
    }
}

/// Deletes a mapping whose port must not be offered to peers.
async fn checked(mapping: PortMapping) -> Result<PortMapping, MappingError> {
    let (protocol, port) = (mapping.protocol(), mapping.external_port());
    if port < CANDIDATE_PORT_MIN {
        mapping.remove().await;
        return Err(MappingFailure::WellKnownPort(protocol, port).into());
    }
    Ok(mapping)
}

/// Asks over PCP, then NAT-PMP. The router's claimed external address is only displayed.
async fn ask_gateway(
    gateway: Ipv4Addr,
    local_ip: Ipv4Addr,
    port: NonZeroU16,
) -> Result<(CrabMapping, Option<Ipv4Addr>), Vec<MappingFailure>> {
    let at = GatewayAddress::IpV4(gateway);
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(LIFETIME.as_secs()).ok(),
        timeout_config: Some(TIMES),
    };
    let base = pcp::BaseMapRequest::new(at, local_ip.into(), InternetProtocol::Udp, port);
    let by_pcp = match pcp::port_mapping(base, None, None, options).await {
        Ok(mapping) => {
            let external_ip = match mapping.mapping_type() {
                PortMappingType::Pcp { external_ip, .. } => match external_ip.to_canonical() {
                    IpAddr::V4(ip) => Some(ip),
                    IpAddr::V6(_) => None,
                },
                PortMappingType::NatPmp => None,
            };
            return Ok((mapping, external_ip.filter(|ip| !ip.is_unspecified())));
        }
        Err(pcp::Failure::Socket(_) | pcp::Failure::Timeout) => {
            MappingFailure::NoAnswer(MappingProtocol::Pcp)
        }
        Err(error) => MappingFailure::refused(MappingProtocol::Pcp, &error),
    };
    match natpmp::port_mapping(at, InternetProtocol::Udp, port, options).await {
        Ok(mapping) => {
            let external_ip = natpmp::external_address(at, Some(TIMES)).await.ok();
            Ok((mapping, external_ip))
        }
        Err(error) => {
            let by_natpmp = match error {
                natpmp::Failure::Socket(_) | natpmp::Failure::Timeout => {
                    MappingFailure::NoAnswer(MappingProtocol::NatPmp)
                }
                error => MappingFailure::refused(MappingProtocol::NatPmp, &error),
            };
            Err(vec![by_pcp, by_natpmp])
        }
    }
}

async fn search_upnp(
    local_ip: Ipv4Addr,
) -> Result<(Box<Gateway<Tokio>>, Option<Ipv4Addr>), MappingFailure> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(local_ip.into(), 0);
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    options.gateway_ip_version = GatewayIpVersion::V4;
    let gateway = search_gateway(options).await.map_err(|error| match error {
        SearchError::NoResponseWithinTimeout => MappingFailure::NoAnswer(MappingProtocol::Upnp),
        error => MappingFailure::refused(MappingProtocol::Upnp, &error),
    })?;
    let external_ip = match timeout(UPNP_DEADLINE, gateway.get_external_ip()).await {
        Ok(Ok(IpAddr::V4(ip))) => Some(ip),
        _ => None,
    };
    Ok((Box::new(gateway), external_ip))
}

async fn add_upnp(
    gateway: Box<Gateway<Tokio>>,
    local: SocketAddrV4,
    port: u16,
) -> Result<By, MappingFailure> {
    let mut lifetime = LIFETIME;
    let mut wanted = port;
    let refused = |error: &AddPortError| MappingFailure::refused(MappingProtocol::Upnp, error);
    let mut last = MappingFailure::NoAnswer(MappingProtocol::Upnp);
    for _ in 0..PORTS_TRIED {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(0);
        let protocol = PortMappingProtocol::UDP;
        let add = gateway.add_port(protocol, wanted, local.into(), seconds, DESCRIPTION);
        let Ok(added) = timeout(UPNP_DEADLINE, add).await else {
            return Err(MappingFailure::NoAnswer(MappingProtocol::Upnp));
        };
        match added {
            Ok(()) => {
                return Ok(By::Upnp {
                    gateway,
                    port: wanted,
                    // A permanent lease is renewed like any other.
                    lifetime: if seconds == 0 { LIFETIME } else { lifetime },
                });
            }
            Err(error @ AddPortError::OnlyPermanentLeasesSupported) => {
                lifetime = Duration::ZERO;
                last = refused(&error);
            }
            Err(error @ AddPortError::PortInUse) => {
                wanted = rand::rng().random_range(CANDIDATE_PORT_MIN..=u16::MAX);
                last = refused(&error);
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(last)
}

/// Returns our own address on the route to a gateway. Sends nothing.
fn address_towards(gateway: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Returns the router of the default route.
#[cfg(target_os = "linux")]
fn default_gateway() -> Option<Ipv4Addr> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// Guesses the router of the default route, which these systems have no simple call for: nearly all
/// home routers have the first address of their network.
#[cfg(not(target_os = "linux"))]
fn default_gateway() -> Option<Ipv4Addr> {
    // An address for documentation (RFC 5737). Nothing is sent to it.
    let ours = address_towards(Ipv4Addr::new(192, 0, 2, 1))?;
    let [a, b, c, _] = ours.octets();
    ours.is_private().then_some(Ipv4Addr::new(a, b, c, 1))
}

/// Finds the default route in lines of `interface destination gateway flags …`, addresses in hex in
/// the byte order of memory.
#[cfg(any(target_os = "linux", test))]
fn parse_routes(text: &str) -> Option<Ipv4Addr> {
    let gateway = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (destination, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        let is_default = destination == "00000000" && gateway != 0;
        is_default.then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    };
    text.lines().find_map(gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_that_of_the_default_route() {
        let hex = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let routes = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\n\
             eth0\t00000000\t{}\t0003\t0\t0\t0\t00000000\n",
            hex([10, 1, 1, 0]),
            hex([255, 255, 255, 0]),
            hex([10, 1, 1, 1]),
        );
        assert_eq!(parse_routes(&routes), Some(Ipv4Addr::new(10, 1, 1, 1)));
        assert_eq!(parse_routes("Iface\tDestination\tGateway\n"), None);
        assert_eq!(parse_routes("nonsense\n\neth0 00000000 zz"), None);
    }
}
