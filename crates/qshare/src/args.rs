//! What may be written on the command line, and the help that teaches it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};
use qshare_node::Congestion;
use qshare_node::content::{Link, Query, TrackerAddress};

const TOP_HELP: &str = "\
Examples:
  qshare tracker                      on one machine: who has what
  qshare node                         on every machine: share ./assets, ask for names to download
  qshare node --tracker HOST:65000    the same, with the tracker on another machine
  qshare ls                           what can be downloaded
  qshare get report.pdf               download it into this directory
  qshare get 'photos/**' -o album/    download all that match

Every option can also be set in the environment: --tracker as QSHARE_TRACKER, --no-sync as
QSHARE_NO_SYNC, and so on.

Exit codes: 0 done, 1 failed, 2 usage, 3 not found or ambiguous, 4 verification failed
everywhere, 5 tracker or peers unreachable, 6 local disk, 7 tracker key changed or group
refused, 130 interrupted (the same command resumes).";

const TRACKER_HELP: &str = "\
Examples:
  qshare tracker
  qshare tracker --listen '[::]:7000' --certs ./tracker-identity
  qshare group new team.group && qshare tracker --group team.group

The tracker knows who holds what; the files' bytes go from node to node.";

const NODE_HELP: &str = "\
Examples:
  qshare node
  qshare node --assets /data/builds --tracker tracker.example:65000
  qshare node --listen '[::]:0' --no-prompt --json     as a service; prints {id, listen}

At the prompt:
  NAME         download a file by name, id, id:PREFIX, glob or link (the whole line is the name)
  get NAME     the same, for a file that is called like one of these commands
  ls [GLOB]    what can be downloaded
  status       what is shared, who is connected, what the downloads wait for and of whom,
               as one JSON object with --json
  help         these commands
  q            quit; unfinished downloads go on at the next start";

const GET_HELP: &str = "\
Examples:
  qshare get report.pdf
  qshare get id:3fa9c0 -o report.pdf
  qshare get 'photos/**/*.jpg' -o album/
  qshare get --wait nightly.iso          wait until somebody shares it
  qshare get --seed big.iso              and go on serving it until Ctrl-C

NAME may be an exact name, a glob (`*` stops at `/`, `**` does not), 64 hex digits (a content
id), id:PREFIX, NODEID/NAME, or a link from `qshare ls --links`. An exact name wins over a glob.
A link that names nodes (`ls --links --addresses`) needs no tracker.
What was fetched is kept when a download is interrupted; the same command resumes it.";

const LS_HELP: &str = "\
Examples:
  qshare ls
  qshare ls 'builds/**'
  qshare ls --links '*.iso'      links that others can give to `qshare get`
  qshare ls --links --addresses '*.iso'     links that need no tracker
  qshare ls --json | jq -r .name";

const NET_HELP: &str = "\
Examples:
  qshare net --tracker tracker.example
  qshare net --json | jq -r .ipv4.kind

The tracker says where it sees this machine, for IPv4 and IPv6 each, and knocks from a second port.
That tells whether a router gives each destination another port, and what it lets in:
  open        nothing in between, everybody gets in
  firewall    no router, but only answers get in
  full-cone   a router; one port for all, everybody gets in
  cone        a router; one port for all, only answers get in (most home routers)
  symmetric   a router; another port for each destination
  unknown     it cannot be told, and why
The router is also asked for a port (by PCP, NAT-PMP or UPnP), which is tried and given back.
It takes some seconds. A tracker on this machine sees nothing of the way to others.";

const HASH_HELP: &str = "\
The content id is what `qshare get` and `qshare ls` know a file by. It is NOT what sha256sum
prints: it is SHA-256 over the file's length and the root of its hash tree. The root is the
`pieces root` of BitTorrent v2 (BEP 52).

Examples:
  qshare hash big.iso
  qshare hash --json *.iso | jq -r .content";

const GROUP_HELP: &str = "\
Examples:
  qshare group new team.group
  qshare tracker --group team.group
  qshare node --group team.group

Whoever has the file belongs to the group: hand it on by a way that you trust.";

const DEMO_HELP: &str = "\
A tracker, a node that shares everything, two nodes whose downloads were interrupted, and a fourth
that downloads from all of them while the first is killed: separate processes of this program, on
loopback, in a temporary directory. Nothing is left behind.";

/// Share files straight from your own machines: encrypted, verified, from everyone who has them
#[derive(Debug, Parser)]
#[command(name = "qshare", version, after_help = TOP_HELP, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command has comes after its own options.
const LAST: usize = 100;

