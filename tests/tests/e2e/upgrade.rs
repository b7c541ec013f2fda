//! An upgrade: today's program starts where an older one was killed.
//!
//! `tests/fixtures/state` has the files of the older programs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use qshare_tests::controlled::Controlled;
use qshare_tests::files::{self, assert_same};
use serde_json::Value;

const MIB: usize = 1 << 20;
const LARGE: &str = "large.txt";
const LATER: &str = "later.txt";
const PRIVATE: &str = "private.txt";
/// What the older programs had received of the large file.
const HALF: usize = 4 * MIB;

/// Returns the bytes of a file: numbered lines, cut at the length.
fn text(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend(format!("{name} {number}\n").into_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => {
                // The mode of keys, which a checkout does not keep.
                let copied = to.join(name);
                fs::copy(&path, &copied).unwrap();
                fs::set_permissions(&copied, Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}

/// A node's directories as an older program left them.
fn left_behind(set: &str) -> Controlled {
    let user = Controlled::new();
    let fixtures: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "../../tests/fixtures/state",
        set,
    ]
    .iter()
    .collect();
    let node = user.world.dir("node");
    copy(&fixtures, &node);
    files::put(&node.join("assets/mine.txt"), &text("mine", 300_000));
    files::put(&node.join("handed.txt"), &text("handed", 1000));
    let part = |name: &str, bytes: &[u8]| {
        let path = node.join("downloads").join(format!("{name}.qshare.part"));
        files::put(&path, bytes);
    };
    part(LARGE, &text("large", HALF));
    if node.join("certs/state/share_keys").exists() {
        part(PRIVATE, &text("private", MIB));
    }
    let shares = node.join("certs/state/shares");
    if let Ok(text) = fs::read_to_string(&shares) {
        let text = text.replace("@NODE@", node.to_str().unwrap());
        fs::write(&shares, text).unwrap();
    }
    user
}

/// Starts today's program, which has to know all that the older one knew, and to complete it.
fn upgrade(set: &str, id: &str, listed: &[&str]) -> Controlled {
    let user = left_behind(set);
    let node = user.node("node");
    assert_eq!(node.id, id);
    user.tracker.client().until_complete("mine.txt", 1);
    user.until_verified(LARGE, HALF);
    let resumed = user.until_stage(LARGE, "searching");
    assert_eq!(resumed["verified_bytes"], HALF);
    let names: Vec<Value> = user.downloads();
    let mut names: Vec<_> = names.iter().map(|one| one["name"].as_str()).collect();
    names.sort_unstable();
    let listed: Vec<_> = listed.iter().copied().map(Some).collect();
    assert_eq!(names, listed);

    let large = text("large", 8 * MIB);
    user.world.put("source", LARGE, &large);
    user.world.put("source", LATER, &text("later", MIB));
    let source = user.world.node("source", user.tracker.address);
    user.until_stage(LARGE, "complete");
    assert_same(&user.world.path("node/downloads").join(LARGE), &large);
    if let Some(later) = user.download(LATER) {
        assert_eq!(later["stage"], "paused");
        assert_eq!(later["priority"], "high");
        assert_eq!(later["limit_bytes_per_second"], 900_000);
        user.run(&["resume", LATER]).well();
        user.until_stage(LATER, "complete");
    }
    // Only what was missing was fetched.
    let fetched: Value = node.process.out_line(|line| {
        let report: Value = serde_json::from_str(line).ok()?;
        (report["name"] == LARGE).then_some(report)
    });
    assert_eq!(fetched["resumed_bytes"], HALF);
    assert_eq!(fetched["received_bytes"], large.len() - HALF);
    drop(source);
    user.stop(node);
    user
}

#[test]
fn files_of_a_program_without_a_list_of_downloads_are_read() {
    let id = "jgxkfscrc77awvsj4dtf5z7a5d5qaa74oegjcxxpp2apr4iyi2uq";
    upgrade("before-lists", id, &[LARGE]);
}

#[test]
fn files_of_a_program_without_handed_over_shares_are_read() {
    let id = "5u3yvrxzoe64gpyvxgrkajcqe77ivsy57r3h7qns2ujwkjhtyzpa";
    upgrade("before-shares", id, &[LARGE, LATER]);
}

#[test]
fn files_of_a_program_that_shared_privately_are_read_and_stay_private() {
    let id = "dsbpocny2q7mlft3tioyzkwfrmwjg4tr6lilg6ehuxh3tjl4vojq";
    let user = upgrade("before-weights", id, &[LARGE, LATER, PRIVATE]);
    // After another start of today's program, too.
    let node = user.node("node");
    user.until_verified(PRIVATE, MIB);
    user.until_stage(PRIVATE, "searching");
    let keys = fs::read_to_string(user.world.path("node/certs/state/share_keys"));
    assert!(keys.unwrap().contains("rli2xyssosrqd5eutdjbnxewrq"));
    // The handed-over share has its key, and is found by its link only.
    let handed = user.world.path("node/handed.txt");
    let again = user.run(&["share", "--json", "--no-code", handed.to_str().unwrap()]);
    let link = again.well().json().remove(0)["link"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(link.contains("K=u6wieumirkgaao2w7hbn5ob5he"), "{link}");
    let address = user.tracker.address;
    user.world.get("one", address, &[&link]).well();
    let received = user.world.path("one/handed.txt");
    assert_same(&received, &text("handed", 1000));
    for name in ["handed.txt", PRIVATE] {
        user.world.get("two", address, &[name]).with(3);
    }
    user.stop(node);
}
