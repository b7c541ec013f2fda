//! Sending with one command: `qshare share` and `get CODE` beside sendme and magic-wormhole, whole
//! commands in turns, between hosts of the network lab.
//!
//! `cargo bench -p qshare-benches --bench senders -- --help`. Read the ratios.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: several hosts on one machine need Linux");
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::net::TcpStream;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitCode, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, anyhow, ensure};
    use clap::Parser;
    use qshare_benches::from_cargo::FromCargo;
    use qshare_benches::measure::median;
    use qshare_benches::pair;
    use qshare_benches::server::{Server, is_installed};
    use qshare_benches::stage::Stage;
    use qshare_tests::binary;
    use qshare_tests::lab::{Host, HostPlan, Lab, Link, Rate};
    use serde_json::Value;

    /// Where qshare's tracker and wormhole's mailbox server run.
    const MIDDLE: &str = "middle";
    const SENDER: &str = "sender";
    const MAILBOX_PORT: u16 = 4000;
    const TRACKER_PORT: u16 = 65000;
    /// Pause between two runs, for deferred work of the kernel.
    const PAUSE: Duration = Duration::from_millis(300);
    /// Debian's Python, for which its packages are installed.
    const PYTHON: &str = "/usr/bin/python3";

    #[derive(Debug, Parser)]
    struct Args {
        /// Rounds, in each of which every program runs once.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// MiB of the large file.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Files of the folder, 4 KiB each.
        #[arg(long, default_value_t = 10_000)]
        files: usize,
        /// Receivers of the last scenario.
        #[arg(long, default_value_t = 8)]
        receivers: usize,
        /// Rate of every link of the last scenario.
        #[arg(long, default_value = "100mbit")]
        rate: Rate,
        /// MiB that each receives there.
        #[arg(long, default_value_t = 64)]
        crowd_mib: u64,
        /// Only these scenarios: small, large, folder, crowd.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
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
        let tools = installed();
        let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
        let stage = Stage::new(None)?;
        println!(
            "{:24} {:10} {:>14} {:>16} {:>12}",
            "", "", "code after, s", "all received, s", "beside ours"
        );
        let unlimited = Link::default();
        if wanted("small") {
            let file = stage.noise_file("small", 1 << 10)?;
            run("1 KiB", &tools, &file, 1, unlimited, args.runs)?;
        }
        if wanted("large") {
            let file = stage.noise_file("large", args.mib << 20)?;
            let title = format!("{} MiB", args.mib);
            run(&title, &tools, &file, 1, unlimited, args.runs)?;
            fs::remove_file(file)?;
        }
        if wanted("folder") {
            let folder = make_folder(&stage, args.files)?;
            let title = format!("{} x 4 KiB", args.files);
            run(&title, &tools, &folder, 1, unlimited, args.runs)?;
            fs::remove_dir_all(folder)?;
        }
        if wanted("crowd") {
            let file = stage.noise_file("crowd", args.crowd_mib << 20)?;
            let title = format!("{} MiB to {}", args.crowd_mib, args.receivers);
            let link = Link::with_rate(args.rate);
            run(&title, &tools, &file, args.receivers, link, args.runs)?;
        }
        Ok(())
    }

    /// A program that sends with one command.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Tool {
        Qshare,
        Sendme,
        Wormhole,
    }

    fn installed() -> Vec<Tool> {
        let mut tools = vec![Tool::Qshare];
        let wormhole = || {
            let server = Command::new(PYTHON)
                .args(["-m", "twisted", "wormhole-mailbox", "--version"])
                .output();
            is_installed("wormhole", "--version")
                && server.is_ok_and(|output| output.status.success())
        };
        let rivals: [(Tool, bool, &str); 2] = [
            (
                Tool::Sendme,
                is_installed("sendme", "--version"),
                "cargo install sendme",
            ),
            (
                Tool::Wormhole,
                wormhole(),
                "apt-get install magic-wormhole python3-magic-wormhole-mailbox-server",
            ),
        ];
        for (tool, is_there, install) in rivals {
            match is_there {
                true => tools.push(tool),
                false => println!("{} is not installed: {install}", tool.name()),
            }
        }
        tools
    }

    /// Hosts, and a directory in memory that all see.
    struct Scene {
        lab: Lab,
        home: tempfile::TempDir,
        receivers: usize,
    }

    impl Scene {
        fn new(receivers: usize, link: Link) -> anyhow::Result<Scene> {
            let names = (0..receivers).map(receiver_name);
            let shaped = std::iter::once(SENDER.to_owned()).chain(names);
            let lab = Lab::builder()
                .host(HostPlan::new(MIDDLE))
                .hosts(shaped.map(|name| HostPlan::new(name).link(link)))
                .build()?;
            let home = tempfile::Builder::new()
                .prefix("qshare-bench")
                .tempdir_in("/dev/shm")?;
            Ok(Scene {
                lab,
                home,
                receivers,
            })
        }

        fn qshare(&self, host: &Host, certs: &str) -> Command {
            let mut command = host.command(binary::path());
            binary::forget_surroundings(&mut command);
            command
                .env("HOME", self.home.path())
                .env("QSHARE_CERTS", self.home.path().join(certs));
            command
        }

        fn tracker(&self) -> String {
            format!("{}:{TRACKER_PORT}", self.lab.host(MIDDLE).address())
        }

        /// Returns a command of wormhole whose errors, among them the code, go to its output.
        fn wormhole(&self, host: &Host) -> Command {
            let mailbox = format!("ws://{}:{MAILBOX_PORT}/v1", self.lab.host(MIDDLE).address());
            let mut command = host.command("sh");
            // Sender and receiver reach each other: no helper is needed.
            command
                .env("HOME", self.home.path())
                .env("PYTHONUNBUFFERED", "1")
                .args(["-c", "exec wormhole \"$@\" 2>&1", "wormhole"])
                .args(["--relay-url", &mailbox, "--transit-helper", ""]);
            command
        }

        /// Starts what stays: qshare's tracker and wormhole's mailbox server.
        fn start_middle(&self, tools: &[Tool]) -> anyhow::Result<Vec<Server>> {
            let host = self.lab.host(MIDDLE);
            let mut tracker = self.qshare(host, "tracker");
            tracker.args(["tracker", "--json"]).stderr(Stdio::null());
            let (tracker, ()) = Server::start(&mut tracker, |_| Some(()))?;
            let mut servers = vec![tracker];
            if tools.contains(&Tool::Wormhole) {
                let mut mailbox = host.command(PYTHON);
                mailbox
                    .args(["-m", "twisted", "wormhole-mailbox"])
                    .args(["--port", &format!("tcp:{MAILBOX_PORT}")])
                    .args(["--channel-db", ":memory:"])
                    .current_dir(self.home.path())
                    .stdout(Stdio::null());
                let at = (host.address(), MAILBOX_PORT);
                servers.push(Server::spawn(&mut mailbox, || {
                    matches!(host.inside(|| TcpStream::connect(at)), Ok(Ok(_)))
                })?);
            }
            Ok(servers)
        }
    }

    fn receiver_name(number: usize) -> String {
        format!("receiver-{number}")
    }

    impl Tool {
        fn name(self) -> &'static str {
            match self {
                Tool::Qshare => "qshare",
                Tool::Sendme => "sendme",
                Tool::Wormhole => "wormhole",
            }
        }

        /// Offers a path to all receivers. Returns the senders, and a code for each receiver.
        fn send(self, scene: &Scene, path: &Path) -> anyhow::Result<(Vec<Server>, Vec<String>)> {
            let host = scene.lab.host(SENDER);
            match self {
                Tool::Qshare => {
                    let mut share = scene.qshare(host, "sender");
                    share
                        .args(["share", "--json", "--tracker", &scene.tracker()])
                        .arg(path)
                        .stderr(Stdio::null());
                    let (share, code) = Server::start(&mut share, |line| {
                        let line: Value = serde_json::from_str(line).ok()?;
                        line["code"].as_str().map(str::to_owned)
                    })?;
                    Ok((vec![share], vec![code; scene.receivers]))
                }
                Tool::Sendme => {
                    let within = scene.home.path().join("sendme");
                    fs::create_dir_all(&within)?;
                    let mut send = host.command("sendme");
                    send.env("HOME", scene.home.path())
                        .current_dir(within)
                        .args(["send", "--relay", "disabled", "--no-progress"])
                        .args(["--ticket-type", "addresses"])
                        .arg(path)
                        .stderr(Stdio::null());
                    let (send, ticket) = Server::start(&mut send, |line| {
                        let ticket = line.trim().strip_prefix("sendme receive ");
                        ticket.map(str::to_owned)
                    })?;
                    Ok((vec![send], vec![ticket; scene.receivers]))
                }
                // A code of wormhole is for one receiver.
                Tool::Wormhole => {
                    let mut sending = Vec::new();
                    for _ in 0..scene.receivers {
                        let mut send = scene.wormhole(host);
                        send.args(["send", "--hide-progress"]).arg(path);
                        sending.push(Server::start(&mut send, |line| {
                            let code = line.trim().strip_prefix("Wormhole code is: ");
                            code.map(str::to_owned)
                        })?);
                    }
                    Ok(sending.into_iter().unzip())
                }
            }
        }

        /// Returns the command that receives into the directory where it runs.
        fn receive(self, scene: &Scene, host: &Host, code: &str) -> Command {
            match self {
                Tool::Qshare => {
                    let mut get = scene.qshare(host, host.name());
                    get.args(["-q", "get", "--tracker", &scene.tracker(), code]);
                    get
                }
                Tool::Sendme => {
                    let mut receive = host.command("sendme");
                    receive.env("HOME", scene.home.path()).args([
                        "receive",
                        "--relay",
                        "disabled",
                        "--no-progress",
                        code,
                    ]);
                    receive
                }
                Tool::Wormhole => {
                    let mut receive = scene.wormhole(host);
                    receive.args(["receive", "--hide-progress", "--accept-file", code]);
                    receive
                }
            }
        }
    }

    /// Times of one run.
    #[derive(Debug, Clone, Copy)]
    struct Run {
        /// From the sender's command to its code.
        code: f64,
        /// From the receivers' commands to the end of the last.
        received: f64,
    }

    /// One scenario: every program in turns, and then the medians.
    fn run(
        title: &str,
        tools: &[Tool],
        source: &Path,
        receivers: usize,
        link: Link,
        rounds: usize,
    ) -> anyhow::Result<()> {
        let scene = Scene::new(receivers, link)?;
        let _middle = scene.start_middle(tools)?;
        let mut runs = vec![Vec::new(); tools.len()];
        for _ in 0..rounds {
            for (tool, runs) in tools.iter().zip(&mut runs) {
                let run = once(&scene, *tool, source).with_context(|| tool.name())?;
                println!(
                    "{title:24} {:10} {:14.2} {:16.2}",
                    tool.name(),
                    run.code,
                    run.received
                );
                runs.push(run);
            }
        }
        let of = |runs: &[Run], part: fn(&Run) -> f64| median(runs.iter().map(part));
        let ours = of(&runs[0], |run| run.received);
        for (tool, runs) in tools.iter().zip(&runs) {
            let received = of(runs, |run| run.received);
            println!(
                "= {title:22} {:10} {:14.2} {received:16.2} {:11.2}x",
                tool.name(),
                of(runs, |run| run.code),
                received / ours
            );
        }
        Ok(())
    }

    fn once(scene: &Scene, tool: Tool, source: &Path) -> anyhow::Result<Run> {
        let begun = Instant::now();
        let (senders, codes) = tool.send(scene, source)?;
        let code = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut receiving = Vec::new();
        for (number, code) in codes.iter().enumerate() {
            let host = scene.lab.host(&receiver_name(number));
            let within = scene.home.path().join(format!("received-{number}"));
            fs::create_dir_all(&within)?;
            let mut receive = tool.receive(scene, host, code);
            receive
                .current_dir(&within)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut receiver = receive.spawn()?;
            receiving.push((within, thread::spawn(move || receiver.wait())));
        }
        let mut places = Vec::new();
        for (within, receiver) in receiving {
            let status = receiver.join().map_err(|_| anyhow!("a wait failed"))??;
            ensure!(status.success(), "a receiver: {status}");
            places.push(within);
        }
        let received = begun.elapsed().as_secs_f64();
        drop(senders);
        let name = source.file_name().context("a source has a name")?;
        for within in places {
            let same = Command::new("diff")
                .arg("-rq")
                .args([source, &within.join(name)])
                .status()?;
            ensure!(same.success(), "something else was received");
            fs::remove_dir_all(within)?;
        }
        let _ = fs::remove_dir_all(scene.home.path().join("sendme"));
        thread::sleep(PAUSE);
        Ok(Run { code, received })
    }

    /// A folder of files of 4 KiB, 100 to a directory.
    fn make_folder(stage: &Stage, files: usize) -> anyhow::Result<PathBuf> {
        let folder = stage.path().join("folder");
        for number in 0..files {
            let dir = folder.join(format!("{:03}", number / 100));
            fs::create_dir_all(&dir)?;
            let bytes = qshare_tests::files::noise(4096, number as u64 + 1);
            fs::write(dir.join(format!("{number:05}")), bytes)?;
        }
        Ok(folder)
    }
}
