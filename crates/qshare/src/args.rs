//! The command line: every subcommand, option and help text.

mod cat;
mod config;
mod control;
#[cfg(test)]
mod documents;
mod get;
mod http;
mod limits;
mod local;
mod ls;
mod net;
mod network;
mod node;
mod registry;
mod share;
mod shared;
mod tracker;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::configuration::{self, Fault, variable_of};

pub(crate) use cat::{ByteRange, CatArgs, STDOUT};
pub(crate) use config::{ConfigArg, ConfigArgs};
pub(crate) use control::{
    AddArgs, ControlArg, LimitArgs, PauseArgs, RemoveArgs, ResumeArgs, StatusArgs, StopArgs,
    UnshareArgs, WhichArg,
};
pub(crate) use get::{GetArgs, Wait};
pub(crate) use http::HttpArgs;
pub(crate) use local::{
    CompletionsArgs, DemoArgs, ForgetArgs, GroupArgs, GroupCommand, HashArgs, IdArgs, ManArgs,
};
pub(crate) use ls::LsArgs;
pub(crate) use net::NetArgs;
pub(crate) use network::NetworkArgs;
pub(crate) use node::NodeArgs;
pub(crate) use registry::RegistryArgs;
pub(crate) use share::{ShareArgs, any_port};
pub(crate) use shared::{CertsArg, GroupArg, TrackersArg};
pub(crate) use tracker::{RelayArgs, TrackerArgs};

const TOP_HELP: &str = "\
To begin:
  qshare share report.pdf             share a file with those who get its code or link
  qshare get 7-amber-walrus           download it
  qshare tracker                      on one machine: track which node has which file
  qshare node                         on every machine: share ./assets, prompt for downloads
  qshare node --tracker HOST:65000    the same, with the tracker on another machine
  qshare ls                           list the files that can be downloaded
  qshare get report.pdf               download a file into this directory
  qshare get 'photos/**' -o album/    download all files that match

Environment:
  Every option can also be set as a variable: --tracker as QSHARE_TRACKER, --no-sync as
  QSHARE_NO_SYNC, and so on. An empty variable counts as unset. What neither sets is read from
  the configuration file: `qshare config` prints every value and where it comes from.
  QSHARE_LOG takes log directives that override -q and -v, such as
  QSHARE_LOG=warn,qshare_node=debug (levels: error, warn, info, debug, trace).

Exit codes: 0 done, 1 failed, 2 usage, 3 not found or ambiguous, 4 verification failed
for every source, 5 no tracker or peer reachable, 6 local disk, 7 tracker key changed or group
refused, 130 interrupted (the same command resumes).";

/// What `qshare` without arguments prints.
pub(crate) const BEGINNING: &str = "\
qshare shares files straight from your own machines. There are three ways to begin:

  qshare share PATH   share a file with those who get its code or link, until Ctrl-C
  qshare get CODE     download it on another machine
  qshare node         keep a directory shared with a whole team, and download from others

`share` works on one network by itself. A tracker leads nodes on other networks to each other, and
knows which node has which file:

  qshare tracker      on one machine; it prints the command that other machines run to use it
  qshare ls           list the files that nodes share by name; `qshare get NAME` downloads one

Elsewhere, name the tracker: --tracker HOST:65000, or QSHARE_TRACKER=HOST:65000.
`qshare demo` shows all this on one machine; `qshare --help` lists every command.";

/// Share files straight from your own machines through an encrypted, verified swarm
#[derive(Debug, Parser)]
#[command(name = "qshare", version, after_help = TOP_HELP, disable_help_subcommand = true)]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Display order of the options that every command has: after its own.
const LAST: usize = 100;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is printed on stderr.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verbosity {
    /// Print errors only: no progress, no notes
    #[arg(short, long, global = true, value_parser = FalseyValueParser::new())]
    #[arg(display_order = LAST)]
    pub(crate) quiet: bool,
    /// Log more: -v important events, -vv deviations, -vvv every chunk
    #[arg(short, long, global = true, action = ArgAction::Count)]
    #[arg(display_order = LAST)]
    pub(crate) verbose: u8,
    /// Form of log lines on stderr: text, or one JSON object a line
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    #[arg(display_order = LAST)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a tracker, which knows which node has which file
    Tracker(TrackerArgs),
    /// Share a directory and prompt for downloads
    Node(NodeArgs),
    /// Share files from where they lie, with those who get a code or a link
    Share(ShareArgs),
    /// Download files
    Get(GetArgs),
    /// Write a file to standard output while it is downloaded
    Cat(CatArgs),
    /// List the files that can be downloaded
    Ls(LsArgs),
    /// Show what the running node does
    Status(StatusArgs),
    /// Add a download to the running node
    Add(AddArgs),
    /// Pause downloads of the running node
    Pause(PauseArgs),
    /// Resume paused and failed downloads of the running node
    Resume(ResumeArgs),
    /// Remove downloads of the running node
    Remove(RemoveArgs),
    /// Print or change rate limits and priorities of the running node
    Limit(LimitArgs),
    /// End shares that were handed to the running node
    Unshare(UnshareArgs),
    /// Stop the running node
    Stop(StopArgs),
    /// Diagnose NAT type, firewall and port mapping
    Net(NetArgs),
    /// Print the content IDs of local files, without sharing them
    Hash(HashArgs),
    /// Print this machine's node ID and tracker ID
    Id(IdArgs),
    /// Forget the remembered key of a tracker
    Forget(ForgetArgs),
    /// Create the secret of a private group
    Group(GroupArgs),
    /// Print the configuration in force, and where each value comes from
    Config(ConfigArgs),
    /// Run a swarm of several nodes on this machine and verify the result
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write manual pages into a directory
    Man(ManArgs),
}

