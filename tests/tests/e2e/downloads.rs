//! Downloads from honest nodes: one and many sources, one and many files, targets, reports.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use qshare_content::Chunks;
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::privilege;
use qshare_tests::process::{Process, Signal, run};
use qshare_tests::world::{World, swarm};
use serde_json::Value;

const MIB: usize = 1 << 20;

fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn number(object: &Value, key: &str) -> u64 {
    object[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} in {object}"))
}

fn assert_reported(report: &Value, name: &str, size: usize) {
    let mut found = keys(report);
    found.sort_unstable();
    let wanted = [
        "content",
        "name",
        "path",
        "received_bytes",
        "resumed_bytes",
        "reused_bytes",
        "seconds",
        "size",
        "sources",
        "wasted_bytes",
    ];
    assert_eq!(found, wanted);
    assert_eq!(
        (report["name"].as_str(), number(report, "size")),
        (Some(name), size as u64)
    );
    let useful = number(report, "received_bytes") - number(report, "wasted_bytes");
    assert_eq!(
        useful + number(report, "resumed_bytes"),
        size as u64,
        "{report}"
    );
    for source in report["sources"].as_array().unwrap() {
        let mut found = keys(source);
        found.sort_unstable();
        assert_eq!(found, ["address", "bytes", "chunks", "node", "path"]);
        assert_eq!(source["path"], "lan");
    }
}

#[test]
fn two_sources_both_contribute_and_the_report_adds_up() {
    let bytes = noise(48 * MIB, 1);
    let (world, tracker, nodes) = swarm(2, "builds/image.bin", &bytes);
    let got = world
        .get("to", tracker.address, &["builds/image.bin"])
        .well();
    let report = &got.json()[0];
    assert_reported(report, "builds/image.bin", bytes.len());
    assert_same(&world.path("to/builds/image.bin"), &bytes);
    let sources = report["sources"].as_array().unwrap();
    let mut named: Vec<&str> = sources
        .iter()
        .map(|source| source["node"].as_str().unwrap())
        .collect();
    let mut wanted: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    named.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    let sum: u64 = sources.iter().map(|source| number(source, "bytes")).sum();
    assert_eq!(sum, bytes.len() as u64);
}

#[test]
fn five_sources_all_contribute_and_one_that_is_killed_is_not_missed() {
    let bytes = noise(64 * MIB, 2);
    let (world, tracker, mut nodes) = swarm(5, "image.bin", &bytes);
    let got = world.get("to", tracker.address, &["image.bin"]).well();
    assert_eq!(
        got.json()[0]["sources"].as_array().unwrap().len(),
        5,
        "{got:?}"
    );
    assert_same(&world.path("to/image.bin"), &bytes);

    // The sixth source is held back, so that the download is under way when one goes.
    let gated = TestPeer::start(Manner::Gated, tracker.address, "image.bin", &bytes);
    let getting = world.start_get("to-again", tracker.address, &["image.bin"]);
    gated.until_asked(1);
    nodes[0].process.kill();
    gated.open();
    let got = getting.end().well();
    assert_reported(&got.json()[0], "image.bin", bytes.len());
    assert_same(&world.path("to-again/image.bin"), &bytes);
}

#[test]
fn the_only_source_may_come_back_after_it_was_killed() {
    let bytes = noise(8 * MIB, 3);
    let world = World::new();
    let tracker = world.tracker();
    let gated = TestPeer::start(Manner::Gated, tracker.address, "image.bin", &bytes);
    gated.allow(10);
    let getting = world.start_get("to", tracker.address, &["image.bin"]);
    gated.until_answered(10);
    drop(gated);
    world.put("node", "image.bin", &bytes);
    let _node = world.node("node", tracker.address);
    let got = getting.end().well();
    assert_same(&world.path("to/image.bin"), &bytes);
    assert_eq!(
        got.json()[0]["sources"].as_array().unwrap().len(),
        2,
        "{got:?}"
    );
}

