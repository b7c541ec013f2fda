//! What may be written on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use qshare_benches::bare::Role;

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
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
}

/// An amount of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
        let split = |&(unit, shift)| Some((text.strip_suffix(unit)?, shift));
        let (number, shift) = units.iter().find_map(split).unwrap_or((text, 0));
        let number: u64 = number
            .trim()
            .parse()
            .map_err(|_| "write a number of bytes, such as 1GiB")?;
        number
            .checked_mul(1 << shift)
            .map(Size)
            .ok_or_else(|| "too many bytes".into())
    }
}
