//! `qshare ls`: what can be downloaded.

use std::io::{IsTerminal, stdout};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use qshare_node::content::{Link, NodeAddress, Query, TrackerAddress};
use qshare_node::{FoundFile, Identity, Node, NodeConfig, TrackerState};
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::args::LsArgs;
use crate::choice;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::{self, ListedJson};

/// Within this long a tracker answers, or the command fails: with what start and goodbye take,
/// it ends within five seconds.
pub(super) const TRACKER_PATIENCE: Duration = Duration::from_millis(4000);
/// More files than this are listed a part at a time, by narrower globs.
pub(super) const FILES_MAX: usize = 100_000;
/// Nodes that a link names, and addresses of each: links are copied by hand.
const LINK_NODES_MAX: usize = 3;
const LINK_ADDRESSES_PER_NODE_MAX: usize = 2;
/// For saying goodbye.
const GOODBYE_MAX: Duration = Duration::from_millis(200);

pub(crate) fn run(args: LsArgs, console: &Console) -> Result<(), Failure> {
    let mut config = NodeConfig::one_shot(Identity::ephemeral()?, args.trackers.resolve());
    config.known_trackers = args.certs.known_trackers();
    config.group = args.group.load()?;
    config.lan = !args.lan.off;
    run_on_network(|stop| list(args, config, console, stop))
}

async fn list(
    args: LsArgs,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let node = Node::start(config).await?;
    let query = args.query.clone().unwrap_or(Query::Name("**".into()));
    let found = tokio::select! {
        found = node.find(&query, FILES_MAX, TRACKER_PATIENCE) => found.map_err(|e| (&e).into()),
        () = stop.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    let trackers = node.status().trackers;
    node.shutdown(GOODBYE_MAX).await;
    let found = found?;
    if found.files.is_empty() {
        return match &args.query {
            Some(query) => Err(Failure::new(
                Exit::NotFound,
                choice::explain_missing(&query.to_string(), &found.near),
            )),
            None => {
                console.note("nothing is shared yet; share a directory with `qshare node`");
                Ok(())
            }
        };
    }
    if args.links || args.json.on {
        let trackers = if args.links {
            pinned(&trackers)
        } else {
            Vec::new()
        };
        let mut places: Vec<(&str, String)> = trackers
            .iter()
            .map(|tracker| (tracker.host.as_str(), tracker.host_port()))
            .collect();
        // Without a tracker there is nobody else to name.
        let by_address = args.addresses || trackers.is_empty();
        let nodes: Vec<NodeAddress> = match args.links && by_address {
            true => found.files.iter().flat_map(addresses).collect(),
            false => Vec::new(),
        };
        places.extend(
            nodes
                .iter()
                .map(|node| (node.host.as_str(), node.host_port())),
        );
        warn_of_loopback(&places, console);
        for file in &found.files {
            let link = args.links.then(|| Link {
                info: file.info,
                trackers: trackers.clone(),
                nodes: match by_address {
                    true => addresses(file),
                    false => Vec::new(),
                },
                name: Some(file.name.clone()),
            });
            let link = link.map(|link| link.to_string());
            console.result(&match (args.json.on, link) {
                (false, Some(link)) => link,
                (_, link) => output::json(&ListedJson::new(file, link)),
            })?;
        }
    } else {
        print_table(&found.files, console)?;
    }
    if found.truncated {
        console.note("there is more; give a narrower GLOB to see it");
    }
    Ok(())
}

/// The table of `ls`; with headings where a person reads it.
pub(super) fn print_table(files: &[FoundFile], console: &Console) -> Result<(), Failure> {
    let heading = ["NAME", "SIZE", "HOLDERS", "ID"].map(String::from);
    let heading = stdout().is_terminal().then_some(heading);
    let rows = files.iter().map(|file| {
        [
            file.name.to_string(),
            output::bytes(file.info.length),
            match file.partial {
                0 => file.complete.to_string(),
                partial => format!("{} + {partial} partial", file.complete),
            },
            format!("id:{}", file.content.short()),
        ]
    });
    let rows: Vec<[String; 4]> = heading.into_iter().chain(rows).collect();
    for line in output::table(&rows, [false, true, false, false]) {
        console.result(&line)?;
    }
    Ok(())
}

/// The trackers that answered, as written, each with the id that it proved.
fn pinned(trackers: &[(TrackerAddress, TrackerState)]) -> Vec<TrackerAddress> {
    let pinned = trackers.iter().filter_map(|(written, state)| match state {
        TrackerState::Connected { id, .. } => Some(TrackerAddress {
            id: Some(*id),
            ..written.clone()
        }),
        TrackerState::Away { .. } | TrackerState::Refused { .. } => None,
    });
    pinned.collect()
}

/// Where some of those are who have it, those that have all of it first.
fn addresses(file: &FoundFile) -> Vec<NodeAddress> {
    let mut holders: Vec<_> = file.holders.iter().collect();
    holders.sort_by_key(|holder| !holder.complete);
    let addresses = holders.into_iter().take(LINK_NODES_MAX).flat_map(|holder| {
        // A link-local address says nothing without the interface that it is on.
        let global = |at: &&SocketAddr| match at.ip() {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        let places = holder.addresses.iter().filter(global);
        let places = places.take(LINK_ADDRESSES_PER_NODE_MAX);
        places.map(|at| NodeAddress {
            id: holder.node,
            host: at.ip().to_string(),
            port: at.port(),
        })
    });
    addresses.collect()
}

/// Given (host, host and port) of everything that the links name.
fn warn_of_loopback(places: &[(&str, String)], console: &Console) {
    let is_loopback = |host: &str| {
        host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    };
    if let Some((_, place)) = places.iter().find(|(host, _)| is_loopback(host)) {
        console.note(&format!(
            "these links name {place}, which works on this machine only; for links that work \
             elsewhere give --tracker an address that others can reach"
        ));
    }
}

#[cfg(test)]
mod tests {
    use qshare_node::content::NodeId;

    use super::*;

    #[test]
    fn links_pin_the_trackers_that_answered_under_the_address_as_written() {
        let id = NodeId([7; 32]);
        let connected = TrackerState::Connected {
            id,
            address: "192.0.2.1:9".parse().unwrap(),
            seen_at: None,
        };
        let trackers = [
            ("tracker.example:9".parse().unwrap(), connected),
            (
                "away:9".parse().unwrap(),
                TrackerState::Away { cause: None },
            ),
        ];
        let pinned = pinned(&trackers);
        assert_eq!(pinned.len(), 1);
        assert_eq!(pinned[0].to_string(), format!("{id}@tracker.example:9"));
    }
}
