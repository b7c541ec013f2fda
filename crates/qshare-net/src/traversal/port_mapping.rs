//! Asking the router to forward a UDP port to us: PCP (RFC 6887) and NAT-PMP (RFC 6886), which
//! one daemon on one port usually answers, and UPnP-IGD.
//!
//! A router's word is no proof: some say yes and map nothing, some map at a router behind another
//! one. What it says is worth something once [`crate::knock()`] came through.
//!
//! IPv4 only: there is nothing to translate in IPv6.

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
use qshare_wire::limits::CANDIDATE_PORT_MIN;
use rand::Rng;
use tokio::time::timeout;
use tracing::debug;

/// How long a mapping is asked for. It is renewed at half of that; one that a killed process has
/// left behind is gone after it.
const LIFETIME: Duration = Duration::from_secs(1800);
/// Shortest pause between renewals, whatever a router grants.
const RENEW_MIN: Duration = Duration::from_secs(30);
/// PCP and NAT-PMP: 250, 500 and 1,000 ms. The router is next door.
const TIMES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_millis(1000)),
};
/// Time for UPnP routers to be found. They may wait up to 2 s before they answer.
const SEARCH: Duration = Duration::from_millis(2500);
/// Time for everything else that is asked of a UPnP router.
const UPNP_DEADLINE: Duration = Duration::from_secs(5);
/// Outside ports that are tried where somebody else has ours.
const PORTS_TRIED: usize = 4;
/// What UPnP routers show to their owners.
const DESCRIPTION: &str = "qshare";
const NO_ANSWER: &str = "no answer";

/// By which protocol a router was asked.
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

/// Why no port is mapped: what each protocol came to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct MappingError(Vec<String>);

impl MappingError {
    fn one(cause: impl Into<String>) -> MappingError {
        MappingError(vec![cause.into()])
    }
}

/// A port that a router says it forwards to us.
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
    /// By which protocol.
    pub fn protocol(&self) -> MappingProtocol {
        match &self.by {
            By::Crab(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => MappingProtocol::NatPmp,
                PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
            },
            By::Upnp { .. } => MappingProtocol::Upnp,
        }
    }

    /// The router.
    pub fn gateway(&self) -> IpAddr {
        match &self.by {
            By::Crab(mapping) => mapping.gateway().into(),
            By::Upnp { gateway, .. } => gateway.addr.ip(),
        }
    }

    /// The router's own outside address, as it says.
    pub fn external_ip(&self) -> Option<Ipv4Addr> {
        self.external_ip
    }

    /// The outside port.
    pub fn external_port(&self) -> u16 {
        match &self.by {
            By::Crab(mapping) => mapping.external_port().get(),
            By::Upnp { port, .. } => *port,
        }
    }

    /// When to renew it, counted from the time when it was made or renewed.
    pub fn renew_after(&self) -> Duration {
        let lifetime = match &self.by {
            By::Crab(mapping) => Duration::from_secs(mapping.lifetime().into()),
            By::Upnp { lifetime, .. } => *lifetime,
        };
        (lifetime.min(LIFETIME) / 2).max(RENEW_MIN)
    }

    /// Asks for the same again, so that it does not end. Afterwards the port may be another.
    ///
    /// # Errors
    ///
    /// When the router does not agree, or is not there any more.
    pub async fn renew(&mut self) -> Result<(), MappingError> {
        match &mut self.by {
            By::Crab(mapping) => mapping
                .renew()
                .await
                .map_err(|error| MappingError::one(error.to_string())),
            By::Upnp { gateway, port, .. } => {
                let (gateway, port) = (gateway.clone(), *port);
                self.by = add_upnp(gateway, self.local, port)
                    .await
                    .map_err(MappingError::one)?;
                Ok(())
            }
        }
    }

    /// Takes it back. What does not answer is left alone: it ends by itself.
    pub async fn remove(self) {
        let removed = match self.by {
            By::Crab(mapping) => mapping
                .try_drop()
                .await
                .map_err(|(error, _)| error.to_string()),
            By::Upnp { gateway, port, .. } => {
                let remove = gateway.remove_port(PortMappingProtocol::UDP, port);
                match timeout(UPNP_DEADLINE, remove).await {
                    Ok(removed) => removed.map_err(|error| error.to_string()),
                    Err(_) => Err(NO_ANSWER.into()),
                }
            }
        };
        if let Err(cause) = removed {
            debug!(%cause, "the mapping was not taken back");
        }
    }
}