#[test]
fn two_thousand_small_files_come_by_one_glob() {
    let world = World::new();
    let tracker = world.tracker();
    let name = |number: usize| format!("set/{}/{}/file-{number}", number % 20, number % 7);
    for number in 0..2000 {
        world.put(
            "node",
            &name(number),
            &noise(number * 13 % 5000, number as u64),
        );
    }
    world.put("node", "other", b"not wanted");
    let _node = world.node("node", tracker.address);
    let client = tracker.client();
    for directory in 0..20 {
        client.until(&format!("set/{directory}/**"), |found| found.len() == 100);
    }
    let got = world.get("to", tracker.address, &["set/**"]).well();
    assert_eq!(got.json().len(), 2000);
    for number in 0..2000 {
        let path = world.path("to").join(name(number));
        assert_same(&path, &noise(number * 13 % 5000, number as u64));
    }
    assert!(!world.path("to/other").exists());
}

#[test]
fn an_empty_file_arrives() {
    let (world, tracker, _nodes) = swarm(1, "nothing", b"");
    let got = world.get("to", tracker.address, &["nothing"]).well();
    assert_reported(&got.json()[0], "nothing", 0);
    assert_same(&world.path("to/nothing"), b"");
}

#[test]
fn names_in_several_scripts_arrive_under_the_same_names() {
    let world = World::new();
    let tracker = world.tracker();
    let names = [
        "数据/报告 2026.txt",
        "Übergröße/straße.txt",
        "файл.txt",
        "ملف.txt",
        "한국어.txt",
        "emoji 🦀.txt",
        "it's \"quoted\" $HOME.txt",
    ];
    for name in names {
        world.put("node", name, name.as_bytes());
    }
    let _node = world.node("node", tracker.address);
    let client = tracker.client();
    for name in names {
        client.until_complete(name, 1);
    }
    let got = world.get("to", tracker.address, &names).well();
    assert_eq!(got.json().len(), names.len());
    for name in names {
        assert_same(&world.path("to").join(name), name.as_bytes());
    }
    // Decomposed, as some systems write file names; the name that is told is the composed one.
    let decomposed = "Bru\u{308}cke.txt";
    world.put("node", decomposed, b"bridge");
    client.until_complete("Br\u{fc}cke.txt", 1);
    world.get("to", tracker.address, &[decomposed]).well();
    assert_same(&world.path("to/Br\u{fc}cke.txt"), b"bridge");
}

#[test]
fn output_names_a_file_or_a_directory() {
    let bytes = noise(300_000, 4);
    let (world, tracker, _nodes) = swarm(1, "d/x.bin", &bytes);
    let get = |arguments: &[&str]| world.get("to", tracker.address, arguments);
    let path = |got: qshare_tests::process::Ended| {
        got.well().json()[0]["path"].as_str().unwrap().to_owned()
    };
    assert_eq!(path(get(&["d/x.bin"])), "d/x.bin");
    assert_eq!(path(get(&["d/x.bin", "-o", "y.bin"])), "y.bin");
    assert_eq!(path(get(&["d/x.bin", "-o", "new/"])), "new/d/x.bin");
    world.dir("to/there");
    assert_eq!(path(get(&["d/x.bin", "-o", "there"])), "there/d/x.bin");
    let absolute = world.path("elsewhere.bin");
    path(get(&["d/x.bin", "-o", absolute.to_str().unwrap()]));
    for place in [
        "d/x.bin",
        "y.bin",
        "new/d/x.bin",
        "there/d/x.bin",
        "../elsewhere.bin",
    ] {
        assert_same(&world.path("to").join(place), &bytes);
    }
    world.put("node-0", "d/z.bin", b"z");
    tracker.client().until_complete("d/z.bin", 1);
    // A glob may match several files, so its output is always a directory.
    get(&["d/*", "-o", "new-too"]).well();
    assert_same(&world.path("to/new-too/d/z.bin"), b"z");
    get(&["d/*", "-o", "y.bin"]).with(2).saying("y.bin");
    assert_same(&world.path("to/y.bin"), &bytes);
}

