//! Many small files: `qshare get '**'` between two hosts joined by a veth pair, beside rsync's
//! daemon, which neither encrypts nor verifies, where rsync is installed.
//!
//! `cargo bench -p qshare-benches --bench small_files -- --help`. Read the ratio.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: two hosts on one machine need Linux");
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, ExitCode};

    use anyhow::ensure;
    use clap::Parser;
    use qshare_benches::from_cargo::FromCargo;
    use qshare_benches::measure::{self, Trial};
    use qshare_benches::pair::{self, Pair};
    use qshare_benches::server::{Server, is_installed, remove};
    use qshare_benches::table::Table;
    use qshare_tests::files::noise;

    const RSYNC_PORT: u16 = 8730;

    #[derive(Debug, Parser)]
    struct Args {
        /// Directories.
        #[arg(long, default_value_t = 100)]
        directories: usize,
        /// Files in each.
        #[arg(long, default_value_t = 100)]
        files: usize,
        /// Bytes in each file.
        #[arg(long, default_value_t = 4096)]
        size: usize,
        /// Rounds, in each of which every contestant runs once.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        #[command(flatten)]
        cargo: FromCargo,
    }

    pub(super) fn main() -> anyhow::Result<ExitCode> {
        let args = Args::parse();
        if !args.cargo.measures() {
            return Ok(ExitCode::SUCCESS);
        }
        pair::inside(|| measure(&args))
    }

    fn measure(args: &Args) -> anyhow::Result<()> {
        let pair = Pair::new()?;
        let count = args.directories * args.files;
        make_files(&pair.assets(), args)?;
        let servers = pair.share(count);
        let serving = servers.each_ref().map(|server| server.id());
        let rsync = start_rsync(&pair)?;
        if rsync.is_none() {
            println!("rsync is not installed, and not measured");
        }
        println!(
            "{count} files of {} bytes in {} directories",
            args.size, args.directories
        );
        let mut table = Table::new((count * args.size) as u64);
        let (mut of_qshare, mut of_rsync) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let get = pair.get("client", "**", "fetched");
            of_qshare.push(table.add("qshare get", fetch(&pair, get, &serving)?));
            if let Some(rsync) = &rsync {
                let mut command = pair.client().command("rsync");
                let from = format!("rsync://{}:{RSYNC_PORT}/assets/", pair.server().address());
                command.args(["-a", &from]).arg(pair.home().join("fetched"));
                of_rsync.push(table.add("rsync", fetch(&pair, command, &[rsync.id()])?));
            }
        }
        println!();
        table.add_median("qshare get", &of_qshare);
        table.add_median("rsync", &of_rsync);
        if rsync.is_some() {
            let wall = |of: &[Trial]| measure::median(of.iter().map(|t| t.wall.as_secs_f64()));
            println!(
                "qshare get / rsync: {:.2}",
                wall(&of_qshare) / wall(&of_rsync)
            );
        }
        Ok(())
    }

    fn make_files(assets: &Path, args: &Args) -> anyhow::Result<()> {
        for directory in 0..args.directories {
            let directory_path = assets.join(format!("d{directory:04}"));
            fs::create_dir_all(&directory_path)?;
            for file in 0..args.files {
                let seed = (directory * args.files + file + 1) as u64;
                let path = directory_path.join(format!("f{file:04}.bin"));
                fs::write(path, noise(args.size, seed))?;
            }
        }
        Ok(())
    }

    /// Runs a command that copies all assets; checks that it did, and removes the copy.
    fn fetch(pair: &Pair, command: Command, servers: &[u32]) -> anyhow::Result<Trial> {
        let trial = measure::trial(command, servers)?;
        let copy = pair.home().join("fetched");
        let same = Command::new("diff")
            .args(["-r", "-q"])
            .arg(pair.assets())
            .arg(&copy)
            .status()?;
        ensure!(same.success(), "not everything was copied");
        remove(&copy)?;
        Ok(trial)
    }

    /// rsync's daemon; None where it is not installed.
    fn start_rsync(pair: &Pair) -> anyhow::Result<Option<Server>> {
        if !is_installed("rsync", "--version") {
            return Ok(None);
        }
        let config = pair.home().join("rsyncd.conf");
        let text = format!(
            "use chroot = no\nreverse lookup = no\nforward lookup = no\n[assets]\npath = {}\n",
            pair.assets().display()
        );
        fs::write(&config, text)?;
        let mut command = pair.server().command("rsync");
        command
            .args(["--daemon", "--no-detach", "--port", &RSYNC_PORT.to_string()])
            .arg("--config")
            .arg(&config);
        pair.serve(&mut command, RSYNC_PORT).map(Some)
    }
}
