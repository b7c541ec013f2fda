//! Arguments of the commands on a running node.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_node::RateLimit;
use qshare_node::content::NodeId;

use super::shared::{CertsArg, JsonArg};
use crate::api::objects::PriorityName;

/// Which running node a command is for.
#[derive(Debug, Args)]
pub(crate) struct ControlArg {
    /// ID of the node, if several run
    #[arg(long = "node", value_name = "NODEID", conflicts_with = "dir")]
    pub(crate) node: Option<NodeId>,
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    /// Control socket of the node, if it was started with --socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["node", "dir"])]
    pub(crate) socket: Option<PathBuf>,
}

const STATUS_HELP: &str = "\
Examples:
  qshare status
  qshare status --watch                    a live table; Ctrl-C ends it
  qshare status big.iso                    with the sources of this download
  qshare status --json | jq -r '.downloads[] | select(.stage == \"failed\").name'
  qshare status --watch --json             one line for each event (docs/api.md)

It asks the node that `qshare node` started on this machine.";

#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub(crate) struct StatusArgs {
    /// Downloads to describe in detail: name, content ID or id:PREFIX
    #[arg(value_name = "DOWNLOAD", conflicts_with = "watch")]
    pub(crate) downloads: Vec<String>,
    /// Keep showing the status as it changes
    #[arg(long, short = 'w', value_parser = FalseyValueParser::new())]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) control: ControlArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

const ADD_HELP: &str = "\
Examples:
  qshare add report.pdf
  qshare add 'qshare:1f0c…,s=1048576,r=…'  a link; quote it
  qshare add photos/                       the folder, as one download
  qshare add --exclude '*.tmp' photos/
  qshare add 7-amber-walrus                a code; of a file or a folder
  qshare add --paused big.iso              `qshare resume big.iso` starts it

The running node downloads into its directory, and continues when this command has returned.";

#[derive(Debug, Args)]
#[command(after_help = ADD_HELP)]
pub(crate) struct AddArgs {
    /// Files or folders to download: names, FOLDER/, globs, content IDs, id:PREFIX, NODEID/NAME,
    /// links or codes
    #[arg(required = true, value_name = "LINK|CODE|NAME")]
    pub(crate) wanted: Vec<String>,
    /// Save the file or folder under this name; with one only
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Download only these entries of a folder (globs)
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Leave these entries of a folder out (globs)
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Add it without starting it
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) paused: bool,
    /// Replace a different file of that name
    #[arg(long, short = 'f', value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) control: ControlArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

const PAUSE_HELP: &str = "\
Examples:
  qshare pause big.iso
  qshare pause --all

A paused download keeps what was fetched. It stays paused when the node is restarted.";

const RESUME_HELP: &str = "\
Examples:
  qshare resume big.iso
  qshare resume --all                      paused and failed downloads";

/// Downloads that are named, or all.
#[derive(Debug, Args)]
pub(crate) struct WhichArg {
    /// Downloads: name, content ID or id:PREFIX
    #[arg(required_unless_present = "all", value_name = "DOWNLOAD")]
    pub(crate) downloads: Vec<String>,
    /// All downloads
    #[arg(long, conflicts_with = "downloads", value_parser = FalseyValueParser::new())]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PAUSE_HELP)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) which: WhichArg,
    #[command(flatten)]
    pub(crate) control: ControlArg,
}

#[derive(Debug, Args)]
#[command(after_help = RESUME_HELP)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) which: WhichArg,
    #[command(flatten)]
    pub(crate) control: ControlArg,
}

const REMOVE_HELP: &str = "\
Examples:
  qshare remove big.iso                    forget it; adding it again resumes from what is there
  qshare remove --files big.iso            delete what was fetched, too

Of a complete download, --files deletes the file, unless it was changed since.";

#[derive(Debug, Args)]
#[command(after_help = REMOVE_HELP)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) which: WhichArg,
    /// Delete what was fetched, too
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) files: bool,
    #[command(flatten)]
    pub(crate) control: ControlArg,
}

const LIMIT_HELP: &str = "\
Examples:
  qshare limit                             print the limits of the node
  qshare limit --up 2MB --down 80Mbit      change them until the node stops
  qshare limit --up 0                      no limit
  qshare limit --down 500KB big.iso        of one download
  qshare limit --priority high urgent.zip

Limits of the node are set for good with --limit-up and --limit-down of `qshare node`, or in the
configuration file. Limit and priority of a download stay with it.";

#[derive(Debug, Args)]
#[command(after_help = LIMIT_HELP)]
pub(crate) struct LimitArgs {
    /// Downloads to change: name, content ID or id:PREFIX [default: the node itself]
    #[arg(value_name = "DOWNLOAD")]
    pub(crate) downloads: Vec<String>,
    /// Limit on sending per second, as 10MB (10^6 bytes), 10MiB or 80Mbit; 0 for none
    #[arg(long, value_name = "RATE")]
    pub(crate) up: Option<RateLimit>,
    /// Limit on receiving per second; 0 for none
    #[arg(long, value_name = "RATE")]
    pub(crate) down: Option<RateLimit>,
    /// Priority of the downloads
    #[arg(long, value_name = "PRIORITY")]
    pub(crate) priority: Option<PriorityName>,
    #[command(flatten)]
    pub(crate) control: ControlArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

const UNSHARE_HELP: &str = "\
Examples:
  qshare unshare report.pdf                by name
  qshare unshare 7-amber-walrus            by its code
  qshare unshare ./photos                  by its path
  qshare unshare --all

It ends what `qshare share` handed to the running node. Files in the node's directory end when they
are moved away. Whoever has fetched the share, or is fetching it from others, keeps it.";

#[derive(Debug, Args)]
#[command(after_help = UNSHARE_HELP)]
pub(crate) struct UnshareArgs {
    /// Shares: name, path, code, content ID, id:PREFIX or share ID
    #[arg(required_unless_present = "all", value_name = "SHARE")]
    pub(crate) shares: Vec<String>,
    /// All shares that were handed over
    #[arg(long, conflicts_with = "shares", value_parser = FalseyValueParser::new())]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) control: ControlArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

const STOP_HELP: &str = "\
Examples:
  qshare stop
  qshare stop --certs ./certs-2

The node stops as on Ctrl-C; unfinished downloads resume at its next start. The command returns when
it has stopped.";

#[derive(Debug, Args)]
#[command(after_help = STOP_HELP)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) control: ControlArg,
}
