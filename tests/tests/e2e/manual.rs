//! The program prints what README.md and the manual say that it prints.
//!
//! When a message has changed, `docs/manual/record PAGE` writes the new one into the page.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use qshare_tests::binary;
use qshare_tests::lab::{HostPlan, Lab, NatKind, isolation};
use qshare_tests::networked::Networked;
use qshare_tests::privilege::skip;
use qshare_tests::process::run;

/// Exit code of `docs/manual/record` when a program that it needs is missing.
const UNAVAILABLE: i32 = 3;

/// Defines a test for each page, and the list of them.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                isolation::test(|| check($page));
            }
        )*
    };
}

pages! {
    readme: "README.md",
    boot: "docs/manual/boot.md",
    control: "docs/manual/control.md",
    download: "docs/manual/download.md",
    groups: "docs/manual/groups.md",
    limits: "docs/manual/limits.md",
    no_tracker: "docs/manual/no-tracker.md",
    scripting: "docs/manual/scripting.md",
    send: "docs/manual/send.md",
    share: "docs/manual/share.md",
    streams: "docs/manual/streams.md",
    troubleshooting: "docs/manual/troubleshooting.md",
    web: "docs/manual/web.md",
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check(page: &str) {
    let mut record = Command::new("docs/manual/record");
    record
        .args(["--check", page])
        .env("QSHARE", binary::path())
        .current_dir(root());
    let checked = run(record);
    if checked.code == Some(UNAVAILABLE) {
        return skip(&checked.out);
    }
    assert!(checked.code == Some(0), "{}{}", checked.out, checked.err);
}

#[test]
fn every_page_with_transcripts_has_a_test() {
    let manual = fs::read_dir(root().join("docs/manual")).unwrap();
    for entry in manual {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let text = fs::read_to_string(&path).unwrap_or_default();
        if name.ends_with(".md") && text.contains("\n```console\n") {
            let page = format!("docs/manual/{name}");
            assert!(PAGES.contains(&page.as_str()), "{page} has no test here");
        }
        // `console` is run, `sh` is not: each block says which.
        let fences = text.lines().filter(|line| line.starts_with("```"));
        assert!(
            !fences.step_by(2).any(|fence| fence == "```"),
            "{name}: a block without language"
        );
    }
}

/// Returns the transcripts of the network lab in a page: host, arguments and output.
fn lab_transcripts(page: &str) -> Vec<(String, Vec<String>, String)> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = text.split("\n```console lab\n").skip(1);
    let transcript = |block: &str| {
        let (block, _) = block.split_once("\n```").unwrap();
        let (typed, output) = block.split_once('\n').unwrap();
        let (host, command) = typed.split_once("$ qshare ").unwrap();
        let arguments = command.split(' ').map(str::to_owned).collect();
        (host.to_owned(), arguments, output.to_owned())
    };
    blocks.map(transcript).collect()
}

/// Replaces what differs between two runs: the tracker's ID, and the port that a router chose.
fn without_what_varies(output: &str) -> String {
    let line = |line: &str| match line.split_once(" seen at ") {
        Some((kind, at)) => {
            let (address, port) = at.rsplit_once(':').unwrap();
            assert!(port.parse::<u16>().is_ok(), "{line}");
            format!("{kind} seen at {address}")
        }
        None if line.starts_with("tracker ") => line.split(" (").next().unwrap().to_owned(),
        None => line.to_owned(),
    };
    let lines: Vec<String> = output.trim_end().lines().map(line).collect();
    lines.join("\n")
}

#[test]
fn net_prints_what_the_manual_says() {
    isolation::test(|| {
        let lab = Lab::builder()
            .host(HostPlan::new("tracker"))
            .host(HostPlan::new("home").nat(NatKind::Cone))
            .host(HostPlan::new("mobile").nat(NatKind::Symmetric))
            .build()
            .unwrap();
        let world = Networked::new(binary::path().to_owned());
        let _tracker = world.tracker(lab.host("tracker"), &[]);
        let pages = ["docs/manual/nat.md", "docs/manual/troubleshooting.md"];
        let transcripts: Vec<_> = pages.into_iter().flat_map(lab_transcripts).collect();
        assert_eq!(transcripts.len(), 3);
        for (host, arguments, output) in transcripts {
            let (subcommand, more) = arguments.split_first().unwrap();
            let mut command = world.command(lab.host(&host), subcommand);
            command.args(more);
            let printed = run(command).well();
            assert_eq!(
                without_what_varies(&printed.out),
                without_what_varies(&output),
                "{host}"
            );
        }
    });
}
