//! A node's session as other trackers read it.

use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::net::{Ipv4Addr, SocketAddr};

use qshare_content::NodeId;
use qshare_registry::Contact;
use qshare_wire::is_private;
use serde::{Deserialize, Serialize};

use super::layout::{STAMP_BYTES, Stamp};

/// The tracker that observed an address: what the address means elsewhere depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObservingTracker {
    /// Identifies its machine and network namespace, in which loopback addresses are the same.
    pub(crate) host: u64,
    /// The address at which others reach it.
    pub(crate) advertised: Option<SocketAddr>,
}

/// Identifies this machine, its boot, and the network namespace of this process.
pub(crate) fn host_id() -> u64 {
    let mut hasher = DefaultHasher::new();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = std::fs::read_link("/proc/self/ns/net");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => (boot, namespace).hash(&mut hasher),
        // Unknown: the same as no other.
        _ => rand::random::<u64>().hash(&mut hasher),
    }
    hasher.finish()
}

/// What a tracker publishes of a node in session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionDetails {
    pub(crate) observed: SocketAddr,
    pub(crate) claimed: Vec<SocketAddr>,
    /// The features of its Hello.
    pub(crate) features: u64,
    pub(crate) observer: ObservingTracker,
}

impl SessionDetails {
    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Returns the node's addresses as they are for those who ask tracker `us`.
    ///
    /// A private address means the same only where both trackers reach each other at private
    /// addresses. The observing tracker's own host becomes the address that it advertises. An
    /// address that means nothing here is left out: the observed one is unspecified then, and sent
    /// to nobody.
    pub(crate) fn contact_at(&self, us: &ObservingTracker) -> Contact {
        let is_same_host = self.observer.host == us.host;
        let in_private_network =
            |tracker: &ObservingTracker| tracker.advertised.is_some_and(|at| is_private(at.ip()));
        let is_same_network = in_private_network(&self.observer) && in_private_network(us);
        if is_same_host || !is_private(self.observed.ip()) {
            return Contact {
                observed: self.observed,
                claimed: self.claimed.as_slice().into(),
            };
        }
        let at = match (self.observed.ip().is_loopback(), self.observer.advertised) {
            (true, Some(advertised)) => Some(advertised.ip()),
            (true, None) => None,
            (false, _) => is_same_network.then_some(self.observed.ip()),
        };
        Contact {
            observed: match at {
                Some(ip) => SocketAddr::new(ip, self.observed.port()),
                None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            },
            claimed: match is_same_network {
                true => self.claimed.as_slice().into(),
                false => [].into(),
            },
        }
    }
}

/// A session in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) stamp: Stamp,
    /// Older entries do not count.
    pub(crate) from: Stamp,
    pub(crate) tracker: NodeId,
    pub(crate) details: SessionDetails,
}

impl SessionRecord {
    /// Reads a live session. None for one that has ended, and for other bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        let (stamp, rest) = bytes.split_at_checked(STAMP_BYTES)?;
        let (from, rest) = rest.split_at_checked(STAMP_BYTES)?;
        let (&live, rest) = rest.split_first()?;
        let (tracker, details) = rest.split_first_chunk::<32>()?;
        if live != b'l' {
            return None;
        }
        Some(SessionRecord {
            stamp: Stamp::decode(stamp)?,
            from: Stamp::decode(from)?,
            tracker: NodeId(*tracker),
            details: postcard::from_bytes(details).ok()?,
        })
    }

    /// Whether an entry with this value counts.
    pub(super) fn counts(&self, value: &[u8]) -> bool {
        Stamp::decode(value).is_some_and(|stamp| stamp >= self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(host: u64, advertised: Option<&str>) -> ObservingTracker {
        ObservingTracker {
            host,
            advertised: advertised.map(|text| text.parse().unwrap()),
        }
    }

    fn observed(at: &str, observer: ObservingTracker, us: ObservingTracker) -> String {
        let details = SessionDetails {
            observed: at.parse().unwrap(),
            claimed: Vec::new(),
            features: 0,
            observer,
        };
        details.contact_at(&us).observed.to_string()
    }

    #[test]
    fn private_addresses_stay_where_they_mean_something() {
        let far = |advertised| tracker(1, advertised);
        let us = |advertised| tracker(2, advertised);
        let public = "203.0.113.5:7000";
        let private = "192.168.1.7:7000";
        let nowhere = "0.0.0.0:0";
        assert_eq!(observed(public, far(None), us(None)), public);
        assert_eq!(observed(private, far(None), us(None)), nowhere);
        let (a, b) = (Some("198.51.100.1:65000"), Some("10.0.0.2:65000"));
        assert_eq!(observed(private, far(a), us(a)), nowhere);
        assert_eq!(observed(private, far(b), us(a)), nowhere);
        assert_eq!(observed(private, far(b), us(b)), private);
    }

    #[test]
    fn the_trackers_own_host_is_its_advertised_address_elsewhere() {
        let loopback = "127.0.0.1:7000";
        let advertised = Some("198.51.100.1:65000");
        let (far, us) = (tracker(1, advertised), tracker(2, None));
        assert_eq!(observed(loopback, far, us.clone()), "198.51.100.1:7000");
        assert_eq!(
            observed(loopback, tracker(1, None), us.clone()),
            "0.0.0.0:0"
        );
        assert_eq!(observed(loopback, tracker(2, advertised), us), loopback);
    }

    #[test]
    fn an_ended_session_is_none() {
        let details = SessionDetails {
            observed: "203.0.113.5:7000".parse().unwrap(),
            claimed: Vec::new(),
            features: 3,
            observer: tracker(1, None),
        };
        let stamp = Stamp {
            number: 7,
            epoch: 1,
        };
        let from = Stamp {
            number: 5,
            epoch: 0,
        };
        let value = |live: &str| {
            let text = format!("{}{}{live}", stamp.encode(), from.encode());
            [text.as_bytes(), &[9; 32], &details.encode()].concat()
        };
        let record = SessionRecord::decode(&value("l")).unwrap();
        assert_eq!((record.stamp, record.from), (stamp, from));
        assert_eq!(record.details, details);
        assert!(record.counts(format!("{}c", from.encode()).as_bytes()));
        let older = Stamp {
            number: 4,
            epoch: 9,
        };
        assert!(!record.counts(format!("{}c", older.encode()).as_bytes()));
        assert_eq!(SessionRecord::decode(&value("g")), None);
        assert_eq!(SessionRecord::decode(b"short"), None);
    }
}
