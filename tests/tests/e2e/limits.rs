//! Rate limits, measured on links of the network lab.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use qshare_tests::binary;
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lab::{Host, HostPlan, Lab, Link, NatKind, isolation, probe};
use qshare_tests::networked::{Networked, paths};
use qshare_tests::process::Process;

const FILE: &str = "file.bin";
/// Time over which a rate is measured, and the time before it.
const MEASURED: Duration = Duration::from_secs(5);
const BEFORE: Duration = Duration::from_millis(1500);
/// Interval between pings.
const PING_EVERY: Duration = Duration::from_millis(5);

/// How much longer pings may wait at a limit than at half of it.
const PING_EXCESS_MAX: Duration = Duration::from_millis(5);
const ATTEMPTS: u32 = 3;

/// A transfer that was measured.
struct Measured {
    /// Bytes that left or reached the limited host each second, Ethernet headers included.
    bytes_per_second: f64,
    /// The 95th percentile of the RTT of pings of the limited host during that time.
    ping_p95: Duration,
}

fn lab(more: &[HostPlan]) -> Lab {
    let link = Link {
        up: Some("100mbit".parse().unwrap()),
        down: Some("100mbit".parse().unwrap()),
        delay: Duration::from_millis(5),
        ..Link::default()
    };
    Lab::builder()
        .host(HostPlan::new("tracker"))
        .host(HostPlan::new("a").link(link))
        .host(HostPlan::new("b").link(link))
        .hosts(more.iter().cloned())
        .build()
        .unwrap()
}

/// Lets time pass. A token of an earlier `unpark` may end `park_timeout` early.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Waits until a download has received its first bytes.
fn wait_until_running(host: &Host) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let before = host.counters().unwrap();
    while host.counters().unwrap().since(before).received_bytes < 300_000 {
        assert!(Instant::now() < deadline, "the download does not begin");
        pass(Duration::from_millis(10));
    }
}

/// Measures what `limited` sends (or receives) while `_running` runs, and pings from it to another
/// host.
fn measure(limited: &Host, other: &Host, sends: bool, _running: &Process) -> Measured {
    pass(BEFORE);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| pings(limited, other, &done));
        let (before, since) = (limited.counters().unwrap(), Instant::now());
        pass(MEASURED);
        let bytes = limited.counters().unwrap().since(before);
        let seconds = since.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let mut times = pings.join().unwrap();
        times.sort_unstable();
        let bytes = match sends {
            true => bytes.sent_bytes,
            false => bytes.received_bytes,
        };
        Measured {
            bytes_per_second: bytes as f64 / seconds,
            ping_p95: times[times.len() * 95 / 100],
        }
    })
}

/// Returns the RTT of small packets to another host and back.
fn pings(from: &Host, to: &Host, done: &AtomicBool) -> Vec<Duration> {
    // On a busy machine pings would measure how late this thread runs.
    let _ = rustix::process::nice(-15);
    let (from, to) = (probe::bind(from).unwrap(), probe::bind(to).unwrap());
    let (there, mut packet) = (to.local_addr().unwrap(), [0; 4]);
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let sent = Instant::now();
        from.send_to(b"ping", there).unwrap();
        let (_, source) = to.recv_from(&mut packet).unwrap();
        to.send_to(b"pong", source).unwrap();
        from.recv_from(&mut packet).unwrap();
        times.push(sent.elapsed());
        pass(PING_EVERY.saturating_sub(sent.elapsed()));
    }
    times
}

/// Measures a download of `b` from `a` with options of both.
fn transfer(of_a: &[&str], of_b: &[&str], sends: bool, bytes: &[u8]) -> Measured {
    let lab = lab(&[]);
    let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
    let world = Networked::new(binary::path().to_owned());
    world.share(a, FILE, bytes);
    let _tracker = world.tracker(tracker, &[]);
    let _node = world.node(a, tracker, of_a);
    world.wait_listed(tracker, FILE);
    let get = world.get(b, tracker, &[&[FILE][..], of_b].concat());
    wait_until_running(b);
    let limited = if sends { a } else { b };
    measure(limited, tracker, sends, &get)
}

