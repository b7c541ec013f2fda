//! The command line.

use std::path::PathBuf;

use clap::Parser;
use qshare_benches::bare::Role;
use qshare_benches::from_cargo::FromCargo;
use qshare_benches::size::Size;

/// `qshare get` on loopback beside bare quinn, whole processes, in turns.
#[derive(Debug, Parser)]
#[command(name = "transfer", disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Bytes of the file: a number, or one with KiB, MiB or GiB
    #[arg(long, default_value = "1GiB")]
    pub(crate) size: Size,
    /// Runs of each; 0 skips them
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Sources of the download from several; 1 skips it
    #[arg(long, default_value_t = 4)]
    pub(crate) sources: usize,
    /// Bytes of the sparse file whose download is watched for memory; 0 skips it
    #[arg(long, default_value = "4GiB")]
    pub(crate) memory_size: Size,
    /// Where files go [default: /dev/shm, else the directory for temporary files]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cargo: FromCargo,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}