/// Asks the router to forward a UDP port to `local_port` of this machine, the same one if it can
/// be had. Takes up to some four seconds.
///
/// # Errors
///
/// What each protocol came to.
pub async fn map_port(local_port: u16) -> Result<PortMapping, MappingError> {
    let port = NonZeroU16::new(local_port).ok_or_else(|| MappingError::one("no local port"))?;
    let gateway = default_gateway().ok_or_else(|| MappingError::one("no default gateway"))?;
    let local_ip = address_towards(gateway)
        .ok_or_else(|| MappingError::one(format!("no way to the gateway {gateway}")))?;
    let local = SocketAddrV4::new(local_ip, local_port);
    // Looking for UPnP routers leaves nothing behind at them, so it need not wait its turn.
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
            causes.push(format!("UPnP: {cause}"));
            Err(MappingError(causes))
        }
    }
}

/// Gives back what could not be offered to anybody.
async fn checked(mapping: PortMapping) -> Result<PortMapping, MappingError> {
    let (protocol, port) = (mapping.protocol(), mapping.external_port());
    if port < CANDIDATE_PORT_MIN {
        mapping.remove().await;
        return Err(MappingError::one(format!(
            "{protocol}: port {port} belongs to a well-known service"
        )));
    }
    Ok(mapping)
}

/// PCP, then NAT-PMP. What the router says of its outside address is for people.
async fn ask_gateway(
    gateway: Ipv4Addr,
    local_ip: Ipv4Addr,
    port: NonZeroU16,
) -> Result<(CrabMapping, Option<Ipv4Addr>), Vec<String>> {
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
        Err(pcp::Failure::Socket(_) | pcp::Failure::Timeout) => format!("PCP: {NO_ANSWER}"),
        Err(error) => format!("PCP: {error}"),
    };
    match natpmp::port_mapping(at, InternetProtocol::Udp, port, options).await {
        Ok(mapping) => {
            let external_ip = natpmp::external_address(at, Some(TIMES)).await.ok();
            Ok((mapping, external_ip))
        }
        Err(error) => {
            let cause = match error {
                natpmp::Failure::Socket(_) | natpmp::Failure::Timeout => NO_ANSWER.to_owned(),
                error => error.to_string(),
            };
            Err(vec![by_pcp, format!("NAT-PMP: {cause}")])
        }
    }
}

async fn search_upnp(
    local_ip: Ipv4Addr,
) -> Result<(Box<Gateway<Tokio>>, Option<Ipv4Addr>), String> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::new(local_ip.into(), 0);
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    options.gateway_ip_version = GatewayIpVersion::V4;
    let gateway = search_gateway(options).await.map_err(|error| match error {
        SearchError::NoResponseWithinTimeout => NO_ANSWER.to_owned(),
        error => error.to_string(),
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
) -> Result<By, String> {
    let mut lifetime = LIFETIME;
    let mut wanted = port;
    let mut last = String::new();
    for _ in 0..PORTS_TRIED {
        let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(0);
        let protocol = PortMappingProtocol::UDP;
        let add = gateway.add_port(protocol, wanted, local.into(), seconds, DESCRIPTION);
        let Ok(added) = timeout(UPNP_DEADLINE, add).await else {
            return Err(NO_ANSWER.into());
        };
        match added {
            Ok(()) => {
                return Ok(By::Upnp {
                    gateway,
                    port: wanted,
                    // One for ever is looked after like any other.
                    lifetime: if seconds == 0 { LIFETIME } else { lifetime },
                });
            }
            Err(error @ AddPortError::OnlyPermanentLeasesSupported) => {
                lifetime = Duration::ZERO;
                last = error.to_string();
            }
            Err(error @ AddPortError::PortInUse) => {
                wanted = rand::rng().random_range(CANDIDATE_PORT_MIN..=u16::MAX);
                last = error.to_string();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(last)
}

/// Our own address on the way to a gateway. Nothing is sent.
fn address_towards(gateway: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// The router that packets to the internet go to.
#[cfg(target_os = "linux")]
fn default_gateway() -> Option<Ipv4Addr> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// Where the system does not tell simply: nearly all home routers have the first address of their
/// network.
#[cfg(not(target_os = "linux"))]
fn default_gateway() -> Option<Ipv4Addr> {
    // An address of documentation (RFC 5737), to which nothing is sent, either.
    let ours = address_towards(Ipv4Addr::new(192, 0, 2, 1))?;
    let [a, b, c, _] = ours.octets();
    ours.is_private().then_some(Ipv4Addr::new(a, b, c, 1))
}

/// Lines are `interface destination gateway flags …`, addresses in hex as they are in memory.
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
