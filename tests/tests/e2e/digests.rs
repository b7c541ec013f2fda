//! Plain SHA-256 digests: `--sha256`, `--sums`, `hash --sha256`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use qshare_content::PlainDigest;
use qshare_tests::files::{assert_same, noise};
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
