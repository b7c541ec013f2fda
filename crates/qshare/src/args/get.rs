//! Arguments of `qshare get`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_node::content::Hash;

use super::cat::{ByteRange, parse_range};
use super::limits::LimitsArgs;
use super::network::NetworkArgs;
use super::shared::{JsonArg, parse_seconds};

const HELP: &str = "\
Examples:
  qshare get report.pdf
  qshare get 7-zebra-zoo                 the code that `qshare share` printed
  qshare get                             ask for a code or link on the terminal
  qshare get id:3fa9c0 -o report.pdf
  qshare get 'photos/**/*.jpg' -o album/
  qshare get photos/                     a whole folder
  qshare get photos/ --list              what is in it
  qshare get photos/ --include '*.jpg' --exclude raw/ -o album
  qshare get --wait nightly.iso          wait until a node shares it
  qshare get -o - backup.tar | tar x     write to standard output, as `qshare cat` does
  qshare get --seed big.iso              keep serving it until Ctrl-C

What NAME means:
  64 hex digits      a content ID
  id:PREFIX          the start of a content ID
  sha256:HEX         the file with this SHA-256, if a node states it; the digest
                     is checked
  NODEID/NAME        the file that one node shares under this name
  qshare:...         a link from `qshare ls --links`; a link with node addresses
                     (`ls --links --addresses`) needs no tracker
  NUMBER-WORD-WORD   a code, which stands for a link for 24 hours
  name:TEXT          the file named TEXT, whatever TEXT looks like
  ./TEXT             the same, where globs still work; ./- is the file named `-`
  NAME/              a folder, with its empty directories, links and times
  anything else      a name, or a glob (`*` stops at `/`, `**` does not); an exact name wins

Files keep the modification time that all their sources state. A file becomes executable only if
a link or NODEID/NAME says so: a name alone may be anybody's.

An interrupted download keeps what it has fetched; the same command resumes it.
A file or folder that changes at its source meanwhile is fetched in its new version, if it was
asked for by name; by ID or link, and with `-o -`, the command ends with exit code 3.
If one content of a name has a complete holder and others of that name have none, `get NAME`
downloads the complete one and notes the others. Other ambiguous names are an error (code 3).";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct GetArgs {
    /// Names, globs, content IDs, id:PREFIX, NODEID/NAME, links or codes; none asks on the terminal
    // Parsed by `argument.rs`: clap's errors would print a mistyped link in full.
    #[arg(value_name = "NAME")]
    pub(crate) wanted: Vec<String>,
    /// File or directory to write; a directory exists or ends in `/`, `-` is standard output
    /// [default: .]. For a folder, the directory that its files go into [default: the folder's
    /// name]
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// The file of a folder that `qshare cat` writes.
    #[arg(skip)]
    pub(crate) member: Option<String>,
    /// Require this SHA-256 of the file, as `sha256sum` prints it; with another one nothing is kept
    /// (code 4)
    #[arg(long, value_name = "HEX", conflicts_with = "sums", value_parser = parse_sha256)]
    pub(crate) sha256: Option<Hash>,
    /// Fetch the files that FILE lists, or those of them that are named, and require the SHA-256
    /// that it lists for each; FILE is in the form of sha256sum
    #[arg(long, value_name = "FILE")]
    pub(crate) sums: Option<PathBuf>,
    /// With `-o -`: bytes FIRST-LAST, counted from 0, LAST included; FIRST- to the end; -COUNT
    /// from the end
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true)]
    #[arg(value_parser = parse_range)]
    pub(crate) range: Option<ByteRange>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
    /// Keep serving the downloaded files until Ctrl-C or SIGTERM
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) seed: bool,
    /// Of folders, download only what matches this glob (repeatable)
    ///
    /// A glob without `/` means a file or directory at any depth, another one a path.
    #[arg(long, value_name = "GLOB", action = clap::ArgAction::Append)]
    pub(crate) include: Vec<String>,
    /// Of folders, leave out what matches this glob (repeatable)
    #[arg(long, value_name = "GLOB", action = clap::ArgAction::Append)]
    pub(crate) exclude: Vec<String>,
    /// Print what the folder holds, without downloading it
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) list: bool,
    /// Overwrite existing files of different content
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) force: bool,
    /// Leave the files with the time of their download instead of their modification time
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_times: bool,
    /// Make no file executable
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_exec: bool,
    /// Report success before the files would survive a power cut
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_sync: bool,
    /// Keep retrying for SECONDS (default: forever) until a tracker, the name and a source are
    /// available
    #[arg(long, value_name = "SECONDS")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = FOREVER)]
    #[arg(value_parser = parse_wait)]
    pub(crate) wait: Option<Wait>,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

/// How long `get --wait` retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// This long.
    For(Duration),
    /// Until the files are available.
    Forever,
}

/// The value of `--wait` without a number.
pub(super) const FOREVER: &str = "forever";

pub(super) fn parse_sha256(text: &str) -> Result<Hash, &'static str> {
    let digits = text.to_ascii_lowercase();
    digits.parse().map_err(|_| "give 64 hex digits")
}

pub(super) fn parse_wait(text: &str) -> Result<Wait, String> {
    if text == FOREVER {
        return Ok(Wait::Forever);
    }
    match parse_seconds(text) {
        Ok(time) => Ok(Wait::For(time)),
        Err(_) => Err("give a number of seconds, or --wait alone to retry forever".into()),
    }
}
