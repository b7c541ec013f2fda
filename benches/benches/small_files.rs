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
    use std::ffi::OsString;
    use std::fs;
    use std::net::TcpStream;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, ExitCode, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use clap::Parser;
    use qshare_tests::binary;
    use qshare_tests::files::noise;
    use qshare_tests::lab::{Host, HostPlan, Lab, isolation};
    use qshare_tests::process::{Process, eventually};

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
        /// Given by cargo.
        #[arg(long, hide = true)]
        bench: bool,
    }

    pub(super) fn main() -> anyhow::Result<ExitCode> {
        let args = Args::parse();
        if !args.bench {
            println!("nothing to test here; `cargo bench` measures");
            return Ok(ExitCode::SUCCESS);
        }
        if isolation::is_inside() {
            isolation::prepare()?;
            measure(&args)?;
            return Ok(ExitCode::SUCCESS);
        }
        // Built out here, where cargo finds everything.
        binary::path();
        let again: Vec<OsString> = std::env::args_os().skip(1).collect();
        match isolation::run_again(again) {
            Ok(status) if status.success() => Ok(ExitCode::SUCCESS),
            Ok(_) => Ok(ExitCode::FAILURE),
            Err(reason) => {
                println!("SKIPPED: {reason}");
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn measure(args: &Args) -> anyhow::Result<()> {
        let lab = Lab::builder()
            .host(HostPlan::new("server"))
            .host(HostPlan::new("client"))
            .build()?;
        let (server, client) = (lab.host("server"), lab.host("client"));
        let stage = tempfile::Builder::new()
            .prefix("qshare-bench")
            .tempdir_in("/dev/shm")
            .context("a directory in memory")?;
        let home = stage.path();
        let assets = home.join("assets");
        let count = args.directories * args.files;
        make_files(&assets, args)?;

        let tracker = format!("{}:65000", server.address());
        let _tracker = start(server, home, &["tracker", "--certs", "tracker"]);
        let node = [
            "node",
            "--no-prompt",
            "--certs",
            "node",
            "--tracker",
            &tracker,
        ];
        let node = start(server, home, &node);
        eventually("all files are announced", || {
            let ls = [
                "ls",
                "--json",
                "--certs",
                "client",
                "--tracker",
                &tracker,
                "**",
            ];
            let listed = qshare(client, home, &ls).output().ok()?;
            let lines = listed.stdout.iter().filter(|&&byte| byte == b'\n').count();
            (lines == count).then_some(())
        });
        let rsync = Rsync::start(server, home, &assets)?;
        if rsync.is_none() {
            println!("rsync is not installed, and not measured");
        }

        println!(
            "{count} files of {} bytes in {} directories",
            args.size, args.directories
        );
        let (mut of_qshare, mut of_rsync) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let to = home.join("fetched");
            let get = [
                "-q",
                "get",
                "--certs",
                "client",
                "--tracker",
                &tracker,
                "**",
                "-o",
                "fetched/",
            ];
            of_qshare.push(timed(
                "qshare get",
                qshare(client, home, &get),
                &assets,
                &to,
            )?);
            if rsync.is_some() {
                let mut command = client.command("rsync");
                let from = format!("rsync://{}:{RSYNC_PORT}/assets/", server.address());
                command.args(["-a", &from]).arg(&to);
                of_rsync.push(timed("rsync", command, &assets, &to)?);
            }
        }
        let ours = median(&mut of_qshare);
        println!("qshare get: median {:.3} s", ours.as_secs_f64());
        if rsync.is_some() {
            let theirs = median(&mut of_rsync);
            println!("rsync: median {:.3} s", theirs.as_secs_f64());
            println!(
                "qshare get / rsync: {:.2}",
                ours.as_secs_f64() / theirs.as_secs_f64()
            );
        }
        drop(node);
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

    fn qshare(host: &Host, home: &Path, arguments: &[&str]) -> Command {
        let mut command = host.command(binary::path());
        binary::forget_surroundings(&mut command);
        command.env("HOME", home).current_dir(home).args(arguments);
        command
    }

    fn start(host: &Host, home: &Path, arguments: &[&str]) -> Process {
        let mut command = qshare(host, home, arguments);
        command.arg("--json");
        let process = Process::start(command);
        process.ready();
        process
    }

    /// Runs a command that copies `assets` to `to`; checks that it did, and removes the copy.
    fn timed(
        name: &str,
        mut command: Command,
        assets: &Path,
        to: &PathBuf,
    ) -> anyhow::Result<Duration> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let status = command.status().with_context(|| format!("run {name}"))?;
        let took = begun.elapsed();
        ensure!(status.success(), "{name}: {status}");
        let same = Command::new("diff")
            .args(["-r", "-q"])
            .arg(assets)
            .arg(to)
            .status()?;
        ensure!(same.success(), "{name} did not copy what is there");
        fs::remove_dir_all(to)?;
        println!("{name}: {:.3} s", took.as_secs_f64());
        Ok(took)
    }

    fn median(times: &mut [Duration]) -> Duration {
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// rsync's daemon, until dropped.
    struct Rsync(Child);

    impl Rsync {
        /// None where it is not installed.
        fn start(host: &Host, home: &Path, assets: &Path) -> anyhow::Result<Option<Rsync>> {
            if Command::new("rsync").arg("--version").output().is_err() {
                return Ok(None);
            }
            let config = home.join("rsyncd.conf");
            let text = format!(
                "use chroot = no\nreverse lookup = no\nforward lookup = no\n[assets]\npath = {}\n",
                assets.display()
            );
            fs::write(&config, text)?;
            let child = host
                .command("rsync")
                .args(["--daemon", "--no-detach", "--port", &RSYNC_PORT.to_string()])
                .arg("--config")
                .arg(&config)
                .spawn()?;
            let daemon = Rsync(child);
            let at = (host.address(), RSYNC_PORT);
            while !matches!(host.inside(|| TcpStream::connect(at)), Ok(Ok(_))) {
                thread::sleep(Duration::from_millis(10));
            }
            Ok(Some(daemon))
        }
    }

    impl Drop for Rsync {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
