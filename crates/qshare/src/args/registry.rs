//! Arguments of a tracker's shared registry.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use qshare_tracker::RegistryAddress;

/// The registry that several trackers share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several trackers")]
pub(crate) struct RegistryArgs {
    /// Share the registry with other trackers through Redis or Valkey 7 or later:
    /// redis://[USER@]HOST:PORT[/DB], redis-cluster://HOST,HOST or
    /// redis-sentinel://HOST,HOST/MASTER; rediss… for TLS
    #[arg(long = "registry", value_name = "URL")]
    pub(crate) url: Option<RegistryAddress>,
    /// File with the registry's password, in its first line
    #[arg(long = "registry-password-file", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authority that signed the registry's [default: the system's]
    #[arg(long = "registry-ca", value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// Use a registry on another machine without TLS or without a password
    #[arg(long = "registry-insecure", value_parser = FalseyValueParser::new())]
    pub(crate) insecure: bool,
    /// Address at which nodes reach this tracker. Other trackers of the registry tell it to their
    /// nodes, which go there when they lose their tracker
    #[arg(long = "advertise", value_name = "ADDRESS:PORT", value_parser = parse_advertised)]
    pub(crate) advertise: Option<SocketAddr>,
}

fn parse_advertised(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    address
        .filter(|at| !at.ip().is_unspecified() && at.port() != 0)
        .ok_or_else(|| "give ADDRESS:PORT, such as 203.0.113.5:65000".to_owned())
}
