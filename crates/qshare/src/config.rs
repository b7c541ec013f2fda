//! Converts arguments to the configuration of the node, in one place for all commands.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Once;

use qshare_node::content::TrackerAddress;
use qshare_node::{
    GroupSecret, Identity, KnownTrackers, NetReportConfig, NodeConfig, Shares, default_identity_dir,
};
use tracing::warn;

use crate::args::{
    CertsArg, GetArgs, GroupArg, HttpArgs, LsArgs, NetArgs, NetworkArgs, NodeArgs, ShareArgs,
    TrackersArg,
};
use crate::argument::Wanted;
use crate::exit::Failure;
use crate::messages;
use crate::neutral::shown;
use crate::web::{TlsFiles, Token, WebConfig};

/// Returns the tracker that is asked when none is named: one on this machine.
fn default_tracker() -> TrackerAddress {
    TrackerAddress {
        id: None,
        host: IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        port: qshare_node::content::DEFAULT_TRACKER_PORT,
    }
}

impl NetworkArgs {
    /// Sets how a node takes part in the swarm. The trackers are part of how `config` is made.
    fn apply(&self, config: &mut NodeConfig) -> Result<(), Failure> {
        config.group = self.group.load()?;
        config.listen = self.listen;
        config.known_trackers = self.certs.known_trackers();
        config.lan = !self.lan.off;
        config.punch_hard = self.punch.hard;
        config.limits.transport.congestion = self.congestion.congestion;
        Ok(())
    }
}

impl NodeArgs {
    /// Returns the configuration of a full node whose identity and state are in `dir`.
    pub(crate) fn node_config(
        &self,
        dir: &Path,
        identity: Identity,
    ) -> Result<NodeConfig, Failure> {
        let shares = Shares {
            assets: self.assets.clone(),
            downloads: self.downloads.clone(),
            exclude: vec![dir.to_owned()],
            state_dir: dir.join("state"),
        };
        let trackers = self.network.trackers.resolve();
        let mut config = NodeConfig {
            port_mapping: !self.port_mapping.no_port_mapping,
            sha256: self.sha256,
            ..NodeConfig::full(identity, shares, trackers)
        };
        self.network.apply(&mut config)?;
        self.limits.apply(&mut config.limits);
        Ok(config)
    }
}

impl HttpArgs {
    /// Returns the configuration of the web server; None if there is none.
    pub(crate) fn web_config(&self) -> Result<Option<WebConfig>, Failure> {
        let Some(listen) = self.listen else {
            return Ok(None);
        };
        let token = match &self.token {
            Some(file) => Token::load_or_create(file)?,
            None if listen.ip().to_canonical().is_loopback() => Token::random(),
            None => return Err(messages::http_needs_token(listen)),
        };
        let tls = self
            .tls
            .clone()
            .map(|(certificates, key)| TlsFiles { certificates, key });
        Ok(Some(WebConfig {
            listen,
            token,
            tls,
            hosts: self.hosts.clone(),
        }))
    }
}

impl GetArgs {
    /// Returns the configuration of a node that downloads `wanted` and leaves.
    pub(crate) fn node_config(&self, wanted: &[Wanted]) -> Result<NodeConfig, Failure> {
        let trackers = self.network.trackers.resolve_for(wanted);
        let mut config = NodeConfig::one_shot(Identity::ephemeral()?, trackers);
        self.network.apply(&mut config)?;
        self.limits.apply(&mut config.limits);
        Ok(config)
    }
}

impl ShareArgs {
    /// Returns the configuration of a node that shares some files and leaves. Without a tracker
    /// that is named, it works on the local network.
    pub(crate) fn node_config(&self) -> Result<NodeConfig, Failure> {
        let trackers = self.network.trackers.given.clone();
        let mut config = NodeConfig::one_shot(Identity::ephemeral()?, trackers);
        self.network.apply(&mut config)?;
        self.limits.apply(&mut config.limits);
        Ok(config)
    }

    /// Returns whether the options demand a node of this process.
    pub(crate) fn is_in_foreground(&self) -> bool {
        self.foreground || self.http.is_some() || self.network.listen != crate::args::any_port()
    }
}

