//! Folders: shared by link and by name, received as directories, with the real program.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use qshare_content::{AssetName, FolderLink, Link};
use qshare_tests::files::{assert_same, info, noise, put};
use qshare_tests::peer::{Manner, TestPeer};
use qshare_tests::process::{Process, Signal, eventually};
use qshare_tests::world::World;

const MIB: usize = 1 << 20;

/// Starts `qshare share --json` of a path in the directory `from`; returns it with its link.
fn share(world: &World, tracker: SocketAddr, path: &str, more: &[&str]) -> (Process, String) {
    let tracker = tracker.to_string();
    let mut command = world.command("from", ["share", "--json", "--certs", "certs"]);
    command.args(["--listen", "127.0.0.1:0", "--tracker", &tracker, path]);
    let process = Process::start({
        command.args(more);
        command
    });
    let link = link_other_than(&process, "");
    (process, link)
}

/// Returns the first link that is not `old`.
fn link_other_than(process: &Process, old: &str) -> String {
    process.out_line(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let link = value["link"].as_str()?;
        (link != old).then(|| link.to_owned())
    })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A folder with everything that a folder may hold, in `from/photos`.
fn photos(world: &World, big: &[u8]) {
    let dir = world.dir("from/photos");
    put(&dir.join("a/b/deep.txt"), b"deep");
    put(&dir.join("数据/été.csv"), b"1,2");
    put(&dir.join("פתח/файл"), b"3");
    put(&dir.join("tool"), b"#!/bin/sh\n");
    put(&dir.join("nothing"), b"");
    put(&dir.join("big.bin"), big);
    put(&dir.join("again.bin"), big);
    put(&dir.join(".hidden"), b"secret");
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.join("empty/inner")).unwrap();
    symlink("a/b", dir.join("inside")).unwrap();
    symlink("/etc/passwd", dir.join("outside")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    let file = fs::File::options()
        .write(true)
        .open(dir.join("a/b/deep.txt"))
        .unwrap();
    file.set_modified(old).unwrap();
}

fn assert_photos(dir: &Path, big: &[u8]) {
    assert_same(&dir.join("a/b/deep.txt"), b"deep");
    assert_same(&dir.join("数据/été.csv"), b"1,2");
    assert_same(&dir.join("פתח/файл"), b"3");
    assert_same(&dir.join("nothing"), b"");
    assert_same(&dir.join("big.bin"), big);
    assert_same(&dir.join("again.bin"), big);
    assert_eq!(mode(&dir.join("tool")) & 0o100, 0o100);
    assert_eq!(mode(&dir.join("big.bin")) & 0o100, 0);
    assert!(dir.join("empty/inner").is_dir());
    assert_eq!(fs::read_link(dir.join("inside")).unwrap(), Path::new("a/b"));
    assert!(dir.join("outside").symlink_metadata().is_err());
    assert!(!dir.join(".hidden").exists());
    let modified = fs::metadata(dir.join("a/b/deep.txt"))
        .unwrap()
        .modified()
        .unwrap();
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 1_500_000_000);
}

/// Returns the names of working files that are left in a directory.
fn working_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("qshare")).collect()
}

