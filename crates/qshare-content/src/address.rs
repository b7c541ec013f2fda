//! Addresses of trackers and nodes, as people write them and links hold them.

use std::fmt;
use std::str::FromStr;

use crate::NodeId;

/// Default UDP port of a tracker.
pub const DEFAULT_TRACKER_PORT: u16 = 65000;

/// Smallest port of a node: a link must not direct traffic to well-known services.
const NODE_PORT_MIN: u16 = 1024;

/// The address of a tracker as people write it: `HOST[:PORT]` or `TRACKERID@HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrackerAddress {
    /// The identity that it must prove; None means trust on first use.
    pub id: Option<NodeId>,
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// The text is not the address of a tracker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a tracker's address: write HOST[:PORT] or TRACKERID@HOST[:PORT]")]
pub struct TrackerAddressError(pub String);

impl TrackerAddress {
    /// Returns `HOST:PORT`, with IPv6 in brackets: the key in `known_trackers`.
    pub fn host_port(&self) -> String {
        join_place(&self.host, self.port)
    }
}

impl FromStr for TrackerAddress {
    type Err = TrackerAddressError;

    fn from_str(text: &str) -> Result<Self, TrackerAddressError> {
        let refused = || TrackerAddressError(text.into());
        let (id, place) = match text.split_once('@') {
            Some((id, place)) => (Some(id.parse().map_err(|_| refused())?), place),
            None => (None, text),
        };
        let (host, port) = parse_place(place).ok_or_else(refused)?;
        let port = port.unwrap_or(DEFAULT_TRACKER_PORT);
        Ok(TrackerAddress {
            id,
            host: host.into(),
            port,
        })
    }
}

impl fmt::Display for TrackerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}@")?;
        }
        f.write_str(&self.host_port())
    }
}

/// The address of a node: `NODEID@HOST:PORT`. The id is a pin: a connection to any other node at
/// that address is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// The identity that it must prove.
    pub id: NodeId,
    /// Host name or IP address, IPv6 without brackets.
    pub host: String,
    /// UDP port, from 1024.
    pub port: u16,
}

/// The text is not the address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node's address: write NODEID@HOST:PORT, with a port from 1024")]
pub struct NodeAddressError(pub String);

impl NodeAddress {
    /// Returns `HOST:PORT`, with IPv6 in brackets.
    pub fn host_port(&self) -> String {
        join_place(&self.host, self.port)
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        let refused = || NodeAddressError(text.into());
        let (id, place) = text.split_once('@').ok_or_else(refused)?;
        let id = id.parse().map_err(|_| refused())?;
        match parse_place(place) {
            Some((host, Some(port))) if port >= NODE_PORT_MIN => Ok(NodeAddress {
                id,
                host: host.into(),
                port,
            }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.host_port())
    }
}

/// Splits `HOST[:PORT]`. IPv6 with a port must be in brackets, without one it need not be.
fn parse_place(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        is_ipv6(host).then_some(())?;
        match rest {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':')?)),
        }
    } else if is_ipv6(place) {
        (place, None)
    } else {
        match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        }
    };
    let port = match port {
        None => None,
        Some(digits) => Some(digits.parse().ok().filter(|&port| port != 0)?),
    };
    let plausible = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let legal = !host.is_empty() && host.len() <= 253 && host.chars().all(plausible);
    legal.then_some((host, port))
}

/// Returns whether a host is an IPv6 address, with or without a zone (`fe80::1%eth0`, RFC 4007
/// section 11).
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    let is_zone = |zone: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !zone.is_empty() && zone.len() <= 32 && zone.chars().all(legal)
    };
    address.parse::<std::net::Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

fn join_place(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_with_its_id_and_an_unprivileged_port() {
        let id = NodeId([9; 32]);
        for place in ["192.0.2.1", "192.0.2.1:53", "192.0.2.1:0", ":7000", ""] {
            let text = format!("{id}@{place}");
            assert!(text.parse::<NodeAddress>().is_err(), "{text}");
        }
        assert!("192.0.2.1:7000".parse::<NodeAddress>().is_err());
    }

    #[test]
    fn tracker_addresses_are_read_in_all_their_forms() {
        for (text, host, port) in [
            ("example.org", "example.org", 65000),
            ("example.org:7", "example.org", 7),
            ("10.0.0.1:65001", "10.0.0.1", 65001),
            ("::1", "::1", 65000),
            ("[::1]", "::1", 65000),
            ("[::1]:9", "::1", 9),
        ] {
            let address: TrackerAddress = text.parse().unwrap();
            assert_eq!(
                (address.host.as_str(), address.port),
                (host, port),
                "{text}"
            );
        }
        for text in [
            "", ":7", "a:0", "a:70000", "a:", "[::1", "[x]:1", "x@a", "a b",
        ] {
            assert!(text.parse::<TrackerAddress>().is_err(), "{text}");
        }
    }
}