impl LsArgs {
    /// Returns the configuration of a node that looks names up and leaves.
    pub(crate) fn node_config(&self) -> Result<NodeConfig, Failure> {
        Ok(NodeConfig {
            group: self.group.load()?,
            known_trackers: self.certs.known_trackers(),
            lan: !self.lan.off,
            ..NodeConfig::one_shot(Identity::ephemeral()?, self.trackers.resolve())
        })
    }
}

impl NetArgs {
    /// Returns the configuration of the report from each tracker.
    pub(crate) fn net_report_configs(&self) -> Result<Vec<NetReportConfig>, Failure> {
        let trackers = self.trackers.resolve().into_iter();
        let configs = trackers.map(|tracker| {
            Ok(NetReportConfig {
                tracker,
                group: self.group.load()?,
                known_trackers: self.certs.known_trackers(),
                port_mapping: !self.port_mapping.no_port_mapping,
            })
        });
        configs.collect()
    }
}

impl CertsArg {
    /// Returns the directory of the identities.
    pub(crate) fn resolve(&self) -> Result<PathBuf, Failure> {
        let found = default_identity_dir(self.dir.as_deref())?;
        if let Some(ignored) = &found.ignored {
            tell_of_ignored_certs(ignored, &found.path);
        }
        Ok(found.path)
    }

    /// Returns the remembered tracker keys. They are kept in the directory of the identities, or in
    /// memory if there is none.
    pub(crate) fn known_trackers(&self) -> Option<KnownTrackers> {
        Some(match self.resolve() {
            Ok(dir) => KnownTrackers::in_dir(&dir),
            Err(_) => {
                warn!(
                    "tracker keys are remembered for this process only: neither HOME nor \
                     XDG_DATA_HOME is set (name a directory: --certs DIR)"
                );
                KnownTrackers::in_memory()
            }
        })
    }
}

/// Warns once that `./certs` was not used.
fn tell_of_ignored_certs(ignored: &Path, used: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        warn!(
            "the keys or remembered trackers in ./{ignored} were not created there by qshare, so \
             {used} is used instead. If you trust them, name them: --certs ./{ignored}",
            ignored = shown(ignored),
            used = shown(used),
        );
    });
}

impl GroupArg {
    /// Returns the group's secret, if a group file is named.
    pub(crate) fn load(&self) -> Result<Option<GroupSecret>, Failure> {
        match &self.file {
            Some(file) => Ok(Some(GroupSecret::load(file)?)),
            None => Ok(None),
        }
    }
}

impl TrackersArg {
    /// Returns the trackers to ask.
    pub(crate) fn resolve(&self) -> Vec<TrackerAddress> {
        self.resolve_for(&[])
    }

    /// Returns the trackers to ask for these: those that are named, and those in links. The default
    /// tracker is asked only if something remains for which no tracker or node is named.
    pub(crate) fn resolve_for(&self, wanted: &[Wanted]) -> Vec<TrackerAddress> {
        let mut trackers = Vec::new();
        let named_in_link = |wanted: &Wanted| match wanted {
            Wanted::Link(link) => !link.trackers.is_empty() || !link.nodes.is_empty(),
            Wanted::Query(_) | Wanted::Name(_) | Wanted::Code(_) | Wanted::Folder(_) => false,
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

/// Adds a tracker unless it is listed; a pinned address replaces the same address without a pin.
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
            key: None,
            modified_ns: None,
            executable: false,
            folder: None,
        }))
    }

    fn resolved(given: &[&str], wanted: &[Wanted]) -> Vec<String> {
        let given = given.iter().map(|text| text.parse().unwrap()).collect();
        let resolved = TrackersArg { given }.resolve_for(wanted);
        resolved.iter().map(TrackerAddress::to_string).collect()
    }

    #[test]
    fn the_default_tracker_is_asked_when_no_other_is_named() {
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
            unreachable!("link() returns a link")
        };
        link.nodes = vec![format!("{}@a:7000", NodeId([1; 32])).parse().unwrap()];
        let empty: [&str; 0] = [];
        assert_eq!(resolved(&[], &[Wanted::Link(link)]), empty);
    }

    #[test]
    fn a_pin_replaces_the_same_address_without_one() {
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
