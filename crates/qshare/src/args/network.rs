//! How a node of a command takes part in the swarm.

use std::net::SocketAddr;

use clap::Args;

use super::shared::{
    CertsArg, CongestionArg, GroupArg, LanArg, PunchArg, TrackersArg, parse_listen,
};

/// The options of a command that runs a node.
#[derive(Debug, Args)]
pub(crate) struct NetworkArgs {
    #[command(flatten)]
    pub(crate) trackers: TrackersArg,
    /// UDP address to listen on; `[::]` is IPv6 and IPv4, port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:0")]
    #[arg(value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) lan: LanArg,
    #[command(flatten)]
    pub(crate) punch: PunchArg,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) congestion: CongestionArg,
}
