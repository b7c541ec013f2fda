//! The address of a shared registry.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use zeroize::Zeroizing;

/// Redis' port.
const REDIS_PORT: u16 = 6379;
/// Sentinel's port.
const SENTINEL_PORT: u16 = 26379;

/// Where a shared registry is: `redis://HOST:PORT[/DB]`, `redis-cluster://H1,H2`, or
/// `redis-sentinel://H1,H2/MASTER`; with `rediss` in place of `redis` over TLS. A user may precede
/// the hosts (`redis://USER@HOST`); the password never is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAddress {
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) kind: RegistryKind,
}

/// How a registry's servers work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegistryKind {
    /// One server, and the number of its database.
    Single { database: i64 },
    /// A Redis cluster.
    Cluster,
    /// Sentinels, which name the master.
    Sentinel { master: String },
}

/// Why a text is not the address of a registry, or why that registry is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistry {
    /// The scheme is unknown.
    #[error("it must begin with redis://, redis-cluster:// or redis-sentinel:// (rediss… for TLS)")]
    Scheme,
    /// A password is in the address, which others can read in the list of processes.
    #[error("a password does not belong there: put it into a file (--registry-password-file FILE)")]
    Password,
    /// A host or port is missing or malformed.
    #[error("{0:?} is not HOST or HOST:PORT")]
    Host(String),
    /// Several hosts, and neither a cluster nor Sentinels.
    #[error("several hosts need redis-cluster:// or redis-sentinel://")]
    SeveralHosts,
    /// The part behind the hosts is not what the scheme wants.
    #[error("{0:?} is not the number of a database")]
    Database(String),
    /// Sentinels need to know which master.
    #[error("the name of the master is missing: redis-sentinel://HOST/MASTER")]
    NoMaster,
    /// A cluster has only database 0.
    #[error("a cluster has no databases: remove {0:?}")]
    ClusterPath(String),
    /// Any program that reaches that server could change every entry.
    #[error(
        "without TLS and a password only a registry on this machine is used: use rediss://… and \
         --registry-password-file FILE, or accept the risk with --registry-insecure"
    )]
    Insecure,
}

impl FromStr for RegistryAddress {
    type Err = InvalidRegistry;

    fn from_str(text: &str) -> Result<RegistryAddress, InvalidRegistry> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRegistry::Scheme)?;
        let (tls, form) = match scheme.strip_prefix("rediss") {
            Some(form) => (true, form),
            None => (
                false,
                scheme
                    .strip_prefix("redis")
                    .ok_or(InvalidRegistry::Scheme)?,
            ),
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, place),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(InvalidRegistry::Password);
        }
        let port = match form {
            "-sentinel" => SENTINEL_PORT,
            _ => REDIS_PORT,
        };
        let hosts: Vec<(String, u16)> = hosts
            .split(',')
            .map(|host| parse_host(host, port))
            .collect::<Result<_, _>>()?;
        let kind = match form {
            "" if hosts.len() > 1 => return Err(InvalidRegistry::SeveralHosts),
            "" if path.is_empty() => RegistryKind::Single { database: 0 },
            "" => RegistryKind::Single {
                database: path
                    .parse()
                    .ok()
                    .filter(|&database| database >= 0)
                    .ok_or_else(|| InvalidRegistry::Database(path.to_owned()))?,
            },
            "-cluster" if path.is_empty() => RegistryKind::Cluster,
            "-cluster" => return Err(InvalidRegistry::ClusterPath(path.to_owned())),
            "-sentinel" if path.is_empty() => return Err(InvalidRegistry::NoMaster),
            "-sentinel" => RegistryKind::Sentinel {
                master: path.to_owned(),
            },
            _ => return Err(InvalidRegistry::Scheme),
        };
        Ok(RegistryAddress {
            tls,
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            hosts,
            kind,
        })
    }
}

