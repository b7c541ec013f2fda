//! A tracker whose answers do not match the query.

use std::fs;
use std::io::Write;

use qshare_content::{AssetName, ContentInfo, Hash, Link};
use qshare_tests::files::{assert_same, noise};
use qshare_tests::lying_tracker::{Lie, LyingTracker};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::Process;
use qshare_tests::world::World;

const KIB: usize = 1 << 10;

/// A tracker that answers everything with `src/Makefile`, and the node that serves that file.
fn trap(bytes: &[u8]) -> (LyingTracker, TestPeer) {
    let tracker = LyingTracker::start();
    let peer = TestPeer::start(Manner::Honest, tracker.address, "src/Makefile", bytes);
    (tracker, peer)
}

/// A content that nobody has.
fn wanted() -> ContentInfo {
    ContentInfo {
        length: 5,
        root: Hash([0x3f; 32]),
    }
}

#[test]
fn a_file_that_does_not_answer_the_query_is_not_fetched() {
    let world = World::new();
    let (tracker, peer) = trap(&noise(200 * KIB, 1));
    let id = wanted().id().to_string();
    let node = "a".repeat(52);
    let queries = [
        id.clone(),
        format!("id:{}", &id[..8]),
        "report.pdf".to_owned(),
        "*.pdf".to_owned(),
        format!("{node}/report.pdf"),
    ];
    for query in &queries {
        world
            .get("to", tracker.address, &[query])
            .with(3)
            .saying("no node shares");
    }
    assert_eq!(fs::read_dir(world.dir("to")).unwrap().count(), 0);
    assert_eq!(peer.take_asked(), []);
}

#[test]
fn no_file_is_replaced_by_one_that_was_not_asked_for() {
    let world = World::new();
    let (tracker, _peer) = trap(b"all: evil");
    let makefile = world.dir("to/src").join("Makefile");
    fs::write(&makefile, "all: good").unwrap();
    let id = wanted().id().to_string();
    for query in [id.as_str(), "id:3", "report.pdf"] {
        world
            .get("to", tracker.address, &["--force", query])
            .with(3);
    }
    assert_same(&makefile, b"all: good");
}

#[test]
fn a_link_decides_what_is_fetched_at_the_prompt() {
    let world = World::new();
    let (tracker, _peer) = trap(b"all: evil");
    let link = Link {
        info: wanted(),
        trackers: Vec::new(),
        nodes: Vec::new(),
        name: Some(AssetName::new("report.pdf").unwrap()),
        key: None,
        modified_ns: None,
        executable: false,
        folder: None,
    };
    let command = world.prompt_command("node", tracker.address);
    let mut node = Process::start(command);
    writeln!(node.input(), "{link}\nq").unwrap();
    node.end().saying("no node shares");
    assert_eq!(
        fs::read_dir(world.dir("node/downloads")).unwrap().count(),
        0
    );
}

#[test]
fn the_name_of_an_id_brings_no_directory_and_replaces_nothing() {
    let world = World::new();
    let tracker = world.tracker();
    world.put("node", "src/Makefile", b"all: new");
    let _node = world.node("node", tracker.address);
    let found = tracker.client().until_complete("src/Makefile", 1);
    let id = found.info.id().to_string();

    world.get("to", tracker.address, &[&id]).well();
    assert_same(&world.path("to/Makefile"), b"all: new");
    assert!(!world.path("to/src").exists());

    let makefile = world.dir("there").join("Makefile");
    fs::write(&makefile, "all: old").unwrap();
    world
        .get("there", tracker.address, &["--force", &id])
        .with(1)
        .saying("-o FILE");
    assert_same(&makefile, b"all: old");
    world
        .get(
            "there",
            tracker.address,
            &["--force", "-o", "Makefile", &id],
        )
        .well();
    assert_same(&makefile, b"all: new");
}

#[test]
fn a_listing_that_ends_early_says_so() {
    let world = World::new();
    for (lie, more) in [
        (Lie::Endless, &["--timeout", "2"][..]),
        (Lie::Repeated, &[]),
    ] {
        let tracker = LyingTracker::start_with(lie);
        let address = tracker.address.to_string();
        let list = |options: &[&str]| {
            let all = [&["ls", "--tracker", &address], more, options].concat();
            world.run("to", &all).with(1)
        };
        // In JSON, and quietly: one line on stderr, and a last object on stdout.
        let listed = list(&["-q", "--json"]);
        assert_eq!(listed.err.lines().count(), 1, "{listed:?}");
        assert!(listed.err.contains("incomplete"), "{listed:?}");
        let objects = listed.json();
        let (last, files) = objects.split_last().unwrap();
        assert_eq!(last.to_string(), r#"{"truncated":true}"#);
        assert!(files.len() > 1, "{listed:?}");
        assert!(
            files.iter().all(|file| file["name"].is_string()),
            "{listed:?}"
        );
        // As a table.
        let listed = list(&[]);
        assert!(listed.out.starts_with("f0 "), "{listed:?}");
        listed.saying("incomplete");
    }
    let tracker = LyingTracker::start_with(Lie::Repeated);
    world
        .get("to", tracker.address, &["f*"])
        .with(1)
        .saying("cannot list all files");
}