#[test]
fn an_identical_file_is_not_fetched_and_another_one_is_not_overwritten_without_force() {
    let bytes = noise(MIB, 5);
    let (world, tracker, _nodes) = swarm(1, "x.bin", &bytes);
    files::put(&world.path("to/x.bin"), &bytes);
    let got = world.get("to", tracker.address, &["x.bin"]).well();
    assert_eq!(number(&got.json()[0], "received_bytes"), 0);

    files::put(&world.path("to/x.bin"), b"something else");
    world
        .get("to", tracker.address, &["x.bin"])
        .with(1)
        .saying("--force");
    assert_same(&world.path("to/x.bin"), b"something else");
    world
        .get("to", tracker.address, &["x.bin", "--force"])
        .well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let left: Vec<_> = fs::read_dir(world.path("to")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_directory_that_may_not_be_written_to_is_code_6() {
    let (world, tracker, _nodes) = swarm(1, "x", b"x");
    if privilege::is_root() {
        // What mode bits forbid is allowed to root, but nobody may write to a file's inside.
        files::put(&world.path("to/file"), b"");
        let got = world.get("to", tracker.address, &["x", "-o", "file/x"]);
        assert!(matches!(got.code, Some(1 | 6)), "{got:?}");
        return;
    }
    let to = world.dir("to/locked");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o500)).unwrap();
    world
        .get("to", tracker.address, &["x", "-o", "locked/"])
        .with(6)
        .saying("locked");
}

#[test]
fn a_link_leads_to_its_file_without_naming_a_tracker() {
    let bytes = noise(2 * MIB, 6);
    let (world, tracker, _nodes) = swarm(1, "my file.bin", &bytes);
    let address = tracker.address.to_string();
    let listed = world
        .run("to", &["ls", "--links", "--tracker", &address])
        .well();
    let link = listed.out.trim().to_owned();
    assert!(
        link.starts_with("qshare:") && link.contains(&tracker.id),
        "{link}"
    );
    // Through a shell and unquoted, as it would be pasted.
    let binary = qshare_tests::binary::path().to_str().unwrap();
    run(world.shell("to", &format!("{binary} get {link}"))).well();
    assert_same(&world.path("to/my file.bin"), &bytes);

    // The tracker's id in a link is a pin.
    let other = world
        .run("other", &["id", "--json", "--certs", "certs"])
        .well();
    let other = other.json()[0]["node"].as_str().unwrap().to_owned();
    let forged = link.replace(&tracker.id, &other);
    run(world.shell("forged", &format!("{binary} get {forged}")))
        .with(7)
        .saying(&tracker.id);
}

#[test]
fn content_ids_and_prefixes_and_the_node_of_a_name_lead_to_the_file() {
    let bytes = noise(MIB, 7);
    let (world, tracker, nodes) = swarm(1, "x.bin", &bytes);
    let hashed = world
        .run("node-0", &["hash", "--json", "assets/x.bin"])
        .well();
    let hashed = &hashed.json()[0];
    let mut found = keys(hashed);
    found.sort_unstable();
    assert_eq!(found, ["content", "name", "root", "size"]);
    let id = hashed["content"].as_str().unwrap();
    assert_eq!(id, files::info(&bytes).id().to_string());
    let prefix = format!("id:{}", &id[..12]);
    let of_node = format!("{}/x.bin", nodes[0].id);
    for (place, wanted) in [("a", id), ("b", &prefix), ("c", &of_node)] {
        world.get(place, tracker.address, &[wanted]).well();
        assert_same(&world.path(place).join("x.bin"), &bytes);
    }
}

