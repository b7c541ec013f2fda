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
    use std::net::SocketAddr;
    use std::path::Path;
    use std::process::{Command, ExitCode, Stdio};
    use std::time::{Duration, Instant};

    use anyhow::{Context, ensure};
    use clap::Parser;
    use qshare_benches::bare::{Bare, Role, Setup};
    use qshare_benches::from_cargo::FromCargo;
    use qshare_benches::measure::{self, Trial, median};
    use qshare_benches::pair::{self, Pair};
    use qshare_benches::parts::Parts;
    use qshare_benches::server::{Server, is_installed, nginx_config, remove};
    use qshare_benches::table::Table;
    use qshare_tests::files::noise;
    use qshare_tests::lab::Host;
    use qshare_tests::libtorrent;

    /// Quinn with our packet sizes, windows and socket, from memory to memory.
    const BARE: &str = "bare quinn";
    const FILE: &str = "file.bin";
    /// Where every contestant puts the fetched file; a directory, except for curl.
    const FETCHED: &str = "fetched";
    const HTTPS_PORT: u16 = 8443;
    const RQBIT_PORT: u16 = 4240;
    /// Pause between two runs, for deferred work of the kernel.
    const PAUSE: Duration = Duration::from_millis(300);

    #[derive(Debug, Parser)]
    struct Args {
        /// MiB of the file.
        #[arg(long, default_value_t = 1024)]
        mib: usize,
        /// Rounds, in each of which every contestant runs once.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Receivers at once, each with a file of its own; 1 skips this.
        #[arg(long, default_value_t = 8)]
        receivers: usize,
        /// MiB of each one's file: enough that starting them counts for little.
        #[arg(long, default_value_t = 256)]
        share_mib: usize,
        /// Only these rivals: curl, libtorrent, rqbit, sendme.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        #[command(flatten)]
        cargo: FromCargo,
        #[command(subcommand)]
        role: Option<Role>,
    }

    pub(super) fn main() -> anyhow::Result<ExitCode> {
        let args = Args::parse();
        if let Some(role) = args.role {
            return role.run().map(|()| ExitCode::SUCCESS);
        }
        if !args.cargo.measures() {
            return Ok(ExitCode::SUCCESS);
        }
        pair::inside(|| measure(&args))
    }

    /// A program that can fetch the file.
    struct Contestant<'a> {
        name: &'static str,
        /// Processes that serve it.
        serving: Vec<u32>,
        command: Box<dyn Fn() -> anyhow::Result<Command> + 'a>,
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
                make_file(&path, args.share_mib, seed + 2)?;
            }
        }
        let servers = pair.share(1 + if several { shares.len() } else { 0 });
        let serving = servers.each_ref().map(|server| server.id()).to_vec();

        let mut contestants = vec![Contestant {
            name: "qshare get",
            serving,
            command: Box::new(|| Ok(pair.get("client", FILE, FETCHED))),
            trials: Vec::new(),
            _servers: Vec::new(),
        }];
        type Entry<'a> = (
            &'static str,
            fn(&'a Pair) -> anyhow::Result<Option<Contestant<'a>>>,
            &'static str,
        );
        let rivals: [Entry; 4] = [
            ("curl", curl, "apt-get install curl nginx-light openssl"),
            ("libtorrent", torrent, "apt-get install python3-libtorrent"),
            ("rqbit", rqbit, "cargo install rqbit"),
            ("sendme", sendme, "cargo install sendme"),
        ];
        for (name, start, install) in rivals {
            if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
                continue;
            }
            match start(&pair).with_context(|| format!("{name}'s server"))? {
                Some(rival) => contestants.push(rival),
                None => println!("{name} is not in PATH, and not measured: {install}"),
            }
        }

        let program = std::env::current_exe()?;
        let server = pair.server();
        let on = server.address().into();
        let bare = Bare::start(Setup::Tuned, server.command(&program), on)?;
        let mut of_bare = Vec::new();

        let mut table = Table::new(bytes as u64);
        for _ in 0..args.runs {
            let fetch_bare = bare.get(pair.client().command(&program), bytes as u64);
            let trial = measure::trial(fetch_bare, &[bare.id()])?;
            of_bare.push(table.add(BARE, trial));
            for contestant in &mut contestants {
                let trial = fetch(&pair, contestant)?;
                contestant.trials.push(table.add(contestant.name, trial));
            }
        }
        println!();
        for contestant in &contestants {
            table.add_median(contestant.name, &contestant.trials);
        }
        table.add_median(BARE, &of_bare);
        println!();
        let wall = |of: &[Trial]| median(of.iter().map(|trial| trial.wall.as_secs_f64()));
        let (ours, rivals) = contestants.split_first().context("we are missing")?;
        for rival in rivals {
            let ratio = wall(&ours.trials) / wall(&rival.trials);
            println!("qshare get / {}: {ratio:.2} of its time", rival.name);
        }
        let copy = pair.home().join(FETCHED);
        compare_cpu(&ours.trials, &of_bare, Parts::of(&file, &copy)?);
        remove(&copy)?;
        if several {
            let one = args.mib as f64 / wall(&ours.trials);
            receive(&pair, &shares, args, one)?;
        }
        Ok(())
    }

    /// Our processor time beside that of what has to be done: moving the bytes, hashing them, and
    /// reading and writing them.
    fn compare_cpu(ours: &[Trial], bare: &[Trial], parts: Parts) {
        let both = |of: &[Trial]| {
            let sums = of.iter().map(|trial| trial.own_cpu + trial.others_cpu);
            median(sums.map(|sum| sum.as_secs_f64()))
        };
        let (hashing, copying) = (parts.hashing.as_secs_f64(), parts.copying.as_secs_f64());
        let least = both(bare) + hashing + copying;
        println!(
            "processor time: qshare get {:.2} s; {BARE} {:.2} s + hashing {hashing:.2} s + a copy {copying:.2} s = {least:.2} s: {:.2} times that",
            both(ours),
            both(bare),
            both(ours) / least,
        );
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
        let mut command = (contestant.command)()?;
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

    /// Several receivers at once, each with a file of its own, beside the MiB/s of one.
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
            (shares.len() * args.share_mib) as f64 / median(totals.into_iter()) / one,
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
        let config = nginx_config(&dir, &pair.assets(), HTTPS_PORT)?;
        let mut nginx = pair.server().command("nginx");
        nginx.arg("-c").arg(config);
        let nginx = pair.serve(&mut nginx, HTTPS_PORT)?;
        let url = format!("https://{}:{HTTPS_PORT}/{FILE}", pair.server().address());
        let command = move || {
            let mut command = pair.client().command("curl");
            command
                .args(["-sk", &url, "-o"])
                .arg(pair.home().join(FETCHED));
            Ok(command)
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
            Ok(command)
        };
        Ok(Some(Contestant {
            name: "libtorrent, TCP",
            serving: vec![seed.id()],
            command: Box::new(command),
            trials: Vec::new(),
            _servers: vec![seed],
        }))
    }

    /// rqbit over TCP: plaintext, SHA-1. No DHT, no trackers: it is told where the seed is.
    fn rqbit(pair: &Pair) -> anyhow::Result<Option<Contestant<'_>>> {
        if !is_installed("rqbit", "--version") {
            return Ok(None);
        }
        let alone = |host: &Host| {
            let mut rqbit = host.command("rqbit");
            rqbit
                .env("HOME", pair.home())
                .args(["--disable-dht", "--disable-lsd", "--disable-trackers"])
                .arg("--disable-upnp-port-forward");
            rqbit
        };
        let at = SocketAddr::new(pair.server().address().into(), RQBIT_PORT);
        let mut seed = alone(pair.server());
        seed.args(["--listen-port", &at.port().to_string()])
            .arg("share")
            .arg(pair.assets().join(FILE))
            .stderr(Stdio::null());
        let (seed, magnet) = Server::start(&mut seed, |line| {
            let link = line.find("magnet:").and_then(|start| line.get(start..));
            link.map(|link| link.trim_end().to_owned())
        })?;
        let command = move || {
            let mut get = alone(pair.client());
            get.args(["download", "--exit-on-finish", "--disable-http-api"])
                .args(["--initial-peers", &at.to_string(), "--output-folder"])
                .arg(pair.home().join(FETCHED))
                .arg(&magnet);
            Ok(get)
        };
        Ok(Some(Contestant {
            name: "rqbit, TCP",
            serving: vec![seed.id()],
            command: Box::new(command),
            trials: Vec::new(),
            _servers: vec![seed],
        }))
    }

    /// sendme (iroh: QUIC, BLAKE3). No relay: the ticket holds addresses.
    fn sendme(pair: &Pair) -> anyhow::Result<Option<Contestant<'_>>> {
        if !is_installed("sendme", "--version") {
            return Ok(None);
        }
        let alone = |host: &Host, doing: &str, within: &Path| {
            fs::create_dir_all(within)?;
            let mut sendme = host.command("sendme");
            sendme.env("HOME", pair.home()).current_dir(within).args([
                doing,
                "--relay",
                "disabled",
                "--no-progress",
            ]);
            anyhow::Ok(sendme)
        };
        let mut send = alone(pair.server(), "send", &pair.home().join("sendme"))?;
        send.args(["--ticket-type", "addresses"])
            .arg(pair.assets().join(FILE))
            .stderr(Stdio::null());
        let (send, ticket) = Server::start(&mut send, |line| {
            let ticket = line.trim().strip_prefix("sendme receive ");
            ticket.map(str::to_owned)
        })?;
        let command = move || {
            let mut receive = alone(pair.client(), "receive", &pair.home().join(FETCHED))?;
            receive.arg(&ticket);
            Ok(receive)
        };
        Ok(Some(Contestant {
            name: "sendme",
            serving: vec![send.id()],
            command: Box::new(command),
            trials: Vec::new(),
            _servers: vec![send],
        }))
    }
}
