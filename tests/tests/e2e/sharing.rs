//! `qshare share` in the foreground: standard input, and addresses for browsers.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;
use std::process::Command;

use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::process::{Ended, Process, Signal, run};
use qshare_tests::world::World;
use serde_json::Value;

const MIB: usize = 1 << 20;

fn start(world: &World, arguments: &[&str]) -> Process {
    let mut command = world.command("sharer", ["share", "--json", "--certs", "certs"]);
    command.args(["--no-code", "--listen", "127.0.0.1:0"]);
    Process::start({
        command.args(arguments);
        command
    })
}

fn share_stdin(world: &World, bytes: &[u8]) -> (Process, String) {
    let mut process = start(world, &["-", "--name", "data.bin"]);
    process.input().write_all(bytes).unwrap();
    process.end_input();
    let ready = process.ready();
    assert_eq!(ready["name"], "data.bin");
    assert_eq!(ready["bytes"], bytes.len());
    let link = ready["link"].as_str().unwrap().to_owned();
    (process, link)
}

#[test]
fn standard_input_is_shared_from_a_file_that_does_not_outlive_its_process_for_long() {
    let world = World::new();
    let spooled = || {
        let dir = world.path("sharer/certs/spool");
        fs::read_dir(dir).map_or(0, |entries| entries.count())
    };
    let (mut crashed, _) = share_stdin(&world, b"lost");
    crashed.kill();
    assert_eq!(spooled(), 1);
    let bytes = noise(5 * MIB + 3, 90);
    let (process, link) = share_stdin(&world, &bytes);
    // The file of the crashed process is gone.
    assert_eq!(spooled(), 1);
    world.run("to", &["get", &link]).well();
    assert_same(&world.path("to/data.bin"), &bytes);
    process.signal(Signal::INT);
    process.end().well();
    assert_eq!(spooled(), 0);
    world
        .run("sharer", &["share", "-"])
        .with(2)
        .saying("--name");
    world
        .run("sharer", &["share", "--name", "x", "-", "certs"])
        .with(2)
        .saying("alone");
}

fn curl(arguments: &[&str]) -> Ended {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-w", "\n%{http_code}"])
        .args(arguments);
    run(command).well()
}

/// Returns the body and the status of an answer.
fn fetch(arguments: &[&str]) -> (String, String) {
    let fetched = curl(arguments).out;
    let (body, status) = fetched.trim_end().rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

#[test]
fn browsers_read_a_file_and_the_files_of_a_folder_at_printed_addresses() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert!(std::env::var("CI").is_err(), "curl is not installed");
        eprintln!("SKIPPED: curl is not installed");
        return;
    }
    let world = World::new();
    let put = |name: &str, bytes: &[u8]| files::put(&world.path("sharer").join(name), bytes);
    put("notes.txt", b"0123456789");
    put("photos/a/one.txt", b"one");
    put("photos/<b>.txt", b"two");
    let process = start(&world, &["--http", "127.0.0.1:0", "notes.txt", "photos"]);
    let address = |name: &str| {
        process.out_line(|line| {
            let shared: Value = serde_json::from_str(line).ok()?;
            let is_it = shared["name"] == name;
            is_it.then(|| shared["http"].as_str().unwrap().to_owned())
        })
    };
    let file = address("notes.txt");
    let ok = |body: &str| (body.to_owned(), "200".to_owned());
    assert_eq!(fetch(&[&file]), ok("0123456789"));
    let part = fetch(&["-r", "5-7", &file]);
    assert_eq!(part, ("567".to_owned(), "206".to_owned()));
    let head = curl(&["-I", &file]).out.to_lowercase();
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let guessed = format!("{}/notes.txt", &file[..file.rfind('/').unwrap() - 1]);
    assert_eq!(fetch(&[&guessed]).1, "404");

    let folder = address("photos");
    let (page, status) = fetch(&[&folder]);
    assert_eq!(status, "200");
    assert!(page.contains("href=\"a/one.txt\""), "{page}");
    assert!(
        page.contains("&lt;b&gt;.txt") && !page.contains("<b>"),
        "{page}"
    );
    assert_eq!(fetch(&[&format!("{folder}a/one.txt")]), ok("one"));
    assert_eq!(fetch(&[&format!("{folder}%3Cb%3E.txt")]), ok("two"));
    for missing in ["a", "b.txt", "a/../a/one.txt/"] {
        let (_, status) = fetch(&["--path-as-is", &format!("{folder}{missing}")]);
        assert_eq!(status, "404", "{missing}");
    }
}
