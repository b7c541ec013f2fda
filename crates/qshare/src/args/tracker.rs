//! Arguments of `qshare tracker`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::registry::RegistryArgs;
use super::shared::{CertsArg, GroupArg, JsonArg, parse_listen};

const HELP: &str = "\
Examples:
  qshare tracker
  qshare tracker --listen '[::]:7000' --certs ./tracker-identity
  qshare group new team.group && qshare tracker --group team.group
  qshare tracker --http 127.0.0.1:9100 --deny banned.txt
  qshare tracker --registry redis://127.0.0.1:6379 --advertise 203.0.113.5:65000

The tracker knows which node has which content. Files travel between nodes, never through the
tracker; only if two nodes cannot reach each other, their encrypted packets pass its relay.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct TrackerArgs {
    /// UDP address to listen on; `[::]` is IPv6 and IPv4, port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:65000")]
    #[arg(value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) relay: RelayArgs,
    /// Let only the nodes whose IDs are in this file announce files; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) allow: Option<PathBuf>,
    /// Refuse the nodes whose IDs are in this file; read again when it changes
    #[arg(long, value_name = "FILE")]
    pub(crate) deny: Option<PathBuf>,
    /// TCP address for the operator: /metrics (Prometheus), /healthz, /readyz and a status page;
    /// unencrypted and without a password
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// The relay for nodes that cannot reach each other directly.
#[derive(Debug, Args)]
#[command(next_help_heading = "Relay")]
pub(crate) struct RelayArgs {
    /// Do not relay packets between nodes that cannot reach each other
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_relay: bool,
    /// Rate limit of the whole relay, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) relay_mbit: u32,
    /// Rate limit of one node at the relay, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 40)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) relay_client_mbit: u32,
    /// Maximum number of nodes at the relay
    #[arg(long, value_name = "NODES", default_value_t = 1_000)]
    pub(crate) relay_clients: usize,
    /// Maximum number of node pairs that the relay connects
    #[arg(long, value_name = "PAIRS", default_value_t = 4_000)]
    pub(crate) relay_pairs: usize,
}
