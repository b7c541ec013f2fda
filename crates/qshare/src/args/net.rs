//! Arguments of `qshare net`.

use clap::Args;

use super::shared::{CertsArg, GroupArg, JsonArg, PortMappingArg, TrackersArg};

const HELP: &str = "\
Examples:
  qshare net --tracker tracker.example
  qshare net --json | jq -r .ipv4.kind

The tracker reports the address and port that it sees this machine at, over IPv4 and over IPv6, and
sends probes from a second port. From these qshare concludes the NAT type and the filtering:
  open        no NAT, unsolicited packets get in
  firewall    no NAT, only answers get in
  full-cone   NAT; the same port for every destination, unsolicited packets get in
  cone        NAT; the same port for every destination, only answers get in (most home routers)
  symmetric   NAT; a different port for each destination
  unknown     no conclusion; the reason is printed
qshare also asks the router for a port mapping (PCP, NAT-PMP or UPnP), has the tracker probe it,
and removes it again. This takes some seconds. A tracker on this machine cannot see the NAT.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct NetArgs {
    #[command(flatten)]
    pub(crate) trackers: TrackersArg,
    #[command(flatten)]
    pub(crate) port_mapping: PortMappingArg,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}
