//! Arguments that concern the configuration file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::LAST;
use super::shared::JsonArg;
use crate::configuration::Named;

const HELP: &str = "\
Examples:
  qshare config                     every option of every command
  qshare config node get            the options of two commands
  qshare config --json node | jq -r 'select(.option == \"limit-up\").value'
  qshare config --example > ~/.config/qshare/config.toml

The output is itself a configuration file. Precedence: option, environment, file, default.
A switch that the file turns on is turned off by a variable: QSHARE_NO_LAN=false.";

/// The configuration file, an option of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArg {
    /// Configuration file [default: qshare/config.toml in the user's configuration directory]
    #[arg(long = "config", value_name = "FILE", global = true, display_order = LAST)]
    pub(crate) configuration: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ConfigArgs {
    /// Commands whose options are printed [default: all]
    #[arg(value_name = "COMMAND")]
    pub(crate) commands: Vec<String>,
    /// Print a commented example file with every option
    #[arg(long, value_parser = FalseyValueParser::new())]
    pub(crate) example: bool,
    #[command(flatten)]
    pub(crate) json: JsonArg,
}

impl ConfigArg {
    /// Returns which file to read.
    pub(crate) fn named(&self) -> Named {
        match &self.configuration {
            Some(file) => Named::Given(file.clone()),
            None => Named::Usual,
        }
    }
}
