//! Arguments of `qshare ls`.

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::shared::{CertsArg, GroupArg, JsonArg, LanArg, TrackersArg, parse_seconds};

const HELP: &str = "\
Examples:
  qshare ls
  qshare ls 'builds/**'
  qshare ls --links '*.iso'      links that others can give to `qshare get`
  qshare ls --links --addresses '*.iso'     links that need no tracker
  qshare ls --json | jq -r .name

`qshare get` accepts every name as it is printed. A name that would be read as something else (as
64 hex digits, id:..., qshare:..., or with a leading dash) is printed as name:NAME, in JSON too.
A content without a complete holder is marked `incomplete`: it cannot be downloaded completely yet.

A listing that ends early (at --timeout, or after 1,000,000 files) prints a line on stderr, ends
with the object {\"truncated\":true} with --json, and exits with code 1.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct LsArgs {
    /// Name, glob, content ID, id:PREFIX or NODEID/NAME [default: all files]
    #[arg(value_name = "GLOB")]
    pub(crate) query: Option<String>,
    /// Print links instead of a table
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) links: bool,
    /// Include holders' addresses in links, which then work without a tracker while these last
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) addresses: bool,
    /// Maximum time for the whole listing, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub(crate) timeout: Duration,
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