/// Asserts that the rate is within 5 %, and that pings wait at most 5 ms longer than at half the
/// limit. Other programs make pings wait, too: the best of some attempts counts.
fn assert_limited(name: &str, limit: f64, measured: impl Fn(&str) -> Measured) {
    let texts = [limit, limit / 2.0].map(|limit| format!("{}kB", limit as u64 / 1000));
    for attempt in 1..=ATTEMPTS {
        let [full, half] = [0, 1].map(|at: usize| measured(&texts[at]));
        let excess = assert_rates(name, &full, &half, limit);
        if excess <= PING_EXCESS_MAX {
            return;
        }
        assert!(attempt < ATTEMPTS, "{name}: pings wait {excess:?} longer");
    }
}

/// Returns by how much the pings at the full limit are slower.
fn assert_rates(name: &str, full: &Measured, half: &Measured, limit: f64) -> Duration {
    println!(
        "{name}: {:.3} MB/s with p95 {:?}; at half the limit {:.3} MB/s with p95 {:?}",
        full.bytes_per_second / 1e6,
        full.ping_p95,
        half.bytes_per_second / 1e6,
        half.ping_p95
    );
    for (measured, limit) in [(full, limit), (half, limit / 2.0)] {
        let ratio = measured.bytes_per_second / limit;
        assert!((0.95..1.05).contains(&ratio), "{name}: {ratio} of {limit}");
    }
    full.ping_p95.saturating_sub(half.ping_p95)
}

#[test]
fn sending_is_limited_within_5_percent_and_pings_do_not_wait() {
    isolation::test(|| {
        let bytes = noise(45_000_000, 1);
        assert_limited("up", 5e6, |limit| {
            transfer(&["--limit-up", limit], &[], true, &bytes)
        });
    });
}

#[test]
fn receiving_is_limited_within_5_percent_and_pings_do_not_wait() {
    isolation::test(|| {
        let bytes = noise(45_000_000, 1);
        assert_limited("down", 5e6, |limit| {
            transfer(&[], &["--limit-down", limit], false, &bytes)
        });
    });
}

#[test]
fn a_limit_holds_for_several_receivers_together() {
    isolation::test(|| {
        let c = HostPlan::new("c").link(Link::with_rate("100mbit".parse().unwrap()));
        let lab = lab(&[c]);
        let (tracker, a) = (lab.host("tracker"), lab.host("a"));
        let world = Networked::new(binary::path().to_owned());
        // Two files, so that the receivers do not exchange chunks.
        world.share(a, FILE, &noise(30_000_000, 1));
        world.share(a, "other.bin", &noise(30_000_000, 2));
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &["--limit-up", "4MB"]);
        world.wait_listed(tracker, FILE);
        world.wait_listed(tracker, "other.bin");
        let one = world.get(lab.host("b"), tracker, &[FILE]);
        let _two = world.get(lab.host("c"), tracker, &["other.bin"]);
        wait_until_running(lab.host("b"));
        wait_until_running(lab.host("c"));
        let before = lab.host("b").counters().unwrap();
        let all = measure(a, tracker, true, &one);
        let ratio = all.bytes_per_second / 4e6;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        let share = lab.host("b").counters().unwrap().since(before);
        let seconds = (BEFORE + MEASURED).as_secs_f64();
        let share = share.received_bytes as f64 / seconds / 4e6;
        assert!((0.3..0.7).contains(&share), "one of two got {share}");
    });
}

#[test]
fn relayed_packets_count_and_a_limited_download_arrives_whole() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(HostPlan::new("a").nat(NatKind::Symmetric))
            .host(HostPlan::new("b").nat(NatKind::Symmetric))
            .build()
            .unwrap();
        let (tracker, a, b) = (lab.host("tracker"), lab.host("a"), lab.host("b"));
        let world = Networked::new(binary::path().to_owned());
        let bytes = noise(12_000_000, 1);
        world.share(a, FILE, &bytes);
        let _tracker = world.tracker(tracker, &[]);
        let _node = world.node(a, tracker, &["--limit-up", "1MB"]);
        world.wait_listed(tracker, FILE);
        let get = world.get(b, tracker, &[FILE]);
        wait_until_running(b);
        let measured = measure(a, tracker, true, &get);
        let ratio = measured.bytes_per_second / 1e6;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        let ended = get.end().well();
        assert_eq!(paths(&ended.json()[0]), ["relay"]);
        assert_same(&world.dir(b).join(FILE), &bytes);
    });
}
