//! The gateway: curl reads a file through a node that has to fetch it, beside `get` of the same
//! file. Everything is on one machine, the files are in memory.
//!
//! `cargo bench -p qshare-benches --bench gateway -- --help`. Read the ratio: both kinds of
//! transfer alternate, so that they share the machine's good and bad moments.

#[cfg(not(unix))]
fn main() {
    println!("SKIPPED: the processor time of other processes is read on Unix only");
}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    unix::main()
}

#[cfg(unix)]
mod unix {
    use std::path::{Path, PathBuf};

    use anyhow::ensure;
    use clap::Parser;
    use qshare_benches::measure::{self, Trial};
    use qshare_benches::server::measures_with_curl;
    use qshare_benches::size::Size;
    use qshare_benches::stage::{Stage, Swarm};
    use qshare_benches::table::Table;

    #[derive(Debug, Parser)]
    struct Args {
        /// Size of the file
        #[arg(long, default_value = "1GiB")]
        size: Size,
        /// Nodes that have the file
        #[arg(long, default_value_t = 1)]
        sources: usize,
        /// Rounds, in each of which both kinds of transfer run once
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Directory for all files (default: in memory)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Fail if the gateway's rate is below this fraction of `get`'s
        #[arg(long, value_name = "FRACTION")]
        at_least: Option<f64>,
        /// Passed by `cargo bench`
        #[arg(long, hide = true)]
        bench: bool,
    }

    pub(super) fn main() -> anyhow::Result<()> {
        let args = Args::parse();
        match measures_with_curl(args.bench) {
            true => measure(&args),
            false => Ok(()),
        }
    }

    fn measure(args: &Args) -> anyhow::Result<()> {
        let stage = Stage::new(args.dir.as_deref())?;
        let bytes = args.size.0;
        let file = stage.noise_file("file", bytes)?;
        let swarm = Swarm::start(&stage, "swarm", &file, args.sources)?;
        let gateway = swarm.gateway(&stage)?;
        let mut table = Table::new(bytes);
        let (mut of_get, mut of_curl) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            of_get.push(table.add("get", swarm.trial(&stage)?));
            of_curl.push(table.add("gateway, curl", gateway.trial(&swarm, &stage)?));
        }
        same(&file, &gateway.fetch(&stage)?)?;
        println!();
        table.add_median("get", &of_get);
        table.add_median("gateway, curl", &of_curl);
        let wall = |of: &[Trial]| measure::median(of.iter().map(|t| t.wall.as_secs_f64()));
        let ratio = wall(&of_get) / wall(&of_curl);
        println!("gateway / get: {ratio:.2} of its rate");
        if let Some(least) = args.at_least {
            ensure!(ratio >= least, "{ratio:.2} is less than {least}");
        }
        Ok(())
    }

    fn same(one: &Path, other: &Path) -> anyhow::Result<()> {
        let mut command = std::process::Command::new("cmp");
        let is_same = command.arg(one).arg(other).status()?.success();
        ensure!(is_same, "curl read other bytes");
        Ok(())
    }
}
