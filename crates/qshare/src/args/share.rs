//! Arguments of `qshare share`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_node::content::{AssetName, NodeId};

use super::limits::LimitsArgs;
use super::network::NetworkArgs;
use super::shared::{JsonArg, parse_listen};

const HELP: &str = "\
Examples:
  qshare share report.pdf                    print a code and a link; serve until Ctrl-C
  qshare share --foreground report.pdf       the same, also while `qshare node` runs
  qshare share --once report.pdf             for one receiver, then end
  qshare share photos/                       a whole folder
  qshare share big.iso --tracker HOST        also for receivers on other networks
  qshare share --public notes.txt            list it by its name, as `qshare node` does
  tar c photos | qshare share - --name photos.tar
  qshare share --http 0.0.0.0:0 photos/      also for browsers, at an address that is printed
  qshare share --json report.pdf             one JSON object a line, for scripts

A share is private: trackers and other nodes learn neither its name nor its content, and only those
who have its code or link can fetch it. A code such as 7-amber-walrus is for typing: it ends with
the share, after 24 hours, or as --once says (which is no copy protection). Whoever has the link can
also serve it to others who have it; a link cannot be taken back.

While a node of yours runs with these trackers and in this group, the command hands the path to it
and returns: the node goes on sharing, also after its restart, until `qshare unshare`. Otherwise it
serves until Ctrl-C. Nothing is copied: the files are read from where they lie. When a file changes,
running receivers are told, and the new content gets a new link; the code leads to the newest.

With --json, the first line of each file is {code, link, id, name, bytes, files}, and events follow.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ShareArgs {
    /// Files and folders to share, from where they lie; - reads standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Name for receivers [default: the file's own]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) name: Option<AssetName>,
    /// List the files by name for everybody, instead of sharing them privately
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) public: bool,
    /// Print no code, only the link
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_code: bool,
    /// End the code after N uses (default: 1), and the share once those receivers have everything
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1", conflicts_with = "no_code")]
    pub(crate) once: Option<NonZeroU32>,
    /// Print the link as a QR code even if the terminal is small
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) qr: bool,
    /// Share in the foreground until Ctrl-C, even if a node is running
    #[arg(long, short = 'F', value_parser = FalseyValueParser::new())]
    pub(crate) foreground: bool,
    /// Also serve browsers without qshare at an address that is printed, in the foreground
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_listen)]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    /// ID of the running node that is to share, if several run
    #[arg(long = "node", value_name = "NODEID", conflicts_with = "dir")]
    pub(crate) node: Option<NodeId>,
    /// Control socket of the node that is to share, if it was started with --socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["node", "dir"])]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// Returns the address that stands for any free port.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([0u16; 8], 0))
}

fn parse_name(text: &str) -> Result<AssetName, String> {
    AssetName::from_local(text).map_err(|error| error.to_string())
}