#[test]
fn a_private_folder_arrives_whole_is_listed_by_nobody_and_fetched_once() {
    let big = noise(3 * MIB, 70);
    let world = World::new();
    let tracker = world.tracker();
    photos(&world, &big);
    let (sharer, link) = share(&world, tracker.address, "photos", &[]);
    sharer.says("outside: the symbolic link leads out of the folder");
    assert!(link.starts_with("qshare:2,") && link.contains(",K=") && link.contains(",F=1"));
    let got = world.get("to", tracker.address, &[&link]).well();
    assert_photos(&world.path("to/photos"), &big);
    assert_eq!(working_files(&world.path("to")), [""; 0]);
    let summary = got.json().pop().unwrap();
    assert_eq!(
        (&summary["folder"], &summary["files"]),
        (&"photos".into(), &7.into())
    );

    // Nothing is fetched again, and attributes that were lost come back.
    let tool = world.path("to/photos/tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(world.path("to/photos/nothing")).unwrap();
    let again = world.get("to", tracker.address, &[&link]).well();
    let summary = again.json().pop().unwrap();
    assert_eq!(summary["already_there"], 6);
    assert_photos(&world.path("to/photos"), &big);

    let address = tracker.address.to_string();
    let listed = world.run("to", &["ls", "--json", "--tracker", &address]);
    assert_eq!(listed.well().out, "");
    // Another file is not replaced unless that is asked for.
    put(&tool, b"mine");
    world.get("to", tracker.address, &[&link]).with(1);
    assert_same(&tool, b"mine");
    world.get("to", tracker.address, &["--force", &link]).well();
    assert_photos(&world.path("to/photos"), &big);
}

#[test]
fn a_folder_by_name_is_one_entry_and_subsets_are_chosen() {
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/album");
    for name in ["one.jpg", "raw/two.jpg", "raw/two.txt", "three.txt"] {
        put(&dir.join(name), name.as_bytes());
    }
    let (_sharer, link) = share(&world, tracker.address, "album", &["--public"]);
    assert!(!link.contains(",K="));
    let address = tracker.address.to_string();
    let listed = world
        .run("to", &["ls", "--json", "--tracker", &address])
        .well();
    assert_eq!(listed.json().len(), 1);
    assert_eq!(listed.json()[0]["name"], "album/");

    // Without the slash it is no file, and the message names the command.
    let refused = world.get("to", tracker.address, &["album"]).with(3);
    assert!(refused.err.contains("album/"), "{refused:?}");
    let all = world
        .get("to", tracker.address, &["album/", "--list"])
        .well();
    let names: Vec<String> = all
        .json()
        .iter()
        .map(|row| row["name"].as_str().unwrap().into())
        .collect();
    assert_eq!(
        names,
        ["one.jpg", "raw/two.jpg", "raw/two.txt", "three.txt"]
    );
    assert!(!world.path("to/album").exists());
    assert_eq!(working_files(&world.path("to")), [""; 0]);

    let chosen = [
        "album/",
        "--include",
        "*.jpg",
        "--exclude",
        "raw/",
        "-o",
        "some",
    ];
    world.get("to", tracker.address, &chosen).well();
    assert_same(&world.path("to/some/one.jpg"), b"one.jpg");
    assert!(!world.path("to/some/raw").exists() && !world.path("to/some/three.txt").exists());
    world.get("to", tracker.address, &["album/"]).well();
    assert_same(&world.path("to/album/raw/two.txt"), b"raw/two.txt");
    let misplaced = world.get("to", tracker.address, &["--list", "album/one.jpg"]);
    assert_ne!(misplaced.code, Some(0), "{misplaced:?}");
}

#[test]
fn a_directory_of_a_nodes_assets_is_a_folder_and_the_name_alone_suggests_it() {
    let world = World::new();
    let tracker = world.tracker();
    for at in 0..50 {
        world.put(
            "node",
            &format!("docs/{at}/{at}.txt"),
            format!("{at}").as_bytes(),
        );
    }
    world.put("node", "docs.txt", b"beside");
    let tool = world.asset("node", "docs/tool");
    put(&tool, b"run");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let node = world.node("node", tracker.address);
    node.process.says("sharing 52 files");
    let suggested = world.get("to", tracker.address, &["docs"]).with(3);
    assert!(suggested.err.contains("docs/"), "{suggested:?}");
    let line = suggested
        .err
        .lines()
        .find_map(|line| line.split_once("at the end: "));
    let ended = qshare_tests::process::run(world.shell("to", line.unwrap().1)).well();
    assert_eq!(ended.json().len(), 52);
    assert_same(&world.path("to/docs/7/7.txt"), b"7");
    assert_eq!(mode(&world.path("to/docs/tool")) & 0o100, 0o100);
    assert!(!world.path("to/docs.txt").exists());
    world.get("to", tracker.address, &["nothing/"]).with(3);
}

#[test]
fn a_killed_receiver_resumes_and_a_receiver_serves_when_the_sharer_is_gone() {
    let big = noise(8 * MIB, 71);
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/set");
    put(&dir.join("big.bin"), &big);
    for at in 0..300 {
        put(&dir.join(format!("{}/{at}", at % 7)), &noise(2_000, at));
    }
    let (mut sharer, link) = share(&world, tracker.address, "set", &[]);
    let mut first = world.start_get("one", tracker.address, &["--seed", &link]);
    let some = world.path("one/set");
    eventually("the first files", || {
        let any = (0..7).any(|at| some.join(format!("{at}")).exists());
        (any || some.join("big.bin").exists()).then_some(())
    });
    first.kill();
    let first = world.start_get("one", tracker.address, &["--seed", &link]);
    first.says("serving the folder");
    sharer.kill();
    world.get("two", tracker.address, &[&link]).well();
    for at in 0..300 {
        let name = format!("{}/{at}", at % 7);
        assert_same(&world.path("two/set").join(name), &noise(2_000, at));
    }
    assert_same(&world.path("two/set/big.bin"), &big);
    first.signal(Signal::INT);
    assert_eq!(first.end().code, Some(0));
}

#[test]
fn a_changed_folder_gets_a_new_link_and_the_old_one_says_so() {
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/notes");
    put(&dir.join("a"), b"one");
    let (sharer, old) = share(&world, tracker.address, "notes", &[]);
    put(&dir.join("a"), b"another");
    put(&dir.join("b"), b"new");
    let new = link_other_than(&sharer, &old);
    world.get("to", tracker.address, &[&new]).well();
    assert_same(&world.path("to/notes/a"), b"another");
    assert_same(&world.path("to/notes/b"), b"new");
    let refused = world.get("old", tracker.address, &[&old]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(!world.path("old/notes/a").exists());
}

#[test]
fn a_hostile_list_is_refused_before_anything_is_written() {
    let entry = |kind: u8, name: &[u8], rest: &[u8]| {
        [&[kind, 0, name.len() as u8][..], name, rest].concat()
    };
    let file = [&[5u8][..], &[7; 32]].concat();
    let lists = [
        entry(0, b"../escape", &file),
        entry(0, b"/etc/x", &file),
        [entry(0, b"a", &file), entry(0, b"a", &file)].concat(),
        entry(2, b"link", b"\x0e../../../outside"),
        entry(0, b"huge", &[&[0xff; 9][..], &[1], &[7; 32]].concat()),
        b"no entry at all".to_vec(),
    ];
    let world = World::new();
    let tracker = world.tracker();
    for (at, entries) in lists.iter().enumerate() {
        let bytes = [b"qshare\0c\x01\0\0\0", entries.as_slice()].concat();
        // The list itself is delivered as it should be.
        let peer = TestPeer::start(Manner::Honest, tracker.address, "evil", &bytes);
        let link = Link {
            info: info(&bytes),
            trackers: Vec::new(),
            nodes: Vec::new(),
            name: Some(AssetName::new("evil").unwrap()),
            key: None,
            folder: Some(FolderLink::default()),
            modified_ns: None,
            executable: false,
        };
        let place = format!("to-{at}");
        let got = world
            .get(&place, tracker.address, &[&link.to_string()])
            .with(4);
        assert!(got.err.contains("Nothing of it was written"), "{got:?}");
        assert_eq!(
            fs::read_dir(world.path(&place)).unwrap().count(),
            0,
            "{got:?}"
        );
        drop(peer);
    }
}

#[test]
fn five_thousand_small_files_cost_the_tracker_one_entry() {
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/many");
    for at in 0..5_000u64 {
        put(
            &dir.join(format!("{:02}/{at}.bin", at % 97)),
            &noise(500, at),
        );
    }
    let (sharer, link) = share(&world, tracker.address, "many", &["--public"]);
    let got = world.start_get("to", tracker.address, &["--no-sync", &link]);
    let got = got.end().well();
    let summary = got.json().pop().unwrap();
    assert_eq!(
        (&summary["files"], &summary["failed"]),
        (&5_000.into(), &0.into())
    );
    for at in (0..5_000u64).step_by(113) {
        let name = format!("{:02}/{at}.bin", at % 97);
        assert_same(&world.path("to/many").join(name), &noise(500, at));
    }
    let address = tracker.address.to_string();
    let listed = world
        .run("to", &["ls", "--json", "--tracker", &address])
        .well();
    assert_eq!(listed.json().len(), 1);
    drop(sharer);
}

#[test]
fn receivers_of_a_private_folder_that_changes_stop_and_say_so() {
    let big = noise(4 * MIB, 77);
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/photos");
    put(&dir.join("big.bin"), &big);
    put(&dir.join("note.txt"), b"first");
    let (sharer, link) = share(&world, tracker.address, "photos", &["--limit-up", "150KB"]);
    let receiver = world.start_get("to", tracker.address, &[&link]);
    let part = world.path("to/photos/big.bin.qshare.part");
    eventually("the file is being received", || part.exists().then_some(()));
    put(&dir.join("note.txt"), b"second, longer");
    link_other_than(&sharer, &link);
    let stopped = receiver.end().with(3);
    stopped.saying("the file has changed at its source");
}

#[test]
fn one_file_of_a_folder_is_written_to_standard_output() {
    let big = noise(3 * MIB, 72);
    let world = World::new();
    let tracker = world.tracker();
    photos(&world, &big);
    let (private, link) = share(&world, tracker.address, "photos", &[]);
    let code = private.out_line(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        value["code"].as_str().map(str::to_owned)
    });
    let address = tracker.address.to_string();
    let cat = |arguments: &[&str]| {
        let tracker = ["cat", "--tracker", &address];
        world.run("to", &[&tracker, arguments].concat())
    };
    assert_eq!(cat(&[&link, "a/b/deep.txt"]).well().out, "deep");
    assert_eq!(cat(&[&code, "tool"]).well().out, "#!/bin/sh\n");
    assert_eq!(
        cat(&[&link, "数据/été.csv", "--range", "-1"]).well().out,
        "2"
    );
    let digest = qshare_content::PlainDigest::of(&big).to_string();
    let range = format!("{}-{}", 2 * MIB, 2 * MIB + 4);
    let mut command = world.command("to", ["cat", "--tracker", &address, &link, "big.bin"]);
    command.args(["--range", &range]);
    let out = command.output().unwrap();
    assert_eq!(out.stdout, &big[2 * MIB..2 * MIB + 5]);
    let mut command = world.command("to", ["cat", "--tracker", &address, &link, "big.bin"]);
    command.args(["--sha256", &digest]);
    assert!(command.output().unwrap().stdout == big);
    cat(&[&link, "nothing here"]).with(3).saying("no file");
    cat(&[&link]).with(2).saying("qshare cat FOLDER FILE");
    // Nothing is left in the directory, and nothing was announced.
    assert_eq!(fs::read_dir(world.path("to")).unwrap().count(), 0);

    let (_public, _) = share(&world, tracker.address, "photos/a", &["--public"]);
    assert_eq!(cat(&["a/", "b/deep.txt"]).well().out, "deep");
    world.put("node", "plain", b"a file");
    let _node = world.node("node", tracker.address);
    tracker.client().until_complete("plain", 1);
    assert_eq!(cat(&["plain"]).well().out, "a file");
    cat(&["plain", "x"]).with(2).saying("not a folder");
}

#[test]
fn a_folder_that_is_interrupted_goes_on_and_fetches_nothing_twice() {
    let big = noise(6 * MIB, 73);
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/set");
    put(&dir.join("big.bin"), &big);
    for at in 0..200 {
        put(&dir.join(format!("{}/{at}", at % 7)), &noise(20_000, at));
    }
    let (_sharer, link) = share(&world, tracker.address, "set", &[]);
    // Slow enough to be interrupted in the middle.
    let limited = ["--limit-down", "2MB", &link];
    let first = world.start_get("to", tracker.address, &limited);
    let there = world.path("to/set");
    let part = there.join("big.bin.qshare.part");
    let small = || (0..200).filter(|at| there.join(format!("{}/{at}", at % 7)).exists());
    eventually("a part of it", || {
        let has_chunks = fs::metadata(&part).is_ok_and(|part| part.len() > MIB as u64);
        (has_chunks && small().count() > 20).then_some(())
    });
    first.signal(Signal::INT);
    let first = first.end();
    assert_ne!(first.code, Some(0));
    assert!(first.err.contains("qshare get"), "{}", first.err);
    let kept = small().count();
    assert!(kept < 200 || !there.join("big.bin").exists());
    let again = world.get("to", tracker.address, &[&link]).well();
    let rows = again.json();
    let summary = rows.last().unwrap();
    assert!(summary["already_there"].as_u64().unwrap() >= kept as u64);
    let of_big = rows.iter().find(|row| row["name"] == "big.bin").unwrap();
    let number = |field: &str| of_big[field].as_u64().unwrap();
    assert!(number("resumed_bytes") > 0, "{of_big}");
    let useful = number("received_bytes") - number("wasted_bytes");
    assert_eq!(number("resumed_bytes") + useful, big.len() as u64);
    let received = summary["received_bytes"].as_u64().unwrap();
    let missing = (200 - kept) * 20_000;
    assert!(
        received - number("received_bytes") <= missing as u64,
        "{summary}"
    );
    assert_same(&there.join("big.bin"), &big);
    for at in 0..200 {
        assert_same(&there.join(format!("{}/{at}", at % 7)), &noise(20_000, at));
    }
    assert_eq!(working_files(&there), [""; 0]);
}

#[test]
fn names_that_differ_in_case_only_are_told_and_kept_apart() {
    let world = World::new();
    let tracker = world.tracker();
    let dir = world.dir("from/case");
    put(&dir.join("Readme"), b"upper");
    put(&dir.join("README"), b"all upper");
    put(&dir.join("d/x"), b"in d");
    put(&dir.join("D/x"), b"in D");
    let (_sharer, link) = share(&world, tracker.address, "case", &[]);
    let got = world.get("to", tracker.address, &[&link]).well();
    assert!(got.err.contains("in case only"), "{}", got.err);
    let there = world.path("to/case");
    assert_same(&there.join("Readme"), b"upper");
    assert_same(&there.join("README"), b"all upper");
    assert_same(&there.join("d/x"), b"in d");
    assert_same(&there.join("D/x"), b"in D");
}
