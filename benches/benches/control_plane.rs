//! The API of a node that shares many files and lists many downloads: the time of its lists, and
//! the processor time of the idle node with and without a page that follows it.
//!
//! `cargo bench -p qshare-benches --bench control_plane -- --help`.

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
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use clap::Parser;
    use qshare_benches::measure;
    use qshare_benches::server::measures_with_curl;
    use qshare_benches::stage::Stage;
    use qshare_tests::process::Process;
    use serde_json::{Value, json};

    const FILES_PER_DIRECTORY: usize = 1000;
    /// For all files to have been hashed.
    const DEADLINE: Duration = Duration::from_secs(300);
    const LOOK_AGAIN: Duration = Duration::from_millis(200);
    /// Time for what a start leaves behind to end.
    const SETTLE: Duration = Duration::from_secs(5);

    #[derive(Debug, Parser)]
    struct Args {
        /// Files that the node shares
        #[arg(long, default_value_t = 100_000)]
        shares: usize,
        /// Downloads in its list, all paused
        #[arg(long, default_value_t = 1000)]
        downloads: usize,
        /// Requests for each kind of list
        #[arg(long, default_value_t = 50)]
        requests: usize,
        /// Seconds for which the idle node is measured, each time
        #[arg(long, default_value_t = 20)]
        idle_seconds: u64,
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

    /// A node with a page.
    struct Served {
        node: Process,
        url: String,
        token: String,
    }

    impl Served {
        fn curl(&self, path: &str) -> Command {
            let mut command = Command::new("curl");
            let authorization = format!("Authorization: Bearer {}", self.token);
            command
                .args(["-sS", "-f", "-H", &authorization])
                .arg(format!("{}api/1/{path}", self.url));
            command
        }

        fn get(&self, path: &str) -> anyhow::Result<Value> {
            let answered = self.curl(path).output()?;
            serde_json::from_slice(&answered.stdout).with_context(|| path.to_owned())
        }

        /// Prints median and maximum of the time of a request, and the bytes of its answer.
        fn time(&self, what: &str, path: &str, requests: usize) -> anyhow::Result<()> {
            let mut times = Vec::new();
            let mut bytes = String::new();
            for _ in 0..requests {
                let mut command = self.curl(path);
                command.args(["-o", "/dev/null", "-w", "%{time_total} %{size_download}"]);
                let answered = command.output()?;
                ensure!(answered.status.success(), "{path}: {answered:?}");
                let text = String::from_utf8(answered.stdout)?;
                let (time, size) = text.split_once(' ').context("two numbers")?;
                times.push(time.parse::<f64>()? * 1e3);
                size.clone_into(&mut bytes);
            }
            let most = times.iter().copied().fold(0.0, f64::max);
            let middle = measure::median(times.into_iter());
            println!("{what:44} {middle:8.2} ms {most:8.2} ms {bytes:>9} bytes");
            Ok(())
        }

        /// Prints the processor time of the idle node.
        fn idle(&self, what: &str, time: Duration) -> anyhow::Result<()> {
            thread::sleep(SETTLE);
            let cpu = || measure::cpu_time(self.node.id()).context("the node is gone");
            let (before, begun) = (cpu()?, Instant::now());
            thread::sleep(time);
            let used = cpu()?.saturating_sub(before).as_secs_f64();
            let part = used / begun.elapsed().as_secs_f64() * 100.0;
            println!("{what:44} {part:8.2} % of a core");
            Ok(())
        }
    }

    fn measure(args: &Args) -> anyhow::Result<()> {
        let stage = Stage::new(None)?;
        make_files(&stage.path().join("node/assets"), "shared", args.shares)?;
        make_files(
            &stage.path().join("source/assets"),
            "wanted",
            args.downloads,
        )?;
        let common = ["--json", "--certs", "certs", "--listen", "127.0.0.1:0"];
        let mut command = stage.command("tracker", &["tracker"])?;
        command.args(common);
        let tracker = Process::start(command);
        let address = tracker.ready()["listen"].as_str().map(str::to_owned);
        let address = address.context("the tracker does not say where it is")?;
        let start = |place: &str, more: &[&str]| -> anyhow::Result<Process> {
            let node = ["node", "--no-prompt", "--tracker", &address];
            let mut command = stage.command(place, &node)?;
            command.args(common).args(more);
            Ok(Process::start(command))
        };
        let source = start("source", &[])?;
        source.ready();
        let begun = Instant::now();
        let http = ["--http", "127.0.0.1:0", "--http-token", "token"];
        let node = start("node", &http)?;
        let url = node.ready()["http"].as_str().map(str::to_owned);
        let token = fs::read_to_string(stage.path().join("node/token"))?;
        let served = Served {
            url: url.context("the node has no page")?,
            token: token.trim().to_owned(),
            node,
        };
        loop {
            let shared = served.get("status")?["shared_files"].as_u64();
            if shared == Some(args.shares as u64) {
                break;
            }
            ensure!(begun.elapsed() < DEADLINE, "{shared:?} files are shared");
            thread::sleep(LOOK_AGAIN);
        }
        println!(
            "{} files shared {:.1} s after the start",
            args.shares,
            begun.elapsed().as_secs_f64()
        );
        let what = json!({"what": "wanted*/*", "paused": true}).to_string();
        let added = served
            .curl("downloads")
            .args(["-H", "Content-Type: application/json", "-d", &what])
            .output()?;
        let added: Value = serde_json::from_slice(&added.stdout)?;
        let added = added["downloads"].as_array().map_or(0, Vec::len);
        ensure!(
            added == args.downloads,
            "{added} of {} downloads were added",
            args.downloads
        );

        println!("{:44} {:>11} {:>11}", "", "median", "maximum");
        let last = args.shares.saturating_sub(1);
        let filter = format!("shares?limit=100&match=%7B**%2F*{last}*%2C**%2F*{last}*%2F**%7D");
        for (what, path) in [
            ("status", "status"),
            ("downloads, the first 100", "downloads?limit=100"),
            ("downloads, 1,000", "downloads?limit=1000"),
            ("shares, the first 100", "shares?limit=100"),
            ("shares, 1,000", "shares?limit=1000"),
            ("shares, those that match a text", &filter),
        ] {
            served.time(what, path, args.requests)?;
        }
        let idle = Duration::from_secs(args.idle_seconds);
        served.idle("idle", idle)?;
        let _page = Page::open(&served)?;
        served.idle("idle, with a page open", idle)?;
        println!(
            "memory of the node: {} MiB",
            measure::resident_bytes(served.node.id()).unwrap_or(0) >> 20
        );
        drop((source, tracker));
        Ok(())
    }

    /// What a page does while nobody touches it: it follows the events.
    struct Page(Child);

    impl Page {
        fn open(served: &Served) -> anyhow::Result<Page> {
            let mut command = served.curl("events");
            command.arg("-N").stdout(Stdio::null());
            Ok(Page(command.spawn()?))
        }
    }

    impl Drop for Page {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn make_files(assets: &Path, kind: &str, count: usize) -> anyhow::Result<()> {
        for number in 0..count {
            let (directory, file) = (number / FILES_PER_DIRECTORY, number % FILES_PER_DIRECTORY);
            let directory: PathBuf = assets.join(format!("{kind}{directory:04}"));
            if file == 0 {
                fs::create_dir_all(&directory)?;
            }
            let path = directory.join(format!("f{number:06}.bin"));
            fs::write(path, format!("{kind} {number}"))?;
        }
        Ok(())
    }
}