/// How much is said on stderr.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verbosity {
    /// Say nothing but errors: no progress, no notes
    #[arg(short, long, global = true, env = "QSHARE_QUIET", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true, display_order = LAST)]
    pub(crate) quiet: bool,
    /// Log what happens: -v facts, -vv deviations, -vvv every chunk
    #[arg(short, long, global = true, env = "QSHARE_VERBOSE", action = ArgAction::Count)]
    #[arg(hide_env_values = true, display_order = LAST)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep track of who holds what
    Tracker(TrackerArgs),
    /// Share a directory, and download at the prompt
    Node(NodeArgs),
    /// Download files
    Get(GetArgs),
    /// List what can be downloaded
    Ls(LsArgs),
    /// Tell what lies between this machine and others: address, router, ports
    Net(NetArgs),
    /// Print content ids of local files, without sharing anything
    Hash(HashArgs),
    /// Print who this machine is to others
    Id(IdArgs),
    /// Drop a remembered tracker key
    Forget(ForgetArgs),
    /// Make the secret of a private group
    Group(GroupArgs),
    /// Watch a swarm of several nodes on this machine, from start to checked end
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
#[command(after_help = TRACKER_HELP)]
pub(crate) struct TrackerArgs {
    /// UDP address to listen on; `[::]` is IPv6 and IPv4, port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "[::]:65000",
        env = "QSHARE_LISTEN"
    )]
    #[arg(value_parser = parse_listen, hide_env_values = true)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) relay: RelayArgs,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// What a tracker carries between nodes that reach each other in no other way.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// Carry no packets between nodes that cannot reach each other
    #[arg(long, env = "QSHARE_NO_RELAY", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) no_relay: bool,
    /// Mbit/s that all of them together may send through the relay
    #[arg(
        long,
        value_name = "MBIT",
        default_value_t = 100,
        env = "QSHARE_RELAY_MBIT"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000), hide_env_values = true)]
    pub(crate) relay_mbit: u32,
    /// Mbit/s that one node may send through the relay
    #[arg(
        long,
        value_name = "MBIT",
        default_value_t = 40,
        env = "QSHARE_RELAY_CLIENT_MBIT"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000), hide_env_values = true)]
    pub(crate) relay_client_mbit: u32,
    /// Nodes that may use the relay at once
    #[arg(
        long,
        value_name = "NODES",
        default_value_t = 1_000,
        env = "QSHARE_RELAY_CLIENTS"
    )]
    #[arg(hide_env_values = true)]
    pub(crate) relay_clients: usize,
    /// Pairs of nodes that may be joined by the relay at once
    #[arg(
        long,
        value_name = "PAIRS",
        default_value_t = 4_000,
        env = "QSHARE_RELAY_PAIRS"
    )]
    #[arg(hide_env_values = true)]
    pub(crate) relay_pairs: usize,
}

#[derive(Debug, Args)]
#[command(after_help = NODE_HELP)]
pub(crate) struct NodeArgs {
    /// Directory to share, with all beneath it; made if it is not there
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./assets",
        env = "QSHARE_ASSETS"
    )]
    #[arg(hide_env_values = true)]
    pub(crate) assets: PathBuf,
    /// Directory for downloads, which are shared once complete; made if it is not there
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./downloads",
        env = "QSHARE_DOWNLOADS"
    )]
    #[arg(hide_env_values = true)]
    pub(crate) downloads: PathBuf,
    #[command(flatten)]
    pub(crate) trackers: TrackersArg,
    /// UDP address to listen on; `[::]` is IPv6 and IPv4, port 0 picks a free one
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "[::]:64500",
        env = "QSHARE_LISTEN"
    )]
    #[arg(value_parser = parse_listen, hide_env_values = true)]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) lan: LanArg,
    #[command(flatten)]
    pub(crate) punch: PunchArg,
    #[command(flatten)]
    pub(crate) port_mapping: PortMappingArg,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) congestion: CongestionArg,
    /// Do not ask for names; run until Ctrl-C or SIGTERM
    #[arg(long, env = "QSHARE_NO_PROMPT", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) no_prompt: bool,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = GET_HELP)]
