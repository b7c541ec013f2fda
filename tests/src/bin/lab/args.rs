//! The command line.

use std::time::Duration;

use crate::flash_crowd::FlashCrowdArgs;
use crate::long_pipe::{LongGetArgs, LongPipeArgs};
use crate::nat_cost::{IdleArgs, RelayArgs};
use crate::nat_matrix::{MatrixArgs, MovesArgs};
use clap::{Args, Parser, Subcommand};
use qshare_tests::lab::{HostPlan, Link, Loss, NatKind, Rate, parse_duration};

const TOP_HELP: &str = "\
Examples:
  lab run --hosts 2 --rate 100mbit --delay 25ms -- 'on h1 ping -c 3 $h2'
  lab run --host tracker --host a:nat=cone --host b:nat=symmetric,down=20mbit -- ./script.sh
  lab shell --hosts 3 --loss 1%
  lab nats
  lab flash-crowd --leechers 8 --rate 100mbit
  lab nat-matrix --runs 20
  lab long-pipe --rate 1gbit --rtt 100ms --loss 0.1%

It needs iproute2, nftables and (for shaped links) ethtool; root, or user namespaces for
everybody. No packet leaves the machine, and nothing stays behind.";

const NETWORK_HELP: &str = "\
In the command, $h1, $h2, … (or the names given with --host) are the hosts' addresses, $HOSTS all
names, and `on NAME COMMAND…` runs something on a host. A single argument is a script for sh.

Rates hold for each direction of each host's link; delay, jitter and loss meet every packet once,
so that a round trip takes twice the delay.

A --host is NAME[:KEY=VALUE[,KEY=VALUE]…]. Keys: nat=open|cone|symmetric|double, same=NAME (behind
that host's router), rate, up, down, queue, delay, jitter, loss, and ipv6 (no value: also behind a
NAT). What is not said there is taken from the options.";

/// A network on this machine: hosts, shaped links, delay, loss, NATs
#[derive(Debug, Parser)]
#[command(name = "lab", after_help = TOP_HELP, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a network, run a command in the middle of it, and take it apart
    Run(RunArgs),
    /// Build a network and open a shell
    Shell(NetworkArgs),
    /// Show how the kinds of NAT behave, and which pairs punch through
    Nats,
    /// Measure how a swarm spreads one file to many at once, beside libtorrent
    FlashCrowd(FlashCrowdArgs),
    /// Find out which way two nodes take to each other behind each pair of NATs (docs/nat.md)
    NatMatrix(MatrixArgs),
    /// Find out how long a transfer stands still when a network changes under it (docs/nat.md)
    NatMoves(MovesArgs),
    /// Measure the relay of last resort between two symmetric NATs (docs/nat.md)
    NatRelay(RelayArgs),
    /// Find out whether a connection on which nothing happens outlives a router's memory
    NatIdle(IdleArgs),
    /// Measure one source far away: QUIC and TCP with several congestion controls, alone or
    /// sharing the bottleneck
    LongPipe(LongPipeArgs),
    /// Measure a whole `qshare get` from one node far away
    LongGet(LongGetArgs),
}

#[derive(Debug, Args)]
#[command(after_help = NETWORK_HELP)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// What to run: a program with its arguments, or a script as one argument
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = NETWORK_HELP)]
pub(crate) struct NetworkArgs {
    /// So many hosts, called h1, h2, …
    #[arg(long, value_name = "N", default_value_t = 0)]
    hosts: usize,
    /// One host; may be repeated
    #[arg(long = "host", value_name = "SPEC")]
    specs: Vec<String>,
    #[command(flatten)]
    link: LinkArgs,
}

#[derive(Debug, Args)]
struct LinkArgs {
    /// Rate of each link, both ways, such as 100mbit
    #[arg(long)]
    rate: Option<Rate>,
    /// Rate towards the network
    #[arg(long, value_name = "RATE")]
    up: Option<Rate>,
    /// Rate from the network
    #[arg(long, value_name = "RATE")]
    down: Option<Rate>,
    /// Length of the queue in front of a rate
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    queue: Duration,
    /// Time that a packet takes from one host to another
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    delay: Duration,
    /// Added to it at random, up to this
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    jitter: Duration,
    /// Share of packets that are lost, such as 0.1%
    #[arg(long, default_value = "0%")]
    loss: Loss,
}

impl NetworkArgs {
    pub(crate) fn plans(&self) -> anyhow::Result<Vec<HostPlan>> {
        let link = self.link.link();
        let numbered =
            (1..=self.hosts).map(|number| Ok(HostPlan::new(format!("h{number}")).link(link)));
        let given = self.specs.iter().map(|spec| parse_host(spec, link));
        let plans: Vec<_> = numbered.chain(given).collect::<anyhow::Result<_>>()?;
        anyhow::ensure!(!plans.is_empty(), "no hosts: say --hosts N or --host NAME");
        Ok(plans)
    }
}

impl LinkArgs {
    fn link(&self) -> Link {
        Link {
            up: self.up.or(self.rate),
            down: self.down.or(self.rate),
            queue: self.queue,
            delay: self.delay,
            jitter: self.jitter,
            loss: self.loss,
            bundle_packets: None,
        }
    }
}

fn parse_host(spec: &str, mut link: Link) -> anyhow::Result<HostPlan> {
    let (name, settings) = spec.split_once(':').unwrap_or((spec, ""));
    let mut plan = HostPlan::new(name);
    let mut shared = None;
    for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        match key {
            "nat" => plan = plan.nat(value.parse::<NatKind>().map_err(anyhow::Error::msg)?),
            "same" => shared = Some(value),
            "ipv6" => plan = plan.ipv6(),
            "rate" => {
                let rate = Some(value.parse()?);
                (link.up, link.down) = (rate, rate);
            }
            "up" => link.up = Some(value.parse()?),
            "down" => link.down = Some(value.parse()?),
            "queue" => link.queue = parse_duration(value)?,
            "delay" => link.delay = parse_duration(value)?,
            "jitter" => link.jitter = parse_duration(value)?,
            "loss" => link.loss = value.parse()?,
            _ => anyhow::bail!("--host {spec}: {key:?} is not a key (see `lab run --help`)"),
        }
    }
    Ok(match shared {
        Some(other) => plan.sharing_router_of(other),
        None => plan.link(link),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_host_says_what_differs() {
        let cone = parse_host("a:nat=cone,up=1mbit,ipv6", Link::default());
        assert!(format!("{:?}", cone.unwrap()).contains("Cone"));
        assert!(parse_host("a", Link::default()).is_ok());
        assert!(parse_host("a:nat=wall", Link::default()).is_err());
        assert!(parse_host("a:colour=red", Link::default()).is_err());
    }
}
