//! What lies at the target, or appears there: files, links, other downloads.

use std::fs;
use std::sync::Arc;

use super::{CHUNK, Fixture};
use crate::disk::RealDisk;
use crate::part::{Durability, FinishError, OpenError, Opened, Part, PartOptions, unfinished};

#[test]
fn a_second_download_of_the_same_file_is_refused_while_the_first_runs() {
    let fixture = Fixture::new(CHUNK * 2);
    let part = fixture.open();
    let second = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(second, Err(OpenError::Locked(_))));
    drop(part);
    fixture.open().discard().unwrap();
    assert_eq!(fs::read_dir(fixture.path("dir")).unwrap().count(), 0);
}

#[test]
fn what_stands_at_the_target_is_compared_and_not_overwritten() {
    let fixture = Fixture::new(3 * CHUNK);
    let target = fixture.path("dir/file");
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, &fixture.bytes).unwrap();
    let opened = fixture.try_open(Arc::new(RealDisk)).unwrap();
    assert!(matches!(opened, Opened::Complete { path } if path == target));

    let mut other = fixture.bytes.clone();
    other[77] ^= 1;
    fs::write(&target, &other).unwrap();
    let refused = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(refused, Err(OpenError::Different(path)) if path == target));
    assert!(fs::read(&target).unwrap() == other);

    let force = PartOptions {
        force: true,
        ..PartOptions::default()
    };
    let opened = Part::open(&fixture.target(), fixture.content.info, &force).unwrap();
    let Opened::Part(part) = opened else {
        panic!("not complete")
    };
    fixture.complete(part);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let fixture = Fixture::new(2 * CHUNK);
    let target = fixture.path("dir/file");
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0]);
    let refused = part.finish(Durability::Immediate);
    assert!(matches!(
        refused,
        Err(FinishError::Incomplete { missing: 1 })
    ));
    fixture.fill(&part, [1]);
    fs::write(&target, b"somebody's").unwrap();
    let refused = part.finish(Durability::Immediate);
    assert!(matches!(refused, Err(FinishError::Different(_))));
    assert_eq!(fs::read(&target).unwrap(), b"somebody's");

    fs::remove_file(&target).unwrap();
    drop(part);
    let part = fixture.open();
    assert!(part.recovered().is_full());
    fs::write(&target, &fixture.bytes).unwrap();
    fixture.complete(part);
}

#[test]
fn files_that_qshare_has_not_made_are_left_alone() {
    let fixture = Fixture::new(2 * CHUNK);
    fs::create_dir_all(fixture.path("dir")).unwrap();
    for name in ["dir/file.qshare.part", "dir/file.qshare.meta"] {
        let path = fixture.path(name);
        for bytes in [&b"precious"[..], b""] {
            fs::write(&path, bytes).unwrap();
            let refused = fixture.try_open(Arc::new(RealDisk));
            assert!(matches!(refused, Err(OpenError::NotOurs(at)) if at == path));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(unfinished(&fixture.path("")).is_empty());
    fixture.complete(fixture.open());
}

#[test]
fn links_in_the_way_are_not_followed() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new(2 * CHUNK);
    let outside = fixture.temp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), b"precious").unwrap();
    fs::create_dir_all(fixture.path("")).unwrap();
    symlink(&outside, fixture.path("dir")).unwrap();
    assert!(matches!(
        fixture.try_open(Arc::new(RealDisk)),
        Err(OpenError::Disk(_))
    ));
    fs::remove_file(fixture.path("dir")).unwrap();

    fs::create_dir(fixture.path("dir")).unwrap();
    for (name, different) in [
        ("dir/file", true),
        ("dir/file.qshare.part", false),
        ("dir/file.qshare.meta", false),
    ] {
        symlink(outside.join("f"), fixture.path(name)).unwrap();
        match fixture.try_open(Arc::new(RealDisk)) {
            Err(OpenError::Different(_)) if different => {}
            Err(OpenError::NotOurs(_)) if !different => {}
            _ => panic!("{name}"),
        }
        fs::remove_file(fixture.path(name)).unwrap();
    }
    // A part file that becomes a link while its meta file is there.
    fixture.open().close().unwrap();
    fs::remove_file(fixture.path("dir/file.qshare.part")).unwrap();
    symlink(outside.join("f"), fixture.path("dir/file.qshare.part")).unwrap();
    let refused = fixture.try_open(Arc::new(RealDisk));
    assert!(matches!(refused, Err(OpenError::NotOurs(_))));
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn another_contents_unfinished_download_is_only_discarded_by_force() {
    let fixture = Fixture::new(3 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, 0..2);
    part.close().unwrap();

    let other = Fixture::of(vec![3; 2 * CHUNK]);
    let id = fixture.content.info.id();
    let options = PartOptions::default();
    let refused = Part::open(&fixture.target(), other.content.info, &options);
    assert!(matches!(refused, Err(OpenError::OtherUnfinished { other, .. }) if other == id));
    assert_eq!(fixture.open().recovered().count(), 2);

    let options = PartOptions {
        force: true,
        ..options
    };
    let opened = Part::open(&fixture.target(), other.content.info, &options).unwrap();
    let Opened::Part(part) = opened else {
        panic!("not complete")
    };
    part.set_hashes(other.content.hashes.clone()).unwrap();
    assert!(part.verified().is_empty());
    other.fill(&part, 0..2);
    let path = part.finish(Durability::Deferred).unwrap();
    assert!(fs::read(path).unwrap() == other.bytes);
}
