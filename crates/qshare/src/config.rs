//! From arguments to what the node is started with.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use qshare_node::content::TrackerAddress;
use qshare_node::{GroupSecret, KnownTrackers, default_identity_dir};

use crate::args::{CertsArg, GroupArg, TrackersArg, Wanted};
use crate::exit::Failure;

/// Where a tracker is looked for when none is named.
fn default_tracker() -> TrackerAddress {
    TrackerAddress {
        id: None,
        host: IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        port: qshare_node::content::DEFAULT_TRACKER_PORT,
    }
}

impl CertsArg {
    /// The directory of the identities.
    pub(crate) fn resolve(&self) -> Result<PathBuf, Failure> {
        Ok(default_identity_dir(self.dir.as_deref())?)
    }

    /// The trackers that are remembered; None where there is no place to remember them.
    pub(crate) fn known_trackers(&self) -> Option<KnownTrackers> {
        default_identity_dir(self.dir.as_deref())
            .ok()
            .map(|dir| KnownTrackers::in_dir(&dir))
    }
}

impl GroupArg {
    /// The group's secret, if one is named.
    pub(crate) fn load(&self) -> Result<Option<GroupSecret>, Failure> {
        match &self.file {
            Some(file) => Ok(Some(GroupSecret::load(file)?)),
            None => Ok(None),
        }
    }
}

impl TrackersArg {
    /// The trackers to ask.
    pub(crate) fn resolve(&self) -> Vec<TrackerAddress> {
        self.resolve_for(&[])
    }

    /// The trackers to ask for these: those that are named, and those in links. The default one
    /// is asked only if something is left that nobody else was named for.
    pub(crate) fn resolve_for(&self, wanted: &[Wanted]) -> Vec<TrackerAddress> {
        let mut trackers = Vec::new();
        let named_in_link = |wanted: &Wanted| match wanted {
            Wanted::Link(link) => !link.trackers.is_empty() || !link.nodes.is_empty(),
            Wanted::Query(_) => false,
        };
        if self.given.is_empty() && (wanted.is_empty() || !wanted.iter().all(named_in_link)) {
            add(&mut trackers, default_tracker());
        }
        for tracker in &self.given {
            add(&mut trackers, tracker.clone());
        }
        for wanted in wanted {
            if let Wanted::Link(link) = wanted {
                link.trackers
                    .iter()
                    .for_each(|tracker| add(&mut trackers, tracker.clone()));
            }
        }
        trackers
    }
}

/// Adds a tracker unless it is there; a pinned id takes the place of the same one without.
fn add(trackers: &mut Vec<TrackerAddress>, new: TrackerAddress) {
    let place = new.host_port();
    for known in trackers
        .iter_mut()
        .filter(|known| known.host_port() == place)
    {
        if known.id.is_none() {
            known.id = new.id;
        }
        if new.id.is_none() || known.id == new.id {
            return;
        }
    }
    trackers.push(new);
}

#[cfg(test)]
mod tests {
    use qshare_node::content::{ContentInfo, Hash, Link, NodeId};

    use super::*;

    fn link(trackers: &[&str]) -> Wanted {
        Wanted::Link(Box::new(Link {
            info: ContentInfo {
                length: 0,
                root: Hash([0; 32]),
            },
            trackers: trackers.iter().map(|text| text.parse().unwrap()).collect(),
            nodes: Vec::new(),
            name: None,
        }))
    }

    fn resolved(given: &[&str], wanted: &[Wanted]) -> Vec<String> {
        let given = given.iter().map(|text| text.parse().unwrap()).collect();
        let resolved = TrackersArg { given }.resolve_for(wanted);
        resolved.iter().map(TrackerAddress::to_string).collect()
    }

    #[test]
    fn the_default_tracker_is_asked_when_nobody_else_is_named() {
        let name = Wanted::Query("x".parse().unwrap());
        assert_eq!(resolved(&[], &[]), ["127.0.0.1:65000"]);
        assert_eq!(resolved(&[], &[link(&[])]), ["127.0.0.1:65000"]);
        assert_eq!(resolved(&[], &[link(&["a"])]), ["a:65000"]);
        assert_eq!(
            resolved(&[], &[link(&["a"]), name.clone()]),
            ["127.0.0.1:65000", "a:65000"]
        );
        assert_eq!(
            resolved(&["b"], &[link(&["a"]), name]),
            ["b:65000", "a:65000"]
        );
    }

    #[test]
    fn a_link_that_names_nodes_needs_no_tracker() {
        let Wanted::Link(mut link) = link(&[]) else {
            unreachable!("it is a link")
        };
        link.nodes = vec![format!("{}@a:7000", NodeId([1; 32])).parse().unwrap()];
        let empty: [&str; 0] = [];
        assert_eq!(resolved(&[], &[Wanted::Link(link)]), empty);
    }

    #[test]
    fn a_pin_takes_the_place_of_the_same_address_without_one() {
        let pinned = format!("{}@a:65000", NodeId([1; 32]));
        let other = format!("{}@a:65000", NodeId([2; 32]));
        assert_eq!(
            resolved(&["a"], &[link(&[&pinned, &pinned])]),
            [pinned.as_str()]
        );
        assert_eq!(resolved(&[&pinned, "a"], &[]), [pinned.as_str()]);
        assert_eq!(
            resolved(&[&pinned, &other], &[]),
            [pinned.as_str(), other.as_str()]
        );
    }
}
