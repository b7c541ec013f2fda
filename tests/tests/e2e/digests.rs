//! Plain SHA-256 digests: `--sha256`, `--sums`, `hash --sha256`, `node --sha256`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Write;

use qshare_content::{ContentId, PlainDigest};
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::world::{Node, Tracker, World};

const MIB: usize = 1 << 20;

/// A node that shares these files.
fn sharing(files: &[(&str, &[u8])], more: &[&str]) -> (World, Tracker, Node) {
    let world = World::new();
    let tracker = world.tracker();
    for (name, bytes) in files {
        world.put("s", name, bytes);
    }
    let node = world.node_with("s", tracker.address, more);
    for (name, _) in files {
        tracker.client().until_complete(name, 1);
    }
    (world, tracker, node)
}

/// The names in a directory, except for hidden ones.
fn listed(world: &World, place: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(world.path(place))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_with_the_required_digest_is_kept_and_one_with_another_leaves_nothing() {
    let (small, large) = (noise(3000, 1), noise(5 * MIB + 3, 2));
    let (world, tracker, _node) = sharing(&[("small", &small), ("large", &large)], &[]);
    for (name, bytes) in [("small", &small), ("large", &large)] {
        let right = PlainDigest::of(bytes).to_string();
        world
            .get(
                "right",
                tracker.address,
                &[name, "--sha256", &right.to_uppercase()],
            )
            .well();
        assert_same(&world.path("right").join(name), bytes);
        // A file that is there already is checked, too, and stays.
        world
            .get("right", tracker.address, &[name, "--sha256", &right])
            .well();
        let wrong = "0a".repeat(32);
        let got = world.get("right", tracker.address, &[name, "--sha256", &wrong]);
        got.with(4).saying(&right);
        assert_same(&world.path("right").join(name), bytes);

        let got = world.get("wrong", tracker.address, &[name, "--sha256", &wrong]);
        let got = got
            .with(4)
            .saying(&format!("{name}: its SHA-256 is {right}, not {wrong}"));
        assert!(got.out.is_empty());
        assert!(
            listed(&world, "wrong").is_empty(),
            "{:?}",
            listed(&world, "wrong")
        );
        let got = world.run(
            "cat",
            &[
                "cat",
                name,
                "--sha256",
                &wrong,
                "--tracker",
                &tracker.address.to_string(),
            ],
        );
        assert_eq!(got.code, Some(4), "{}", got.err);
    }
}

#[test]
fn sums_name_the_files_and_each_is_verified() {
    let (a, b, c) = (noise(100, 1), noise(2 * MIB, 2), noise(500, 3));
    let (world, tracker, _node) = sharing(&[("a", &a), ("d/b b", &b), ("c", &c)], &[]);
    let line = |bytes: &[u8], name: &str| format!("{}  {name}\n", PlainDigest::of(bytes));
    let sums = [line(&a, "a"), line(&b, "./d/b b")].concat();
    fs::write(world.dir("to").join("SUMS"), &sums).unwrap();
    world.get("to", tracker.address, &["--sums", "SUMS"]).well();
    assert_same(&world.path("to/a"), &a);
    assert_same(&world.path("to/d/b b"), &b);
    assert_eq!(listed(&world, "to"), ["SUMS", "a", "d"]);
    let got = world.get("to", tracker.address, &["--sums", "SUMS", "c"]);
    got.with(2).saying("--sums lists no digest of c");

    let sums = [line(&b, "a"), line(&b, "d/b b")].concat();
    fs::write(world.dir("bad").join("SUMS"), &sums).unwrap();
    world
        .get("bad", tracker.address, &["--sums", "SUMS"])
        .with(4);
    assert_eq!(listed(&world, "bad"), ["SUMS", "d"]);
    fs::write(world.path("bad/SUMS"), "nonsense").unwrap();
    let got = world.get("bad", tracker.address, &["--sums", "SUMS"]);
    got.with(2).saying("line 1 is not a SHA-256 digest");
}

#[test]
fn hash_prints_the_digest_that_sha256sum_prints() {
    let world = World::new();
    let bytes = noise(300_000, 4);
    fs::write(world.dir("h").join("f"), &bytes).unwrap();
    let digest = PlainDigest::of(&bytes).to_string();
    let printed = world.run("h", &["hash", "--sha256", "f"]).well();
    assert!(
        printed.out.contains(&format!("  sha256   {digest}\n")),
        "{}",
        printed.out
    );
    let printed = world.run("h", &["hash", "--sha256", "--json", "f"]).well();
    assert_eq!(printed.json()[0]["sha256"], digest);
    let printed = world.run("h", &["hash", "--json", "f"]).well();
    assert!(printed.json()[0].get("sha256").is_none());
}

/// Waits until `ls` of a digest lists `count` files; returns their names.
fn stated(world: &World, tracker: &Tracker, query: &str, count: usize) -> Vec<String> {
    let address = tracker.address.to_string();
    eventually("the digest is stated", || {
        let listed = world.run("ls", &["ls", "--json", "--tracker", &address, query]);
        let rows = listed.json();
        let name = |row: &serde_json::Value| row["name"].as_str().unwrap().to_owned();
        (rows.len() == count).then(|| rows.iter().map(name).collect())
    })
}

#[test]
fn a_digest_finds_its_files_after_a_restart_and_at_the_prompt() {
    let bytes = noise(MIB, 5);
    let digest = PlainDigest::of(&bytes);
    let query = format!("sha256:{digest}");
    // Two names of one content, in the assets and in a directory of them.
    let files: [(&str, &[u8]); 3] = [("a.bin", &bytes), ("d/b.bin", &bytes), ("c", b"other")];
    let (world, tracker, node) = sharing(&files, &["--sha256"]);
    // A tracker lists each content of a digest once, under one of its names.
    assert_eq!(stated(&world, &tracker, &query, 1), ["a.bin"]);
    world.get("to", tracker.address, &[&query]).well();
    assert_same(&world.path("to/a.bin"), &bytes);
    let small = format!("sha256:{}", PlainDigest::of(b"other"));
    assert_eq!(stated(&world, &tracker, &small, 1), ["c"]);
    // Each content was computed once.
    let kept = world.path("s/certs/state/digests");
    assert_eq!(fs::read(&kept).unwrap().len(), 2 * 64);

    drop(node);
    let node = world.node_with("s", tracker.address, &["--sha256"]);
    assert_eq!(stated(&world, &tracker, &query, 1), ["a.bin"]);
    assert_eq!(fs::read(&kept).unwrap().len(), 2 * 64);
    // A new version has another digest, and the old one is not stated any more.
    world.put("s", "c", b"changed");
    let changed = format!("sha256:{}", PlainDigest::of(b"changed"));
    assert_eq!(stated(&world, &tracker, &changed, 1), ["c"]);
    assert_eq!(stated(&world, &tracker, &small, 0), [""; 0]);

    let address = tracker.address.to_string();
    let mut command = world.command("asker", ["node", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &address]);
    let mut asker = Process::start(command);
    writeln!(asker.input(), "{query}").unwrap();
    let there = world.path("asker/downloads/a.bin");
    eventually("the prompt's download", || there.exists().then_some(()));
    assert_same(&there, &bytes);
    drop(node);
}

#[test]
fn without_the_option_a_node_states_no_digest() {
    let (world, tracker, _node) = sharing(&[("a", b"hello")], &[]);
    let digest = format!("sha256:{}", PlainDigest::of(b"hello"));
    world.get("to", tracker.address, &[&digest]).with(3);
    let got = world.get("to", tracker.address, &["sha256:0a"]);
    got.with(2).saying("64 hex digits");
}

#[test]
fn a_node_that_lies_about_a_digest_does_not_win() {
    let (real, fake) = (noise(MIB, 5), noise(MIB, 6));
    let digest = PlainDigest::of(&real);
    let query = format!("sha256:{digest}");
    let (world, tracker, honest) = sharing(&[("real.bin", &real)], &["--sha256"]);
    stated(&world, &tracker, &query, 1);

    // A node keeps digests in this file, so a false record makes it lie.
    world.put("liar", "fake.bin", &fake);
    let hashed = world.run("liar", &["hash", "--json", "assets/fake.bin"]);
    let id = hashed.well().json()[0]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let id: ContentId = id.parse().unwrap();
    files::put(
        &world.path("liar/certs/state/digests"),
        &[id.0, digest.0].concat(),
    );
    let _liar = world.node_with("liar", tracker.address, &["--sha256"]);
    stated(&world, &tracker, &query, 2);
    world
        .get("two", tracker.address, &[&query, "-o", "got"])
        .well();
    assert_same(&world.path("two/got"), &real);

    honest.process.signal(Signal::TERM);
    honest.process.end().well();
    tracker.client().until_gone("real.bin");
    let got = world.get("three", tracker.address, &[&query, "-o", "got"]);
    got.with(4).saying(&digest.to_string());
    assert_eq!(listed(&world, "three"), [""; 0]);
}
