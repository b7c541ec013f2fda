//! Arguments of `qshare node`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::HttpArgs;
use super::limits::LimitsArgs;
use super::network::NetworkArgs;
use super::shared::{JsonArg, PortMappingArg};

const HELP: &str = "\
Examples:
  qshare node
  qshare node --assets /data/builds --tracker tracker.example:65000
  qshare node --sha256                                 others find files by sha256:HEX
  qshare node --http 127.0.0.1:8080                    with a web page; prints its address
  qshare node --listen '[::]:0' --no-prompt --json     as a service; prints {id, listen}

At the prompt:
  NAME          download a file by name, content ID, id:PREFIX, glob or link; the whole line
                is the name, with the spaces at its ends
  get NAME      the same, for a file that is named like one of these commands
  discard NAME  give up an unfinished download and delete what was fetched
  ls [GLOB]     list the files that can be downloaded
  status        print shares, connections and the state of each download; with --json as one
                JSON object
  help          print these commands
  q             quit; unfinished downloads resume at the next start

Started in the background (`qshare node &`), it serves without a prompt.";

#[derive(Debug, Args)]
// A node that stays has the same port after each start, which routers and firewalls can be told.
#[command(after_help = HELP, mut_arg("listen", |arg| arg.default_value("[::]:64500")))]
pub(crate) struct NodeArgs {
    /// Directory to share, including subdirectories; created if missing
    #[arg(long, value_name = "DIR", default_value = "./assets")]
    pub(crate) assets: PathBuf,
    /// Directory for downloads, which are shared when complete; created if missing
    #[arg(long, value_name = "DIR", default_value = "./downloads")]
    pub(crate) downloads: PathBuf,
    /// Compute the SHA-256 of every shared file, as `sha256sum` prints it, so that others find the
    /// file by `sha256:HEX`. Reads each file once more, in the background
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) sha256: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) port_mapping: PortMappingArg,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
    #[command(flatten)]
    pub(crate) http: HttpArgs,
    /// Control socket for `qshare status`, `add`, `stop` and so on [default: qshare/NODEID.sock in
    /// XDG_RUNTIME_DIR, or RUNTIME_DIRECTORY of a service; else none]
    #[arg(long, value_name = "PATH", conflicts_with = "no_control")]
    pub(crate) socket: Option<PathBuf>,
    /// Open no control socket
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_control: bool,
    /// Run without a prompt, until Ctrl-C or SIGTERM
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) no_prompt: bool,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}
