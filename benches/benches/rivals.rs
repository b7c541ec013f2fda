//! One large file between two hosts joined by a veth pair: `qshare get` beside what people use
//! today, whole commands in turns; and several receivers at once beside one.
//!
//! `cargo bench -p qshare-benches --bench rivals -- --help`. Read the ratios.

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
    use std::process::{Command, ExitCode, Stdio};
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use clap::Parser;
    use qshare_benches::measure::{self, Trial, median};
    use qshare_benches::pair::{self, Pair, Server, is_installed, remove};
    use qshare_benches::table::Table;
    use qshare_tests::files::noise;
    use qshare_tests::libtorrent;

    const FILE: &str = "file.bin";
    /// Where everybody puts what they fetch; a directory, but for curl.
    const FETCHED: &str = "fetched";
    const HTTPS_PORT: u16 = 8443;
    /// Between an end and the next start, for what the kernel puts off.
    const PAUSE: Duration = Duration::from_millis(300);

    #[derive(Debug, Parser)]
    struct Args {
        /// MiB of the file.
        #[arg(long, default_value_t = 1024)]
        mib: usize,
        /// Rounds, in each of which every contestant runs once.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Receivers at once, who fetch as much as one does otherwise; 1 skips this.
        #[arg(long, default_value_t = 8)]
        receivers: usize,
        /// Only these rivals: curl, libtorrent.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
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
        pair::inside(|| measure(&args))
    }

    /// Somebody who can fetch the file.
    struct Contestant<'a> {
        name: &'static str,
        /// Processes that serve it.
        serving: Vec<u32>,
        command: Box<dyn Fn() -> Command + 'a>,
        trials: Vec<Trial>,
        _servers: Vec<Server>,
    }

    fn measure(args: &Args) -> anyhow::Result<()> {
        let pair = Pair::new()?;
        let file = pair.assets().join(FILE);
        let bytes = args.mib << 20;
        make_file(&file, args.mib, 1)?;
        let shares: Vec<String> = (0..args.receivers).map(|n| format!("share-{n}")).collect();
        let several = args.receivers > 1;
        if several {
            for (seed, share) in shares.iter().enumerate() {
                let path = pair.assets().join(share);
                make_file(&path, args.mib / args.receivers, seed + 2)?;
            }
        }
        let servers = pair.share(1 + if several { shares.len() } else { 0 });
        let serving = servers.each_ref().map(|server| server.id()).to_vec();

        let mut contestants = vec![Contestant {
            name: "qshare get",
            serving,
            command: Box::new(|| pair.get("client", FILE, FETCHED)),
            trials: Vec::new(),
            _servers: Vec::new(),
        }];
        type Entry<'a> = (
            &'static str,
            fn(&'a Pair) -> anyhow::Result<Option<Contestant<'a>>>,
        );
        let rivals: [Entry; 2] = [("curl", curl), ("libtorrent", torrent)];
        for (name, start) in rivals {
            if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
                continue;
            }
            match start(&pair).with_context(|| format!("{name}'s server"))? {
                Some(rival) => contestants.push(rival),
                None => println!("{name} is not installed, and not measured"),
            }
        }

        let mut table = Table::new(bytes as u64);
        for _ in 0..args.runs {
            for contestant in &mut contestants {
                let trial = fetch(&pair, contestant)?;
                contestant.trials.push(table.add(contestant.name, trial));
            }
        }
        println!();
        for contestant in &contestants {
            table.add_median(contestant.name, &contestant.trials);
        }
        println!();
        let wall = |of: &[Trial]| median(of.iter().map(|trial| trial.wall.as_secs_f64()));
        let (ours, rivals) = contestants.split_first().context("we are missing")?;
        for rival in rivals {
            let ratio = wall(&ours.trials) / wall(&rival.trials);
            println!("qshare get / {}: {ratio:.2} of its time", rival.name);
        }
        if several {
            receive(&pair, &shares, args, wall(&ours.trials))?;
        }
        Ok(())
    }

    fn make_file(path: &Path, mib: usize, seed: usize) -> anyhow::Result<()> {
        use std::io::Write;
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        let mut file = fs::File::create(path)?;
        for piece in 0..mib {
            file.write_all(&noise(1 << 20, (seed << 20 | piece) as u64))?;
        }
        Ok(())
    }

    /// Fetches the file once; checks that all of it came, and removes the copy.
    fn fetch(pair: &Pair, contestant: &Contestant) -> anyhow::Result<Trial> {
        let copy = pair.home().join(FETCHED);
        let mut command = (contestant.command)();
        command.stderr(Stdio::null());
        let trial = measure::trial(command, &contestant.serving)?;
        let fetched = if copy.is_dir() {
            copy.join(FILE)
        } else {
            copy.clone()
        };
        let same = Command::new("cmp")
            .args([&pair.assets().join(FILE), &fetched])
            .status()?;
        ensure!(same.success(), "{} fetched something else", contestant.name);
        remove(&copy)?;
        std::thread::sleep(PAUSE);
        Ok(trial)
    }

    /// Several receivers at once, each with a file of its own.
    fn receive(pair: &Pair, shares: &[String], args: &Args, one: f64) -> anyhow::Result<()> {
        println!();
        let (mut totals, mut spreads) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            let begun = Instant::now();
            let mut receivers = Vec::new();
            for share in shares {
                let certs = format!("client-{share}");
                let mut get = pair.get(&certs, share, &format!("{FETCHED}/{share}"));
                receivers.push(get.stdout(Stdio::null()).spawn()?);
            }
            let waits = receivers.into_iter().map(|mut receiver| {
                std::thread::spawn(move || receiver.wait().map(|status| (status, begun.elapsed())))
            });
            let waits: Vec<_> = waits.collect();
            let mut times = Vec::new();
            for wait in waits {
                let (status, took) = wait
                    .join()
                    .map_err(|_| anyhow::anyhow!("a wait failed"))??;
                ensure!(status.success(), "a receiver: {status}");
                times.push(took.as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            let (first, last) = (times[0], times[times.len() - 1]);
            println!(
                "{} receivers: first {first:.2} s, last {last:.2} s",
                times.len()
            );
            totals.push(last);
            spreads.push(last / first);
            remove(&pair.home().join(FETCHED))?;
            std::thread::sleep(PAUSE);
        }
        println!(
            "{} receivers at once / one: {:.2} of its speed in all; the fastest got {:.2} times the slowest's rate",
            shares.len(),
            one / median(totals.into_iter()),
            median(spreads.into_iter()),
        );
        Ok(())
    }

    /// curl from nginx: TLS 1.3 over TCP, nothing verified.
    fn curl(pair: &Pair) -> anyhow::Result<Option<Contestant<'_>>> {
        if !is_installed("curl", "--version") || !is_installed("nginx", "-v") {
            return Ok(None);
        }
        let dir = pair.home().join("nginx");
        fs::create_dir_all(&dir)?;
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-subj", "/CN=qshare-bench", "-days", "1"])
            .arg("-keyout")
            .arg(dir.join("key.pem"))
            .arg("-out")
            .arg(dir.join("cert.pem"))
            .stderr(Stdio::null())
            .status()
            .context("openssl makes the certificate")?;
        ensure!(made.success(), "openssl made no certificate");
        let at = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; sendfile on;\n\
             client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
             uwsgi_temp_path {at}; scgi_temp_path {at};\n\
             server {{ listen {HTTPS_PORT} ssl; root {assets};\n\
             ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; }} }}\n",
            assets = pair.assets().display(),
        );
        fs::write(dir.join("nginx.conf"), config)?;
        let mut nginx = pair.server().command("nginx");
        nginx.arg("-c").arg(dir.join("nginx.conf"));
        let nginx = pair.serve(&mut nginx, HTTPS_PORT)?;
        let url = format!("https://{}:{HTTPS_PORT}/{FILE}", pair.server().address());
        let command = move || {
            let mut command = pair.client().command("curl");
            command
                .args(["-sk", &url, "-o"])
                .arg(pair.home().join(FETCHED));
            command
        };
        Ok(Some(Contestant {
            name: "curl, HTTPS",
            serving: vec![nginx.id()],
            command: Box::new(command),
            trials: Vec::new(),
            _servers: vec![nginx],
        }))
    }

    /// libtorrent over TCP: plaintext, SHA-256.
    fn torrent(pair: &Pair) -> anyhow::Result<Option<Contestant<'_>>> {
        if !libtorrent::is_there() {
            return Ok(None);
        }
        let script = libtorrent::write_script(pair.home())?;
        let torrent = pair.home().join("file.torrent");
        let mut seed = pair.server().command(libtorrent::PYTHON);
        seed.arg(&script)
            .arg("seed")
            .args([&torrent, &pair.assets().join(FILE)])
            .stdin(Stdio::piped());
        let (seed, _) = Server::start(&mut seed, |line| (line == "ready").then_some(()))?;
        let command = move || {
            let mut command = pair.client().command(libtorrent::PYTHON);
            command
                .arg(&script)
                .arg("get")
                .args([&torrent, &pair.home().join(FETCHED)])
                .arg(pair.server().address().to_string());
            command
        };
        Ok(Some(Contestant {
            name: "libtorrent, TCP",
            serving: vec![seed.id()],
            command: Box::new(command),
            trials: Vec::new(),
            _servers: vec![seed],
        }))
    }
}
