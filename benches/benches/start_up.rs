//! Cost of starting and of idling: `get` of a small file as a whole command, round trips until its
//! bytes arrive, the restart of a node that shares many files, and an idle node.
//!
//! `cargo bench -p qshare-benches --bench start_up -- --help`.

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
    use std::process::ExitCode;
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::ensure;
    use clap::Parser;
    use qshare_benches::from_cargo::FromCargo;
    use qshare_benches::measure::{self, median};
    use qshare_benches::pair::{self, Pair};
    use qshare_benches::server::remove;
    use qshare_tests::files::noise;
    use qshare_tests::lab::Link;
    use qshare_tests::process::Signal;

    const SMALL: &str = "small.bin";
    const SMALL_BYTES: usize = 1024;
    const FETCHED: &str = "fetched";
    /// Files of one directory.
    const PER_DIRECTORY: usize = 1000;
    /// One-way delay where round trips are counted.
    const DELAY: Duration = Duration::from_millis(50);

    #[derive(Debug, Parser)]
    struct Args {
        /// Files that the node shares.
        #[arg(long, default_value_t = 100_000)]
        files: usize,
        /// Seconds for which the idle node is watched.
        #[arg(long, default_value_t = 60)]
        idle_seconds: u64,
        /// Runs of each.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        #[command(flatten)]
        cargo: FromCargo,
    }

    pub(super) fn main() -> anyhow::Result<ExitCode> {
        let args = Args::parse();
        if !args.cargo.measures() {
            return Ok(ExitCode::SUCCESS);
        }
        pair::inside(|| {
            small_get(&args)?;
            many_files(&args)
        })
    }

    /// One file of 1 KiB, on loopback and over a long path.
    fn small_get(args: &Args) -> anyhow::Result<()> {
        let near = median_get(&Pair::new()?, args.runs)?;
        println!(
            "get of {SMALL_BYTES} bytes, whole command: {:.1} ms",
            near * 1e3
        );
        let far = Link {
            delay: DELAY,
            ..Link::default()
        };
        let far = median_get(&Pair::linked(far)?, args.runs)?;
        let round_trip = 2.0 * DELAY.as_secs_f64();
        println!(
            "the same {} ms away: {:.0} ms, {:.1} round trips more: connecting to the tracker, the lookup, connecting to the node, the bytes",
            DELAY.as_millis(),
            far * 1e3,
            (far - near) / round_trip
        );
        Ok(())
    }

    fn median_get(pair: &Pair, runs: usize) -> anyhow::Result<f64> {
        fs::create_dir_all(pair.assets())?;
        fs::write(pair.assets().join(SMALL), noise(SMALL_BYTES, 1))?;
        let servers = pair.share(1);
        let serving = servers.each_ref().map(|server| server.id());
        let mut times = Vec::new();
        for _ in 0..runs {
            let trial = measure::trial(pair.get("client", SMALL, FETCHED), &serving)?;
            times.push(trial.wall.as_secs_f64());
            remove(&pair.home().join(FETCHED))?;
        }
        Ok(median(times.into_iter()))
    }

    /// A node that shares many files: started for the first time, again, and left alone.
    fn many_files(args: &Args) -> anyhow::Result<()> {
        let pair = Pair::new()?;
        make_files(&pair.assets(), args.files)?;
        let _tracker = pair.start_tracker();
        let last = format!("d{:04}/f0000", (args.files - 1) / PER_DIRECTORY);
        for start in ["for the first time", "again"] {
            let begun = Instant::now();
            let node = pair.start_node();
            let ready = begun.elapsed();
            pair.until_listed(&last, 1);
            let announced = begun.elapsed();
            println!(
                "a node with {} files, {start}: ready after {:.2} s, all announced after {:.2} s",
                args.files,
                ready.as_secs_f64(),
                announced.as_secs_f64(),
            );
            if start == "again" {
                thread::sleep(Duration::from_secs(2));
                let before = measure::cpu_time(node.id());
                thread::sleep(Duration::from_secs(args.idle_seconds));
                let after = measure::cpu_time(node.id());
                ensure!(before.is_some() && after.is_some(), "the node is gone");
                let spent = after.unwrap_or_default() - before.unwrap_or_default();
                println!(
                    "idle for {} s: {} ms of processor time, {} MiB resident, {} MiB at most",
                    args.idle_seconds,
                    spent.as_millis(),
                    measure::resident_bytes(node.id()).unwrap_or(0) >> 20,
                    measure::peak_bytes(node.id()).unwrap_or(0) >> 20,
                );
            }
            node.signal(Signal::TERM);
            node.end().well();
        }
        Ok(())
    }

    fn make_files(assets: &Path, files: usize) -> anyhow::Result<()> {
        for file in 0..files {
            let dir = assets.join(format!("d{:04}", file / PER_DIRECTORY));
            let place = file % PER_DIRECTORY;
            if place == 0 {
                fs::create_dir_all(&dir)?;
            }
            fs::write(dir.join(format!("f{place:04}")), file.to_le_bytes())?;
        }
        Ok(())
    }
}
