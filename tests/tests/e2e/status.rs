//! `status`: what a download waits for, and at which peers.

use std::io::Write;

use qshare_tests::files::noise;
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Process, eventually};
use qshare_tests::world::World;
use serde_json::Value;

#[test]
fn a_script_asks_what_a_download_waits_for() {
    const ANSWERED: usize = 3;
    let world = World::new();
    let tracker = world.tracker();
    let bytes = noise(4 << 20, 60);
    let source = TestPeer::start(Manner::Gated, tracker.address, "x.bin", &bytes);
    let useless = TestPeer::start(Manner::HasNothing, tracker.address, "x.bin", &bytes);
    let mut command = world.prompt_command("node", tracker.address);
    command.arg("--json");
    let mut node = Process::start(command);
    node.ready();
    node.input().write_all(b"x.bin\n").unwrap();
    source.allow(ANSWERED);
    source.until_answered(ANSWERED);
    let (status, at) = eventually("a status that tells of both", || {
        node.input().write_all(b"status\n").unwrap();
        let text = node.out.text();
        let objects = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        objects.rev().take(1).find_map(|status: Value| {
            let download = status["downloads"].get(0)?;
            let sources = download["sources"].as_array()?;
            let node_of = |source: &Value| source["node"].as_str().map(str::to_owned);
            let at = sources
                .iter()
                .position(|one| node_of(one) == Some(source.id.to_string()))?;
            let both = sources.len() == 2 && download["verified_chunks"] == ANSWERED;
            both.then(|| (download.clone(), at))
        })
    });
    let (served, other) = (&status["sources"][at], &status["sources"][1 - at]);
    let chunk_bytes = 128 * 1024;
    assert_eq!(status["chunks"], 32);
    assert_eq!(status["unheld_chunks"], 0);
    assert_eq!(status["wasted_bytes"], 0);
    assert_eq!(status["received_bytes"], ANSWERED * chunk_bytes);
    assert_eq!(served["received_bytes"], ANSWERED * chunk_bytes);
    assert_eq!(served["wanted_chunks"], 32 - ANSWERED);
    assert_eq!(served["answering"], 0);
    assert!(served["waiting"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(other["node"], useless.id.to_string());
    assert_eq!(other["wanted_chunks"], 0);
}
