//! Arguments of `qshare share`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_node::content::AssetName;

use super::network::NetworkArgs;
use super::shared::JsonArg;

const HELP: &str = "\
Examples:
  qshare share report.pdf                    print a code and a link; serve until Ctrl-C
  qshare share --once report.pdf             for one receiver, then end
  qshare share photos/                       a whole folder
  qshare share big.iso --tracker HOST        also for receivers on other networks
  qshare share --public notes.txt            list it by its name, as `qshare node` does
  qshare share --json report.pdf             one JSON object a line, for scripts

A share is private: trackers and other nodes learn neither its name nor its content, and only those
who have its code or link can fetch it. A code such as 7-amber-walrus is for typing: it ends with
the command, after 24 hours, or as --once says (which is no copy protection). Whoever has the link can also serve it to others who have it; a link
cannot be taken back. Nothing is copied: the files are read from where they lie. When a file changes,
running receivers are told, and the new content gets a new link; the code leads to the newest.

With --json, the first line of each file is {code, link, id, name, bytes, files}, and events follow.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ShareArgs {
    /// Files and folders to share, from where they lie
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
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

fn parse_name(text: &str) -> Result<AssetName, String> {
    AssetName::from_local(text).map_err(|error| error.to_string())
}
