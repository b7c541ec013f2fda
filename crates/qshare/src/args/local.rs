//! Arguments of the commands that need no network.

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand};
use qshare_node::content::TrackerAddress;

use super::shared::{CertsArg, JsonArg};

const HASH_HELP: &str = "\
`qshare get` and `qshare ls` identify a file by its content ID. It is NOT what sha256sum
prints: it is SHA-256 over the file's length and the root of its hash tree. The root equals the
`pieces root` of BitTorrent v2 (BEP 52).

Examples:
  qshare hash big.iso
  qshare hash --json *.iso | jq -r .content";

const ID_HELP: &str = "\
Examples:
  qshare id
  qshare id --json | jq -r .node
  qshare id --certs ./tracker-identity

A tracker ID pins a tracker: --tracker TRACKERID@HOST:PORT.";

const FORGET_HELP: &str = "\
Examples:
  qshare forget tracker.example
  qshare forget 192.0.2.7:7000

qshare remembers the key of a tracker at the first contact and refuses (code 7) a tracker whose key
differs later. Run this if the tracker was set up anew; its key is remembered again on next use.";

const GROUP_HELP: &str = "\
Examples:
  qshare group new team.group
  qshare tracker --group team.group
  qshare node --group team.group

Anyone who has the group file is a member of the group. Send it over a channel that you trust.";

const DEMO_HELP: &str = "\
Examples:
  qshare demo
  qshare demo --size 512

The demo starts a tracker, a node that shares all files, two nodes whose downloads were interrupted,
and a fourth node that downloads from all of them while the first one is killed. Each is a separate
process of this program, on loopback, in a temporary directory that is removed at the end.";

#[derive(Debug, Args)]
#[command(after_help = HASH_HELP)]
pub(crate) struct HashArgs {
    /// Files to hash
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print the plain SHA-256 of the bytes, too, as sha256sum does
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) sha256: bool,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = ID_HELP)]
pub(crate) struct IdArgs {
    #[command(flatten)]
    pub(crate) certs: CertsArg,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

#[derive(Debug, Args)]
#[command(after_help = FORGET_HELP)]
pub(crate) struct ForgetArgs {
    /// The tracker, written as for --tracker
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

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Write a new secret into FILE, which must not exist
    New {
        /// The file to create
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// Size of the file that the nodes exchange, in MiB; at least 128, because a smaller download
    /// completes before it can be interrupted
    #[arg(long = "size", value_name = "MIB", default_value_t = 192)]
    #[arg(value_parser = clap::value_parser!(u64).range(128..=65536))]
    pub(crate) size_mib: u64,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  qshare completions bash > ~/.local/share/bash-completion/completions/qshare
  qshare completions zsh > ~/.zfunc/_qshare
  qshare completions fish > ~/.config/fish/completions/qshare.fish";

const MAN_HELP: &str = "\
Examples:
  qshare man ~/.local/share/man/man1
  qshare man ./man && man ./man/qshare-get.1

Writes qshare.1 and a page for each command.";

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
pub(crate) struct ManArgs {
    /// Directory for the pages; created if missing
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