#[test]
fn listing_has_exactly_the_documented_fields_and_may_be_cut_short_by_its_reader() {
    let world = World::new();
    let tracker = world.tracker();
    for number in 0..3000 {
        world.put(
            "node",
            &format!("many/file-{number}"),
            format!("{number}").as_bytes(),
        );
    }
    let _node = world.node("node", tracker.address);
    let client = tracker.client();
    client.until("many/**", |found| found.len() >= 1000);
    let address = tracker.address.to_string();
    // Whole batches are announced; the last one is there when nothing more comes.
    let listed = qshare_tests::process::eventually("all files", || {
        let listed = world
            .run("to", &["ls", "--json", "--tracker", &address])
            .well();
        (listed.out.lines().count() == 3000).then_some(listed)
    });
    for object in listed.json() {
        let mut found = keys(&object);
        found.sort_unstable();
        assert_eq!(
            found,
            ["complete", "content", "modified", "name", "partial", "size"]
        );
    }

    let mut child = world
        .command("to", ["ls", "--tracker", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("many/file-"), "{first}");
    let ended = child.wait_with_output().unwrap();
    assert!(
        ended.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_seeding_get_serves_on_and_ends_well_when_told_to() {
    let bytes = noise(4 * MIB, 8);
    let (world, tracker, mut nodes) = swarm(1, "x.bin", &bytes);
    let seeding = world.start_get("seed", tracker.address, &["--seed", "x.bin"]);
    assert_reported(&seeding.ready(), "x.bin", bytes.len());
    tracker.client().until_complete("x.bin", 2);
    nodes[0].process.kill();
    let got = world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
    assert_reported(&got.json()[0], "x.bin", bytes.len());
    seeding.signal(Signal::TERM);
    seeding.end().well();
}

#[test]
fn one_connection_a_peer_and_one_stream_a_chunk_request() {
    use std::sync::atomic::Ordering::Relaxed;
    let bytes = noise(16 * MIB, 9);
    let world = World::new();
    let tracker = world.tracker();
    let peers: Vec<TestPeer> = (0..2)
        .map(|_| TestPeer::start(Manner::Honest, tracker.address, "x.bin", &bytes))
        .collect();
    let got = world.get("to", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("to/x.bin"), &bytes);
    let report = &got.json()[0];
    let chunks = Chunks::of_length(bytes.len() as u64).count();
    let mut answered = 0;
    for peer in &peers {
        let counts = peer.counts();
        assert_eq!(counts.connections.load(Relaxed), 1);
        assert_eq!(counts.interests.load(Relaxed), 1);
        assert_eq!(counts.strays.load(Relaxed), 0);
        answered += counts.answered.load(Relaxed);
    }
    // Near the end several may be asked for parts of the same chunk, each on a stream as well.
    assert!(
        answered >= chunks as usize,
        "{answered} answers for {chunks} chunks: {report}"
    );
    let verified: u64 = report["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| number(s, "chunks"))
        .sum();
    assert!(verified >= u64::from(chunks), "{report}");
}

#[test]
fn a_changed_asset_is_not_served_under_its_old_id() {
    let (old, new) = (noise(24 * MIB, 10), noise(24 * MIB, 11));
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "x.bin", &old);
    let _node = world.node("node", tracker.address);
    let client = tracker.client();
    let before = client.until_complete("x.bin", 1);
    // Held back by a second source, so that the change falls into the download.
    let gated = TestPeer::start(Manner::Gated, tracker.address, "x.bin", &old);
    let getting = world.start_get("to", tracker.address, &["x.bin"]);
    gated.until_asked(1);
    world.put("node", "x.bin", &new);
    gated.open();
    let got = getting.end().well();
    assert_same(&world.path("to/x.bin"), &old);
    assert!(
        !got.err.contains("wrong bytes"),
        "an honest node is called a liar: {got:?}"
    );
    drop(gated);
    let changed = |found: &[qshare_wire::tracker::Match]| {
        found.len() == 1 && found[0].info != before.info && found[0].complete == 1
    };
    // The first client's connection may have timed out meanwhile: it runs only during its calls.
    tracker.client().until("x.bin", changed);
    world.get("again", tracker.address, &["x.bin"]).well();
    assert_same(&world.path("again/x.bin"), &new);
}

#[test]
fn waiting_get_takes_what_appears_later() {
    let world = World::new();
    let tracker = world.tracker();
    let mut command = world.get_command("to", tracker.address, &["--wait", "later.bin"]);
    command.stdin(Stdio::null());
    let getting = Process::start(command);
    getting.says("waiting");
    world.put("node", "later.bin", b"now");
    let _node = world.node("node", tracker.address);
    getting.end().well();
    assert_same(&world.path("to/later.bin"), b"now");
}