pub(crate) struct GetArgs {
    /// Names, globs, content ids, id:PREFIX, NODEID/NAME or links
    #[arg(required = true, value_name = "NAME", value_parser = parse_wanted)]
    pub(crate) wanted: Vec<Wanted>,
    /// File to write, or a directory (existing, or ending in `/`); else the current directory
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "QSHARE_OUTPUT",
        hide_env_values = true
    )]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trackers: TrackersArg,
    /// UDP address to listen on
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "[::]:0",
        env = "QSHARE_LISTEN"
    )]
    #[arg(value_parser = parse_listen, hide_env_values = true)]
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
    /// Go on serving what was downloaded until Ctrl-C or SIGTERM
    #[arg(long, env = "QSHARE_SEED", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) seed: bool,
    /// Overwrite files of other content
    #[arg(long, env = "QSHARE_FORCE", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) force: bool,
    /// Do not wait until the files are safe from a power cut
    #[arg(long, env = "QSHARE_NO_SYNC", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) no_sync: bool,
    /// Wait so many seconds (without a number: for ever) for a tracker, for the name and for
    /// somebody who has it
    #[arg(
        long,
        value_name = "SECONDS",
        env = "QSHARE_WAIT",
        hide_env_values = true
    )]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "ever")]
    #[arg(value_parser = parse_wait)]
    pub(crate) wait: Option<Wait>,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = LS_HELP)]
pub(crate) struct LsArgs {
    /// Name, glob, content id, id:PREFIX or NODEID/NAME; else everything
    #[arg(value_name = "GLOB", value_parser = parse_query)]
    pub(crate) query: Option<Query>,
    /// Print links instead of a table
    #[arg(long, env = "QSHARE_LINKS", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) links: bool,
    /// In links, name holders' addresses, too: they work without the tracker while these last
    #[arg(long, env = "QSHARE_ADDRESSES", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) addresses: bool,
    #[command(flatten)]
    pub(crate) trackers: TrackersArg,
    #[command(flatten)]
    pub(crate) lan: LanArg,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) group: GroupArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = NET_HELP)]
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

#[derive(Debug, Args)]
#[command(after_help = HASH_HELP)]
pub(crate) struct HashArgs {
    /// Files to hash
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The tracker, as it is given to --tracker
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) tracker: TrackerAddress,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
}

#[derive(Debug, Args)]
#[command(after_help = GROUP_HELP)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    pub(crate) command: GroupCommand,
}

#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// Size of the file that the nodes exchange, in MiB (128 or more: a smaller one is there before
    /// it can be interrupted)
    #[arg(
        long = "size",
        value_name = "MIB",
        default_value_t = 192,
        env = "QSHARE_SIZE"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(128..=65536), hide_env_values = true)]
    pub(crate) size_mib: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Write a new secret into FILE, which must not exist
    New {
        /// The file to make
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Where identities are.
#[derive(Debug, Args)]
pub(crate) struct CertsArg {
    /// Directory of the identities and of remembered tracker keys; else ./certs if it contains
    /// .qshare, else the user's data directory
    #[arg(
        long = "certs",
        value_name = "DIR",
        env = "QSHARE_CERTS",
        hide_env_values = true
    )]
    pub(crate) dir: Option<PathBuf>,
}

/// The private group.
#[derive(Debug, Args)]
pub(crate) struct GroupArg {
    /// Private group: the file that `qshare group new` made
    #[arg(
        long = "group",
        value_name = "FILE",
        env = "QSHARE_GROUP",
        hide_env_values = true
    )]
    pub(crate) file: Option<PathBuf>,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct TrackersArg {
    /// Tracker to ask, HOST[:PORT] or TRACKERID@HOST[:PORT]; may be repeated [default:
    /// 127.0.0.1:65000]
    #[arg(long = "tracker", value_name = "HOST:PORT", env = "QSHARE_TRACKER")]
    #[arg(value_delimiter = ',', hide_env_values = true)]
    pub(crate) given: Vec<TrackerAddress>,
}

/// The local network.
#[derive(Debug, Args)]
pub(crate) struct LanArg {
    /// Neither look for nodes on this network (by mDNS) nor be found by them
    #[arg(long = "no-lan", env = "QSHARE_NO_LAN", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) off: bool,
}

/// Difficult routers.
#[derive(Debug, Args)]
pub(crate) struct PunchArg {
    /// Where one side's router takes another port for each destination, find it by some 2,000 small
    /// probes within 1.5 s, and 256 sockets, rather than use the relay; the other side must
    /// want it, too. Some networks take that for an attack
    #[arg(long = "punch-hard", env = "QSHARE_PUNCH_HARD", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) hard: bool,
}

/// The router.
#[derive(Debug, Args)]
pub(crate) struct PortMappingArg {
    /// Do not ask the router to let others in (by PCP, NAT-PMP or UPnP)
    #[arg(
        long = "no-port-mapping",
        env = "QSHARE_NO_PORT_MAPPING",
        value_parser = FalseyValueParser::new()
    )]
    #[arg(hide_env_values = true)]
    pub(crate) no_port_mapping: bool,
}

