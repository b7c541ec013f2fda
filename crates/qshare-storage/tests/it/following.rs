//! The library keeps following shared directories while they are moved, replaced or deleted.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use qshare_storage::{LibraryEvent, OwnFile, SkipReason};

use crate::isolated::{self, Place};
use crate::library::{DEADLINE, Fixture};

/// Runs a program. Panics if it fails.
fn run(command: &str, paths: &[&Path]) {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let status = Command::new(program)
        .args(words)
        .args(paths)
        .status()
        .unwrap();
    assert!(status.success(), "{command} {paths:?}");
}

fn mount_tmpfs(at: &Path) {
    run("mount -t tmpfs qshare-test", &[at]);
}

#[test]
fn a_file_system_that_is_mounted_and_unmounted_below_a_root_is_noticed() {
    isolated::test(Place::MountNamespace, || {
        let fixture = Fixture::new();
        fixture.write("assets/usb/before", b"b");
        fixture.write("assets/usb/deep/before", b"d");
        let mut running = fixture.open().scanned();
        let usb = fixture.path("assets/usb");
        let elsewhere = fixture.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        mount_tmpfs(&elsewhere);
        fixture.write("elsewhere/deep/film", b"film");
        run("mount --move", &[&elsewhere, &usb]);
        running.added("usb/deep/film");
        running.until_named(&["usb/deep/film"]);
        fixture.write("assets/usb/new", b"new");
        running.added("usb/new");
        fixture.write("assets/usb/later/new", b"newer");
        running.added("usb/later/new");
        run("umount", &[&usb]);
        running.until_named(&["usb/before", "usb/deep/before"]);
        fixture.write("assets/usb/deep/after", b"after");
        running.added("usb/deep/after");
    });
}

#[test]
fn a_file_system_that_was_read_can_be_unmounted_when_nobody_reads_it() {
    isolated::test(Place::MountNamespace, || {
        let fixture = Fixture::new();
        let usb = fixture.path("assets/usb");
        fs::create_dir(&usb).unwrap();
        mount_tmpfs(&usb);
        fixture.write("assets/usb/film", b"film");
        let mut running = fixture.open().scanned();
        let id = running.library.assets()[0].id;
        running.library.read_into(&id, 0, &mut [0; 4]).unwrap();
        let open = || {
            let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let mut targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
            targets.any(|target| target.ends_with("usb/film"))
        };
        assert!(open());
        wait_until(|| !open());
        run("umount", &[&usb]);
        running.removed("usb/film");
    });
}

#[test]
fn a_directory_that_is_there_twice_is_followed_under_both_names() {
    isolated::test(Place::MountNamespace, || {
        let fixture = Fixture::new();
        fixture.write("assets/a/one", b"1");
        fs::create_dir(fixture.path("assets/b")).unwrap();
        let (a, b) = (fixture.path("assets/a"), fixture.path("assets/b"));
        run("mount --bind", &[&a, &b]);
        let mut running = fixture.open().scanned();
        running.until_named(&["a/one", "b/one"]);
        fixture.write("assets/a/two", b"2");
        running.until_named(&["a/one", "a/two", "b/one", "b/two"]);
        fs::remove_file(a.join("one")).unwrap();
        running.until_named(&["a/two", "b/two"]);
        fixture.write("assets/b/d/three", b"3");
        running.until_named(&["a/d/three", "a/two", "b/d/three", "b/two"]);
        run("umount", &[&b]);
        running.until_named(&["a/d/three", "a/two"]);
        fixture.write("assets/a/d/four", b"4");
        running.added("a/d/four");
    });
}

