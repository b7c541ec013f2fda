//! A download says why it is not faster: for each bottleneck the largest share has its name.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use qshare_tests::binary;
use qshare_tests::files::noise;
use qshare_tests::lab::{Host, HostPlan, Lab, Link, NatKind, isolation};
use qshare_tests::networked::{Networked, TRACKER_PORT};
use qshare_tests::process::Process;
use serde_json::Value;

const FILE: &str = "file.bin";
const FILE_BYTES: usize = 24_000_000;
/// Number of statuses in a row in which the cause must be the largest.
const IN_A_ROW: u32 = 5;
const ASK_EVERY: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(60);

/// A node with a prompt on a host.
struct Prompted {
    process: Process,
    answers: usize,
}

impl Prompted {
    /// Starts a node on `host` and downloads the file.
    fn downloading(
        world: &Networked,
        host: &Host,
        tracker: &Host,
        change: impl FnOnce(&mut Command),
    ) -> Prompted {
        let mut command = world.command(host, "node");
        let tracker = format!("{}:{TRACKER_PORT}", tracker.address());
        command.args(["--json", "--certs", "certs", "--tracker", &tracker]);
        change(&mut command);
        let mut process = Process::start(command);
        process.ready();
        process.says(": connected");
        process
            .input()
            .write_all(format!("{FILE}\n").as_bytes())
            .unwrap();
        // A line that follows at once is read as a script, which waits for each download.
        process.says(&format!("{FILE}: "));
        Prompted {
            process,
            answers: 0,
        }
    }

    /// Returns the status of the download.
    fn status(&mut self) -> Option<Value> {
        self.process.input().write_all(b"status\n").unwrap();
        let index = self.answers;
        self.answers += 1;
        let answer = self.process.out.find(|text| {
            let (whole, _) = text.rsplit_once('\n')?;
            let objects = whole
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let mut statuses = objects.filter(|object: &Value| object.get("trackers").is_some());
            statuses.nth(index)
        });
        answer.expect("the node answers")["downloads"]
            .get(0)
            .cloned()
    }

    /// Waits until the cause is the largest, several times in a row.
    fn says(&mut self, cause: &str) {
        let deadline = Instant::now() + DEADLINE;
        let (mut in_a_row, mut last) = (0, Value::Null);
        while in_a_row < IN_A_ROW {
            assert!(Instant::now() < deadline, "{cause} is not said: {last}");
            // Before it begins, and after its end, there is no status.
            let status = self.status().unwrap_or_default();
            let why = status["why"].as_array().cloned().unwrap_or_default();
            let percents = why.iter().map(|share| share["percent"].as_u64().unwrap());
            assert!(why.is_empty() || percents.sum::<u64>() == 100, "{why:?}");
            match why.first().is_some_and(|first| first["cause"] == cause) {
                true => in_a_row += 1,
                false => in_a_row = 0,
            }
            if !why.is_empty() {
                last = status["why"].clone();
            }
            let next = Instant::now() + ASK_EVERY;
            while Instant::now() < next {
                std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
        println!("{cause}: {last}");
    }
}

fn shaped(name: &str, up: &str) -> HostPlan {
    HostPlan::new(name).link(Link {
        up: Some(up.parse().unwrap()),
        down: Some("200mbit".parse().unwrap()),
        delay: Duration::from_millis(10),
        ..Link::default()
    })
}

/// Shares the file on `a` and downloads it on `b`.
fn expect(a: HostPlan, b: HostPlan, of_tracker: &[&str], of_b: &[&str], cause: &str) {
    let lab = Lab::builder()
        .host(HostPlan::new("tracker"))
        .hosts([a, b])
        .build()
        .unwrap();
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let world = Networked::new(binary::path().to_owned());
    world.share(a, FILE, &noise(FILE_BYTES, 1));
    let _tracker = world.tracker(tracker, of_tracker);
    let _node = world.node(a, tracker, &[]);
    world.wait_listed(tracker, FILE);
    Prompted::downloading(&world, b, tracker, |node| {
        node.args(of_b);
    })
    .says(cause);
}

#[test]
fn a_slow_uplink_of_the_source_is_named_and_then_its_loss() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .hosts([shaped("a", "8mbit"), shaped("b", "8mbit")])
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        world.share(a, FILE, &noise(FILE_BYTES, 1));
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &[]);
        world.wait_listed(tracker, FILE);
        let mut downloading = Prompted::downloading(&world, b, tracker, |_| {});
        downloading.says("congestion-window");
        lab.cut(a).unwrap();
        downloading.says("waiting-for-sources");
    });
}

#[test]
fn a_relay_is_named() {
    isolation::test(|| {
        let symmetric = |name: &str| HostPlan::new(name).nat(NatKind::Symmetric);
        let slow = ["--relay-client-mbit", "16"];
        expect(symmetric("a"), symmetric("b"), &slow, &[], "relay");
    });
}

#[test]
fn an_own_limit_is_named() {
    isolation::test(|| {
        let (a, b) = (shaped("a", "200mbit"), shaped("b", "200mbit"));
        expect(a, b, &[], &["--limit-down", "1MB"], "own-limit");
    });
}

#[test]
fn a_full_queue_at_the_source_is_named() {
    isolation::test(|| {
        let others = ["c", "d", "e", "f", "g"];
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .hosts([shaped("a", "20mbit"), shaped("b", "20mbit")])
            .hosts(others.map(|name| shaped(name, "20mbit")))
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        world.share(a, FILE, &noise(FILE_BYTES, 1));
        // Each of the others wants a file of its own, so that the source serves all of them.
        for (seed, name) in others.iter().enumerate() {
            world.share(a, name, &noise(FILE_BYTES, 2 + seed as u64));
        }
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &[]);
        world.wait_listed(tracker, FILE);
        others
            .iter()
            .for_each(|name| world.wait_listed(tracker, name));
        let _gets = others.map(|name| world.get(lab.host(name), tracker, &[name]));
        Prompted::downloading(&world, b, tracker, |_| {}).says("upload-queues");
    });
}

#[test]
fn a_slow_disk_is_named() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .hosts([HostPlan::new("a"), HostPlan::new("b")])
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        let slow = slow_writes(&world.dir(b));
        world.share(a, FILE, &noise(FILE_BYTES, 1));
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &[]);
        world.wait_listed(tracker, FILE);
        Prompted::downloading(&world, b, tracker, |node| {
            node.env("LD_PRELOAD", &slow);
        })
        .says("disk");
    });
}

/// Builds a library whose `pwrite` writes 1 MB/s, all threads together, as a slow disk does.
fn slow_writes(dir: &Path) -> PathBuf {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <pthread.h>
        #include <sys/types.h>
        #include <unistd.h>
        static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
        typedef ssize_t (*write_at)(int, const void *, size_t, off64_t);
        ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
            write_at real = (write_at)dlsym(RTLD_NEXT, "pwrite64");
            pthread_mutex_lock(&disk);
            usleep(count);
            ssize_t written = real(file, bytes, count, at);
            pthread_mutex_unlock(&disk);
            return written;
        }
    "#;
    let (source, library) = (dir.join("slow.c"), dir.join("slow.so"));
    fs::write(&source, SOURCE).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .args(["-ldl", "-lpthread"])
        .status()
        .unwrap();
    assert!(built.success());
    library
}