/// Returns the definition of the command line, with the rules that hold for every option.
pub(crate) fn definition() -> clap::Command {
    read_environment(Cli::command())
}

/// Makes every option of a command and its subcommands read the environment: `--no-sync` reads
/// `QSHARE_NO_SYNC`. Values from there are not printed in help, which may end up in a log.
fn read_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let Some(long) = arg.get_long() else {
                return arg;
            };
            let variable = variable_of(long);
            // clap would parse the empty text as the option's value.
            let is_empty = std::env::var_os(&variable).is_some_and(|value| value.is_empty());
            match is_empty {
                true => arg,
                false => arg.env(variable).hide_env_values(true),
            }
        })
        .mut_subcommands(read_environment)
}

/// Why the arguments are not usable.
#[derive(Debug)]
pub(crate) enum ParseError {
    /// clap's error for wrong usage, and for `--help` and `--version`.
    Usage(clap::Error),
    /// The configuration file is wrong.
    Configuration(Fault),
}

/// Parses the arguments of this process, and what they and the environment leave to the
/// configuration file.
///
/// # Errors
///
/// [`ParseError::Usage`] for wrong usage, and for `--help` and `--version`, which do not depend on
/// the configuration file; [`ParseError::Configuration`] if that cannot be used.
pub(crate) fn parse() -> Result<Cli, ParseError> {
    let arguments = std::env::args_os().collect();
    let arguments = configuration::with_configuration(&definition(), arguments)
        .map_err(ParseError::Configuration)?;
    parse_from(arguments).map_err(ParseError::Usage)
}

fn parse_from(
    arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    let mut definition = definition();
    let mut matches = definition.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut definition))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn get(arguments: &[&str]) -> Result<GetArgs, clap::Error> {
        let all = ["qshare", "get"].iter().chain(arguments);
        match parse_from(all)?.command {
            Command::Get(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn every_option_reads_the_environment_and_hides_the_value() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let wanted = format!("QSHARE_{}", long.to_uppercase().replace('-', "_"));
                let found = arg.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(wanted.as_str()), "{}", command.get_name());
                assert!(arg.is_hide_env_values_set(), "{wanted}");
            }
            command.get_subcommands().for_each(check);
        }
        let definition = definition();
        assert!(definition.find_subcommand("get").is_some());
        check(&definition);
    }

    #[test]
    fn wait_takes_seconds_only_after_an_equals_sign() {
        assert_eq!(get(&["x"]).unwrap().wait, None);
        assert_eq!(
            get(&["--wait=7", "x"]).unwrap().wait,
            Some(Wait::For(Duration::from_secs(7)))
        );
        let forever = get(&["--wait", "7"]).unwrap();
        assert_eq!(forever.wait, Some(Wait::Forever));
        assert_eq!(forever.wanted, ["7"]);
        assert!(get(&["--wait=soon", "x"]).is_err());
    }

    #[test]
    fn several_trackers_may_be_given() {
        let args = get(&["x", "--tracker", "a", "--tracker", "b:7,[::1]:8"]).unwrap();
        let given: Vec<String> = args
            .network
            .trackers
            .given
            .iter()
            .map(|t| t.to_string())
            .collect();
        assert_eq!(given, ["a:65000", "b:7", "[::1]:8"]);
        assert!(get(&["x", "--tracker", "a:b:c"]).is_err());
    }

    #[test]
    fn get_without_a_name_is_valid_since_it_asks_for_a_code() {
        assert!(get(&[]).unwrap().wanted.is_empty());
    }
}