#[test]
fn directories_that_may_not_be_watched_are_polled_and_reported() {
    isolated::test(Place::UserNamespace, || {
        // The limit applies to this user namespace only.
        fs::write("/proc/sys/user/max_inotify_watches", "2").unwrap();
        let fixture = Fixture::new();
        for directory in ["a", "b", "c", "d/e"] {
            fixture.write(&format!("assets/{directory}/old"), directory.as_bytes());
        }
        let mut running = fixture.open().scanned();
        let cause = running.seen.iter().find_map(|event| match event {
            LibraryEvent::WatchFailed { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        assert!(cause.unwrap().contains("max_user_watches"));
        for directory in ["a", "b", "c", "d/e"] {
            fixture.write(&format!("assets/{directory}/new"), b"new");
            fs::remove_file(fixture.path(&format!("assets/{directory}/old"))).unwrap();
        }
        running.until_named(&["a/new", "b/new", "c/new", "d/e/new"]);
    });
}

#[test]
fn a_tree_with_an_unreadable_directory_is_followed_and_so_is_that_once_it_can_be_read() {
    isolated::test(Place::OrdinaryUser, || {
        let fixture = Fixture::new();
        let mut running = fixture.open().scanned();
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for directory in ["a", "c", "e"] {
            fixture.write(&format!("tree/{directory}/x/old"), directory.as_bytes());
            let closed = fixture.path(&format!("tree/{directory}1"));
            fs::create_dir(&closed).unwrap();
            allow(&closed, 0o000);
        }
        fs::rename(fixture.path("tree"), fixture.path("assets/tree")).unwrap();
        let old = ["tree/a/x/old", "tree/c/x/old", "tree/e/x/old"];
        running.until_named(&old);
        for directory in ["a", "c", "e"] {
            let file = format!("assets/tree/{directory}/x/new");
            fixture.write(&file, b"new");
            running.added(&format!("tree/{directory}/x/new"));
        }
        let opened = fixture.path("assets/tree/c1");
        allow(&opened, 0o755);
        fixture.write("assets/tree/c1/one", b"one");
        running.added("tree/c1/one");
        fixture.write("assets/tree/c1/two", b"two");
        running.added("tree/c1/two");
        for name in ["a1", "e1"] {
            allow(&fixture.path(&format!("assets/tree/{name}")), 0o755);
        }
    });
}

#[test]
fn a_root_that_is_replaced_or_reached_through_a_link_stays_followed() {
    let fixture = Fixture::new();
    fixture.write("real/one/old", b"old");
    symlink(fixture.path("real"), fixture.path("downloads")).unwrap();
    let mut running = fixture.open().scanned();
    running.until_named(&["one/old"]);
    fixture.write("real/one/new", b"new");
    running.added("one/new");
    // The link is replaced by one with another target.
    fixture.write("other/x", b"x");
    fs::remove_file(fixture.path("downloads")).unwrap();
    symlink(fixture.path("other"), fixture.path("downloads")).unwrap();
    running.until_named(&["x"]);
    fixture.write("other/d/y", b"y");
    running.added("d/y");
    // The root is deleted and created again at once, often with the same inode number.
    for round in 0..3 {
        fs::remove_dir_all(fixture.path("assets")).unwrap();
        let name = format!("d/{round}");
        fixture.write(&format!("assets/{name}"), b"again");
        running.added(&name);
        let name = format!("d/later-{round}");
        fixture.write(&format!("assets/{name}"), b"later");
        running.added(&name);
    }
}

#[test]
fn a_file_that_a_program_has_open_for_writing_is_reported_and_offered_when_it_is_closed() {
    let fixture = Fixture::new();
    let mut running = fixture.open().scanned();
    let path = fixture.path("assets/video");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    let reported = running.wait(|event| match event {
        LibraryEvent::StillWritten { path } => Some(path.clone()),
        _ => None,
    });
    assert_eq!(reported, path);
    // The file did not change, but it is still open for writing, so the library does not offer it.
    assert!(running.names().is_empty());
    wait_until(|| running.library.still_written() == [path.as_path()]);
    file.write_all(&[2; 100_000]).unwrap();
    drop(file);
    assert_eq!(running.added("video").info.length, 200_000);
    wait_until(|| running.library.still_written().is_empty());
}

#[test]
fn six_hundred_files_are_offered_and_read_with_few_descriptors() {
    isolated::test(Place::Descriptors(40), || {
        let fixture = Fixture::new();
        for at in 0..600u32 {
            fixture.write(&format!("assets/{}/{at}", at % 40), &at.to_le_bytes());
        }
        let mut running = fixture.open();
        wait_until(|| running.library.assets().len() == 600);
        let hogs: Vec<_> = (0..)
            .map_while(|_| fs::File::open("/dev/null").ok())
            .collect();
        let reader = thread::scope(|scope| {
            let library = &running.library;
            let reader = scope.spawn(move || {
                library.assets().iter().all(|asset| {
                    let mut bytes = [0; 4];
                    library.read_into(&asset.id, 0, &mut bytes).is_ok()
                })
            });
            drop(hogs);
            reader.join().unwrap()
        });
        assert!(reader);
        // A file is written while the process has no other descriptor left, and settles then.
        let hog = || (0..).map_while(|_| fs::File::open("/dev/null").ok());
        let mut hogs: Vec<_> = hog().collect();
        assert!(hogs.pop().is_some());
        fixture.write("assets/new/file", b"new");
        hogs.extend(hog());
        // The library may have opened the file before the descriptors were used up again.
        let is_read = running.wait(|event| match event {
            LibraryEvent::Added(asset) => (asset.name.as_str() == "new/file").then_some(true),
            LibraryEvent::Skipped {
                reason: SkipReason::Unreadable(_),
                ..
            } => Some(false),
            _ => None,
        });
        drop(hogs);
        if !is_read {
            running.added("new/file");
        }
    });
}

#[test]
fn links_and_secrets_are_not_offered_and_the_reason_is_told() {
    let fixture = Fixture::new();
    let key = "-----BEGIN PRIVATE KEY-----\nMFECAQEwBQYDK2VwBCIEIAAAAAAAAAAAAAAA\n\
               -----END PRIVATE KEY-----\n";
    fixture.write("assets/fine", b"fine");
    fixture.write("assets/holiday.jpg", key.as_bytes());
    fixture.write(
        "assets/deep/team",
        ("0123456789abcdef".repeat(4) + "\n").as_bytes(),
    );
    fixture.write("assets/film.QSHARE.Part", b"part");
    symlink(fixture.path("assets/fine"), fixture.path("assets/link")).unwrap();
    let mut running = fixture.open().scanned();
    assert_eq!(running.names(), ["fine"]);
    let told = |name: &str| {
        let path = fixture.path(name);
        running.seen.iter().find_map(|event| match event {
            LibraryEvent::Skipped { path: of, reason } if *of == path => Some(reason.clone()),
            _ => None,
        })
    };
    assert_eq!(
        told("assets/holiday.jpg"),
        Some(SkipReason::Own(OwnFile::PrivateKey))
    );
    assert_eq!(
        told("assets/deep/team"),
        Some(SkipReason::Own(OwnFile::GroupSecret))
    );
    assert_eq!(told("assets/link"), Some(SkipReason::Link));
    assert_eq!(told("assets/film.QSHARE.Part"), None);
    // A renamed secret is still a secret.
    fs::rename(
        fixture.path("assets/holiday.jpg"),
        fixture.path("assets/notes"),
    )
    .unwrap();
    fixture.write("assets/then", b"then");
    running.added("then");
    assert_eq!(running.names(), ["fine", "then"]);
}

#[test]
fn two_spellings_of_a_name_are_one_entry_with_two_sources() {
    let fixture = Fixture::new();
    let (composed, decomposed) = ("assets/\u{e9}t\u{e9}", "assets/e\u{301}te\u{301}");
    fixture.write(composed, b"summer");
    fixture.write(decomposed, b"summer");
    if fs::read_dir(fixture.path("assets")).unwrap().count() < 2 {
        return eprintln!("SKIPPED: this file system normalises names");
    }
    let mut running = fixture.open().scanned();
    assert_eq!(running.names(), ["\u{e9}t\u{e9}"]);
    fs::remove_file(fixture.path(composed)).unwrap();
    fixture.write("assets/then", b"then");
    running.added("then");
    assert_eq!(running.names(), ["then", "\u{e9}t\u{e9}"]);
    let assets = running.library.assets();
    let id = assets
        .iter()
        .find(|asset| asset.info.length == 6)
        .unwrap()
        .id;
    wait_until(|| running.library.read_into(&id, 0, &mut [0; 6]).is_ok());
    fs::remove_file(fixture.path(decomposed)).unwrap();
    running.removed("\u{e9}t\u{e9}");
}

/// Polls a condition that no event reports, until it holds.
fn wait_until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {DEADLINE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
