//! `qshare ls`: list the files that can be downloaded.

use std::io::{IsTerminal, stdout};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use qshare_node::content::{Link, NodeAddress, Query};
use qshare_node::{FoundFile, Node, NodeConfig};
use tokio_util::sync::CancellationToken;

use super::run_on_network;
use crate::args::LsArgs;
use crate::argument::{Wanted, found_argument, parse_listed};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};
use crate::output::{self, ListedJson, TruncatedJson};
use crate::sharing::pinned;

/// Deadline for the first answer of a tracker. With start and goodbye, a command without an answer
/// fails within five seconds.
pub(super) const TRACKER_PATIENCE: Duration = Duration::from_millis(4000);
/// Maximum number of files in a listing: some 500 MB of memory. More need narrower globs.
pub(crate) const FILES_MAX: usize = 1_000_000;
/// Deadline for a whole lookup of `get` and the prompt; `ls` has --timeout.
pub(crate) const LISTING_MAX: Duration = Duration::from_secs(60);
/// Maximum numbers of nodes in a link and of addresses of each: people copy links by hand.
const LINK_NODES_MAX: usize = 3;
const LINK_ADDRESSES_PER_NODE_MAX: usize = 2;
/// Deadline for closing the connections.
const GOODBYE_MAX: Duration = Duration::from_millis(200);

pub(crate) fn run(args: LsArgs, console: &Console) -> Result<(), Failure> {
    let config = args.node_config()?;
    run_on_network(|stop| list(args, config, console, stop))
}

async fn list(
    args: LsArgs,
    config: NodeConfig,
    console: &Console,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let node = Node::start(config).await?;
    let wanted = match &args.query {
        None => None,
        Some(text) => Some(
            parse_listed(text).map_err(|error| messages::argument(text, &error, Reader::Shell))?,
        ),
    };
    let query = wanted.as_ref().and_then(Wanted::query);
    let query = query.unwrap_or(Query::Name("**".into()));
    let found = tokio::select! {
        found = node.find_all(&query, FILES_MAX, TRACKER_PATIENCE, args.timeout) => {
            found.map_err(|error| Failure::from(&error))
        }
        () = stop.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        lost = node.failure() => Err(lost.into()),
    };
    let trackers = node.status().trackers;
    node.shutdown(GOODBYE_MAX).await;
    let found = found?;
    if found.files.is_empty() {
        return match &args.query {
            Some(query) => Err(Failure::new(
                Exit::NotFound,
                messages::not_found(&query.to_string(), &found.near),
            )),
            None => {
                console.note("no files are shared yet; share a directory with `qshare node`");
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
        let of_one_node = matches!(query, Query::OfNode(..));
        let mut places: Vec<(&str, String)> = trackers
            .iter()
            .map(|tracker| (tracker.host.as_str(), tracker.host_port()))
            .collect();
        // A link without a tracker works only with the addresses of nodes.
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
                key: None,
                modified_ns: file.metadata.modified_ns,
                // Strangers do not decide that a link makes a file executable.
                executable: of_one_node && file.metadata.executable,
                folder: None,
            });
            let link = link.map(|link| link.to_string());
            match (args.json.on, link) {
                (false, Some(link)) => console.result(&link)?,
                (_, link) => console.json(&ListedJson::new(file, link))?,
            }
        }
    } else {
        print_table(&found.files, console)?;
    }
    if found.truncated {
        if args.json.on {
            console.json(&TruncatedJson { truncated: true })?;
        }
        return Err(Failure::new(
            Exit::Failed,
            messages::listing_truncated(found.files.len()),
        ));
    }
    Ok(())
}

/// Prints the table of `ls`, with headings on a terminal.
pub(super) fn print_table(files: &[FoundFile], console: &Console) -> Result<(), Failure> {
    let heading = ["NAME", "SIZE", "HOLDERS", "ID"].map(String::from);
    let heading = stdout().is_terminal().then_some(heading);
    let rows = files.iter().map(|file| {
        [
            found_argument(file),
            output::bytes(file.info.length),
            match file.partial {
                0 => file.complete.to_string(),
                partial if file.complete == 0 => format!("{partial} partial, incomplete"),
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

/// Returns addresses of some holders, complete ones first.
fn addresses(file: &FoundFile) -> Vec<NodeAddress> {
    let mut holders: Vec<_> = file.holders.iter().collect();
    holders.sort_by_key(|holder| !holder.complete);
    let addresses = holders.into_iter().take(LINK_NODES_MAX).flat_map(|holder| {
        // A link-local address is of no use without its interface.
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

/// Warns of links that work on this machine only. `places` has (host, host and port) of every
/// address in the links.
fn warn_of_loopback(places: &[(&str, String)], console: &Console) {
    let is_loopback = |host: &str| {
        host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback())
    };
    if let Some((_, place)) = places.iter().find(|(host, _)| is_loopback(host)) {
        console.note(&format!(
            "these links contain {place}, which works on this machine only; for links that work \
             elsewhere, give --tracker an address that other machines can reach"
        ));
    }
}