fn parse_host(text: &str, port: u16) -> Result<(String, u16), InvalidRegistry> {
    let invalid = || InvalidRegistry::Host(text.to_owned());
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Ok((ip.to_string(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
        None => (text, port),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match !host.is_empty() && host.chars().all(is_name) {
        true => Ok((host.to_owned(), port)),
        false => Err(invalid()),
    }
}

impl RegistryAddress {
    /// Whether all of its hosts are this machine.
    fn is_local(&self) -> bool {
        self.hosts.iter().all(|(host, _)| {
            let ip = host.parse::<IpAddr>();
            host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
        })
    }
}

impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (form, path) = match &self.kind {
            RegistryKind::Single { database: 0 } => ("", String::new()),
            RegistryKind::Single { database } => ("", format!("/{database}")),
            RegistryKind::Cluster => ("-cluster", String::new()),
            RegistryKind::Sentinel { master } => ("-sentinel", format!("/{master}")),
        };
        write!(f, "redis{}{form}://", if self.tls { "s" } else { "" })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        f.write_str(&path)
    }
}

/// A shared registry, and what it takes to use it.
#[derive(Clone)]
pub struct SharedRegistryConfig {
    /// Where it is.
    pub address: RegistryAddress,
    /// Its password.
    pub password: Option<Zeroizing<String>>,
    /// Certificates (PEM) of the authority that signed the server's; None trusts the system's.
    pub certificate_authority: Option<Vec<u8>>,
    /// The address at which nodes and other trackers reach this tracker; None if it is not told.
    pub advertise: Option<SocketAddr>,
}

impl SharedRegistryConfig {
    /// Refuses a registry that others on the network could read or change, unless `is_accepted`.
    ///
    /// # Errors
    ///
    /// [`InvalidRegistry::Insecure`].
    pub fn check_security(&self, is_accepted: bool) -> Result<(), InvalidRegistry> {
        let is_protected = self.address.tls && self.password.is_some();
        match is_protected || self.address.is_local() || is_accepted {
            true => Ok(()),
            false => Err(InvalidRegistry::Insecure),
        }
    }
}

impl fmt::Debug for SharedRegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegistryConfig")
            .field("address", &self.address.to_string())
            .field("has_password", &self.password.is_some())
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for (text, expected) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://me@10.0.0.1:7000/3", "redis://me@10.0.0.1:7000/3"),
            ("rediss://[::1]:7000", "rediss://[::1]:7000"),
            ("redis-cluster://a,b:7001", "redis-cluster://a:6379,b:7001"),
            (
                "rediss-sentinel://a,b/main",
                "rediss-sentinel://a:26379,b:26379/main",
            ),
        ] {
            let address: RegistryAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), expected);
            assert_eq!(expected.parse(), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<RegistryAddress>().unwrap_err();
        assert_eq!(refused("http://a"), InvalidRegistry::Scheme);
        assert_eq!(refused("redis-other://a"), InvalidRegistry::Scheme);
        assert_eq!(refused("redis://me:secret@a"), InvalidRegistry::Password);
        assert!(
            !refused("redis://me:secret@a")
                .to_string()
                .contains("secret")
        );
        assert_eq!(refused("redis://a,b"), InvalidRegistry::SeveralHosts);
        assert_eq!(refused("redis-sentinel://a"), InvalidRegistry::NoMaster);
        assert!(matches!(
            refused("redis://a/x"),
            InvalidRegistry::Database(_)
        ));
        assert!(matches!(refused("redis://"), InvalidRegistry::Host(_)));
        assert!(matches!(refused("redis://a:b"), InvalidRegistry::Host(_)));
    }

    #[test]
    fn a_registry_that_others_could_change_needs_consent() {
        let config = |text: &str, password: Option<&str>| SharedRegistryConfig {
            address: text.parse().unwrap(),
            password: password.map(|text| Zeroizing::new(text.to_owned())),
            certificate_authority: None,
            advertise: None,
        };
        let is_allowed = |config: SharedRegistryConfig| config.check_security(false).is_ok();
        assert!(is_allowed(config("redis://127.0.0.1", None)));
        assert!(is_allowed(config(
            "redis-cluster://[::1]:1,localhost:2",
            None
        )));
        assert!(!is_allowed(config("redis://10.0.0.1", Some("p"))));
        assert!(!is_allowed(config("rediss://10.0.0.1", None)));
        assert!(is_allowed(config("rediss://10.0.0.1", Some("p"))));
        assert!(
            config("redis://10.0.0.1", None)
                .check_security(true)
                .is_ok()
        );
        let debug = format!("{:?}", config("redis://a", Some("hidden")));
        assert!(!debug.contains("hidden"));
    }
}
