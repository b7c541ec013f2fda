//! `qshare cat` and `get -o -`: bytes in order on standard output while they are fetched.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use qshare_tests::files::noise;
use qshare_tests::process::{eventually, peak_memory_bytes};
use qshare_tests::world::{World, swarm};

const MIB: usize = 1 << 20;

fn command(world: &World, tracker: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = world.command("cat", arguments);
    command.args(["--tracker", &tracker.to_string()]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(world: &World, tracker: SocketAddr, arguments: &[&str]) -> Output {
    command(world, tracker, arguments).output().unwrap()
}

/// A `cat` that is killed when the test ends.
struct Running(Child);

impl Running {
    fn start(world: &World, tracker: SocketAddr, arguments: &[&str]) -> Running {
        Running(command(world, tracker, arguments).spawn().unwrap())
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let out = self.0.stdout.as_mut().unwrap();
        out.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let out = self.0.stdout.as_mut().unwrap();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whole_files_and_ranges_arrive_as_they_are_and_nothing_is_written_to_disk() {
    let bytes = noise(5 * MIB + 77, 1);
    let (world, tracker, _nodes) = swarm(2, "d/image.bin", &bytes);
    for arguments in [
        &["cat", "d/image.bin"][..],
        &["get", "d/image.bin", "-o", "-"],
    ] {
        let got = output(&world, tracker.address, arguments);
        assert!(got.status.success(), "{got:?}");
        assert!(got.stdout == bytes, "{} bytes", got.stdout.len());
        assert!(
            got.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&got.stderr)
        );
    }
    let end = bytes.len();
    for (range, wanted) in [
        ("0-0", 0..1),
        ("1048575-3145729", 1_048_575..3_145_730),
        ("5242000-", 5_242_000..end),
        ("-100", end - 100..end),
        ("5242900-99999999", 5_242_900..end),
    ] {
        let got = output(
            &world,
            tracker.address,
            &["cat", "--range", range, "d/image.bin"],
        );
        assert!(got.stdout == bytes[wanted], "{range}");
    }
    let left: Vec<_> = std::fs::read_dir(world.path("cat")).unwrap().collect();
    let names: Vec<String> = left
        .iter()
        .map(|entry| entry.as_ref().unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn small_and_empty_files_are_written_too() {
    let (world, tracker, _nodes) = swarm(1, "small", b"hello\n");
    world.put("node-0", "empty", b"");
    tracker.client().until_complete("empty", 1);
    assert_eq!(
        output(&world, tracker.address, &["cat", "small"]).stdout,
        b"hello\n"
    );
    let empty = output(&world, tracker.address, &["cat", "empty"]);
    assert!(
        empty.status.success() && empty.stdout.is_empty(),
        "{empty:?}"
    );
}

#[test]
fn what_cannot_be_written_to_standard_output_is_refused_with_a_code() {
    let (world, tracker, _nodes) = swarm(1, "a", b"hello");
    world.put("node-0", "b", b"world");
    tracker.client().until_complete("b", 1);
    for (arguments, code, words) in [
        (&["get", "a", "b", "-o", "-"][..], 2, "only one at a time"),
        (
            &["get", "a", "-o", "-", "--json"],
            2,
            "both need standard output",
        ),
        (&["get", "a", "--range", "0-1"], 2, "--range needs -o -"),
        (&["cat", "a", "--range", "5-"], 1, "it has 5 bytes"),
        (&["cat", "a", "--range", "3-1"], 2, "FIRST-LAST"),
        (&["cat", "missing"], 3, "missing"),
    ] {
        let got = output(&world, tracker.address, arguments);
        let text = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words) && got.stdout.is_empty(), "{text}");
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let bytes = noise(64 * MIB, 2);
    let (world, tracker, _nodes) = swarm(1, "image.bin", &bytes);
    let binary = qshare_tests::binary::path().display().to_string();
    let script = format!(
        "{{ {binary} cat --tracker {} image.bin; echo code $? >&2; }} | head -c 10",
        tracker.address
    );
    let got = world
        .shell("cat", &format!("sh -c '{script}'"))
        .output()
        .unwrap();
    assert!(got.stdout == bytes[..10]);
    assert_eq!(String::from_utf8_lossy(&got.stderr), "code 0\n");
}

#[test]
fn a_slow_reader_stops_the_fetch_and_memory_stays_bounded() {
    let bytes = noise(320 * MIB, 3);
    let (world, tracker, _nodes) = swarm(1, "image.bin", &bytes);
    let mut cat = Running::start(&world, tracker.address, &["cat", "image.bin"]);
    let first = cat.read(1);
    // Until memory has not grown for a second: everything that fits has been fetched.
    let (mut most, mut since) = (0, Instant::now());
    eventually("the fetch stops", || {
        let now = peak_memory_bytes(cat.0.id())?;
        if now > most {
            (most, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    assert!(most > 30 << 20, "nothing was fetched ahead: {most}");
    assert!(most < 160 << 20, "{most} bytes for a window of 32 MiB");
    let rest = cat.read_to_end();
    assert!(first == bytes[..1] && rest == bytes[1..]);
    assert!(cat.0.wait().unwrap().success());
}

#[test]
fn a_source_that_is_lost_in_the_middle_is_not_missed() {
    let bytes = noise(128 * MIB, 4);
    let (world, tracker, mut nodes) = swarm(2, "image.bin", &bytes);
    let mut cat = Running::start(&world, tracker.address, &["cat", "image.bin"]);
    let mut got = cat.read(MIB);
    nodes[0].process.kill();
    got.extend(cat.read_to_end());
    assert!(got == bytes, "{} bytes", got.len());
    assert!(cat.0.wait().unwrap().success());
}

#[test]
fn without_any_source_it_fails_and_what_was_written_is_right() {
    let bytes = noise(128 * MIB, 5);
    let (world, tracker, mut nodes) = swarm(1, "image.bin", &bytes);
    let mut cat = Running::start(&world, tracker.address, &["cat", "image.bin"]);
    let mut got = cat.read(MIB);
    nodes[0].process.kill();
    got.extend(cat.read_to_end());
    assert!(got.len() < bytes.len() && got == bytes[..got.len()]);
    assert_eq!(cat.0.wait().unwrap().code(), Some(5));
}

#[test]
fn it_fetches_through_a_link_and_an_id_as_get_does() {
    let bytes = noise(MIB, 6);
    let (world, tracker, _nodes) = swarm(1, "image.bin", &bytes);
    let address = tracker.address.to_string();
    let link = world.run("ls", &["ls", "--links", "--tracker", &address, "image.bin"]);
    let link = link.well().out.trim().to_owned();
    let id = link["qshare:".len()..][..64].to_owned();
    for wanted in [&link, &id, &format!("id:{}", &id[..12])] {
        let got = output(&world, tracker.address, &["cat", wanted]);
        assert!(got.stdout == bytes, "{wanted}: {got:?}");
    }
    std::io::stdout().flush().unwrap();
}