/// How fast to send.
#[derive(Debug, Args)]
pub(crate) struct CongestionArg {
    /// Congestion control of what is sent: auto (bbr3 on long paths, else cubic), cubic, bbr or bbr3
    #[arg(
        long = "congestion",
        value_name = "NAME",
        default_value_t,
        env = "QSHARE_CONGESTION"
    )]
    #[arg(hide_short_help = true, hide_env_values = true)]
    pub(crate) congestion: Congestion,
}

/// For machines.
#[derive(Debug, Args)]
pub(crate) struct JsonArg {
    /// Print results as JSON, one object a line
    #[arg(long = "json", env = "QSHARE_JSON", value_parser = FalseyValueParser::new())]
    #[arg(hide_env_values = true)]
    pub(crate) on: bool,
}

/// One thing that `get` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Looked up with the trackers.
    Query(Query),
    /// Says itself what the content is.
    Link(Box<Link>),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Query(query) => query.fmt(f),
            Wanted::Link(link) => link.fmt(f),
        }
    }
}

/// How long `get --wait` waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// This long.
    For(Duration),
    /// Until it is there.
    ForEver,
}

/// Reads a name, glob, id, prefix or link.
pub(crate) fn parse_wanted(text: &str) -> Result<Wanted, String> {
    if Link::is_link(text) {
        let link = text
            .parse()
            .map_err(|error: qshare_node::content::LinkParseError| error.to_string())?;
        return Ok(Wanted::Link(Box::new(link)));
    }
    parse_query(text).map(Wanted::Query)
}

fn parse_query(text: &str) -> Result<Query, String> {
    text.parse()
        .map_err(|error: qshare_node::content::QueryParseError| error.to_string())
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write ADDRESS:PORT, such as '[::]:64500' or 0.0.0.0:0".to_owned())
}

fn parse_wait(text: &str) -> Result<Wait, String> {
    if text == "ever" {
        return Ok(Wait::ForEver);
    }
    match text.parse() {
        Ok(seconds) => Ok(Wait::For(Duration::from_secs(seconds))),
        Err(_) => Err("write a number of seconds, or --wait alone to wait for ever".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn get(arguments: &[&str]) -> Result<GetArgs, clap::Error> {
        let all = ["qshare", "get"].iter().chain(arguments);
        match Cli::try_parse_from(all)?.command {
            Command::Get(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_reads_the_environment_under_its_own_name() {
        let check = |command: &clap::Command| {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if matches!(long, "help" | "version") {
                    continue;
                }
                let wanted = format!("QSHARE_{}", long.to_uppercase().replace('-', "_"));
                let found = arg.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(wanted.as_str()), "{}", command.get_name());
            }
        };
        let top = Cli::command();
        check(&top);
        top.get_subcommands().for_each(check);
    }

    #[test]
    fn wait_takes_seconds_only_after_an_equals_sign() {
        assert_eq!(get(&["x"]).unwrap().wait, None);
        assert_eq!(
            get(&["--wait=7", "x"]).unwrap().wait,
            Some(Wait::For(Duration::from_secs(7)))
        );
        let ever = get(&["--wait", "7"]).unwrap();
        assert_eq!(ever.wait, Some(Wait::ForEver));
        assert_eq!(ever.wanted[0].to_string(), "7");
        assert!(get(&["--wait=soon", "x"]).is_err());
    }

    #[test]
    fn names_ids_and_links_are_told_apart_and_nonsense_is_a_usage_error() {
        let id = "0a".repeat(32);
        let args = get(&["a/b.txt", &id, "id:3fa9", "**/*.txt"]).unwrap();
        let texts: Vec<String> = args.wanted.iter().map(Wanted::to_string).collect();
        assert_eq!(texts, ["a/b.txt", &id, "id:3fa9", "**/*.txt"]);
        for bad in ["../x", "id:zz", "qshare:nonsense", ""] {
            assert_eq!(get(&[bad]).unwrap_err().exit_code(), 2, "{bad}");
        }
        assert_eq!(get(&[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn several_trackers_may_be_given() {
        let args = get(&["x", "--tracker", "a", "--tracker", "b:7,[::1]:8"]).unwrap();
        let given: Vec<String> = args.trackers.given.iter().map(|t| t.to_string()).collect();
        assert_eq!(given, ["a:65000", "b:7", "[::1]:8"]);
        assert!(get(&["x", "--tracker", "a:b:c"]).is_err());
    }
}
