//! Directories as collections: what their manifests list, and what is left out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use qshare_content::manifest::{FolderList, LinkTarget, TimesReader};
use qshare_content::{AssetName, ChunkIndex, Hash};
use qshare_storage::{
    BuiltFolder, Cancel, FileAttributes, FolderError, FolderOptions, FolderPlace, FolderProgress,
    FolderSkip, HashIndex, ReadError, SharedFolder, build_folder, hash_file,
};

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("it has a directory")).expect("a new directory");
    fs::write(path, bytes).expect("a new file");
}

fn options<'a>(skipped: &'a (dyn Fn(FolderSkip) + Sync)) -> FolderOptions<'a> {
    FolderOptions {
        index: None,
        exclude: Vec::new(),
        cancel: Cancel::new(),
        threads: 2,
        progress: None,
        skipped,
    }
}

fn build(dir: &Path) -> (BuiltFolder, Vec<String>) {
    let skipped = Mutex::new(Vec::new());
    let note = |skip: FolderSkip| {
        let name = skip
            .path
            .strip_prefix(dir)
            .expect("beneath the directory")
            .display()
            .to_string();
        skipped
            .lock()
            .expect("no panic")
            .push(format!("{name}: {}", skip.reason));
    };
    let built = build_folder(dir, &options(&note)).expect("a readable directory");
    (built, skipped.into_inner().expect("no panic"))
}

fn names(list: &FolderList) -> Vec<String> {
    list.files().map(|file| file.name.into()).collect()
}

#[test]
fn a_directory_becomes_the_manifest_of_its_files_links_and_empty_directories() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("photos");
    for (name, bytes) in [
        ("b.txt", &b"b"[..]),
        ("a/x", b"x"),
        ("a.txt", b"a"),
        ("数据/集.csv", b"1,2"),
        ("e\u{301}te\u{301}", b"ete"),
        (".hidden/secret", b"s"),
        ("a/.DS_Store", b"d"),
        ("c.qshare.part", b"p"),
        ("certs/token", b"qshare-token:abc"),
    ] {
        write(&dir, name, bytes);
    }
    fs::write(dir.join("big"), vec![7; 300_000]).unwrap();
    fs::set_permissions(dir.join("b.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.join("empty/inner")).unwrap();
    fs::create_dir_all(dir.join("only hidden")).unwrap();
    fs::write(dir.join("only hidden/.x"), "x").unwrap();
    fs::write(temp.path().join("outside"), "o").unwrap();
    symlink("../b.txt", dir.join("a/link")).unwrap();
    symlink(dir.join("a/x"), dir.join("absolute")).unwrap();
    symlink("nowhere yet", dir.join("dangling")).unwrap();
    symlink("../outside", dir.join("out")).unwrap();
    symlink("/etc/passwd", dir.join("passwd")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo"), 0o600.into()).unwrap();

    let (built, mut skipped) = build(&dir);
    let list = built.folder.list();
    assert_eq!(
        names(list),
        ["a/x", "a.txt", "b.txt", "big", "été", "数据/集.csv"]
    );
    assert!(list.file(2).unwrap().executable && !list.file(1).unwrap().executable);
    let link = |name: &str, target: &str| {
        let name = AssetName::new(name).unwrap();
        let target = LinkTarget::new(&name, target).unwrap();
        (name, target)
    };
    assert_eq!(
        list.links(),
        [
            link("a/link", "../b.txt"),
            link("absolute", "a/x"),
            link("dangling", "nowhere yet")
        ]
    );
    let empty: Vec<&str> = list
        .empty_directories()
        .iter()
        .map(AssetName::as_str)
        .collect();
    assert_eq!(empty, ["empty/inner", "only hidden"]);
    skipped.sort();
    let left_out: Vec<&str> = skipped
        .iter()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        left_out,
        ["certs/token", "fifo", "out", "passwd"],
        "{skipped:?}"
    );

    // Members are read from where they lie, under the name that they have there.
    let at = (0..list.file_count())
        .find(|&at| list.name(at) == Some("été"))
        .unwrap();
    let mut bytes = [0; 3];
    built.folder.read_into(at, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"ete");
    let times = TimesReader::new(built.times.reader())
        .unwrap()
        .read_all(list.file_count());
    let modified = fs::metadata(dir.join("a/x")).unwrap().modified().unwrap();
    let since_1970 = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(times.unwrap()[0], since_1970.as_nanos() as i64);
    // The same directory is the same collection.
    assert_eq!(build(&dir).0.manifest.info(), built.manifest.info());
}

#[test]
fn a_changed_member_is_not_served_any_more() {
    let temp = tempfile::tempdir().unwrap();
    write(temp.path(), "a", b"one");
    fs::write(temp.path().join("big"), vec![7; 300_000]).unwrap();
    let (built, _) = build(temp.path());
    let folder = &built.folder;
    let hashed = hash_file(&temp.path().join("big"), &Default::default()).unwrap();
    assert_eq!(folder.hash_page(1, 0).unwrap().hashes, hashed.hashes);
    assert!(folder.present().is_full() && !folder.any_changed());
    write(temp.path(), "a", b"two");
    assert!(folder.any_changed());
    let id = folder.list().info(0).unwrap().id();
    assert_eq!(folder.find(&id), Some(0));
    let refused = folder.read_into(0, 0, &mut [0; 3]);
    assert!(matches!(refused, Err(ReadError::Changed)));
    assert_eq!(folder.find(&id), None);
    assert!(!folder.has(0) && folder.has(1));
}

#[test]
fn a_receiver_serves_what_it_has_adopted() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(source.path(), "d/a", b"one");
    fs::write(source.path().join("big"), vec![7; 300_000]).unwrap();
    let (built, _) = build(source.path());
    let list = built.folder.list().clone();
    let received = SharedFolder::empty(target.path(), list.clone());
    assert!(received.adopt(1, Vec::new()).is_err());
    fs::create_dir(target.path().join("d")).unwrap();
    fs::copy(source.path().join("d/a"), target.path().join("d/a")).unwrap();
    fs::copy(source.path().join("big"), target.path().join("big")).unwrap();
    assert!(received.adopt(1, Vec::new()).unwrap());
    assert!(!received.adopt(1, Vec::new()).unwrap());
    let wrong = received.adopt(0, vec![Hash([0; 32]); 3]);
    assert!(matches!(wrong, Err(ReadError::Changed)));
    let hashed = hash_file(&source.path().join("big"), &Default::default()).unwrap();
    assert!(received.adopt(0, hashed.hashes).unwrap());
    assert_eq!(
        received.present().iter().collect::<Vec<_>>(),
        [ChunkIndex(0), ChunkIndex(1)]
    );
    let mut bytes = [0; 3];
    received.read_into(1, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
    // A link that takes a directory's place is not followed.
    fs::rename(target.path().join("d"), target.path().join("e")).unwrap();
    symlink(source.path().join("d"), target.path().join("d")).unwrap();
    let other = SharedFolder::empty(target.path(), list);
    assert!(other.adopt(1, Vec::new()).is_err());
}

#[test]
fn entries_are_made_beneath_the_directory_only() {
    let (temp, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = temp.path().join("new");
    let place = FolderPlace::new(&base);
    place.create().unwrap();
    let name = |text: &str| AssetName::new(text).unwrap();
    place.make_directory(&name("a/b")).unwrap();
    place.make_directory(&name("a/b")).unwrap();
    let target = |link: &str, text: &str| LinkTarget::new(&name(link), text).unwrap();
    let to_b = target("a/l", "b");
    place.make_link(&name("a/l"), &to_b, false).unwrap();
    place.make_link(&name("a/l"), &to_b, false).unwrap();
    assert_eq!(fs::read_link(base.join("a/l")).unwrap(), Path::new("b"));
    let other = target("a/l", "c");
    assert!(place.make_link(&name("a/l"), &other, false).is_err());
    place.make_link(&name("a/l"), &other, true).unwrap();
    assert!(place.make_link(&name("a/b"), &other, true).is_err());
    fs::write(base.join("file"), "x").unwrap();
    assert!(place.make_directory(&name("file")).is_err());
    symlink(outside.path(), base.join("way")).unwrap();
    assert!(place.make_directory(&name("way/x")).is_err());
    assert!(
        place
            .make_link(&name("way/l"), &target("way/l", "x"), true)
            .is_err()
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let attributes = FileAttributes {
        modified_ns: Some(1_000_000_000),
        executable: true,
    };
    place.set_attributes(&name("file"), &attributes).unwrap();
    let metadata = fs::metadata(base.join("file")).unwrap();
    assert!(metadata.permissions().mode() & 0o100 != 0);
    let second = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    assert_eq!(metadata.modified().unwrap(), second);
}

#[test]
fn ten_thousand_files_are_hashed_once_with_progress_and_can_be_cancelled() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("folder");
    for n in 0..10_000 {
        if n % 100 == 0 {
            fs::create_dir_all(dir.join(format!("{}", n / 100))).unwrap();
        }
        fs::write(dir.join(format!("{}/{n}", n / 100)), format!("{n}")).unwrap();
    }
    // New files are indexed once their times are old.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(10);
    let file = fs::File::options()
        .write(true)
        .open(dir.join("0/0"))
        .unwrap();
    file.set_modified(old).unwrap();
    let index = HashIndex::open(&temp.path().join("state")).unwrap();
    let (last, quiet) = (Mutex::new(FolderProgress::default()), |_| {});
    let calls = AtomicU64::new(0);
    let note = |progress: FolderProgress| {
        calls.fetch_add(1, Ordering::Relaxed);
        let mut last = last.lock().unwrap();
        last.files = last.files.max(progress.files);
        last.total_files = progress.total_files;
    };
    let with_progress = FolderOptions {
        index: Some(index.clone()),
        progress: Some(&note),
        ..options(&quiet)
    };
    let built = build_folder(&dir, &with_progress).unwrap();
    assert_eq!(built.totals.files, 10_000);
    let last = *last.lock().unwrap();
    assert_eq!((last.files, last.total_files), (10_000, 10_000));
    // Names share their beginnings.
    assert!(
        built.manifest.info().length < 10_000 * 42,
        "{:?}",
        built.manifest.info()
    );
    let again = build_folder(
        &dir,
        &FolderOptions {
            index: Some(index),
            ..options(&quiet)
        },
    );
    assert_eq!(again.unwrap().manifest.info(), built.manifest.info());
    let cancelled = options(&quiet);
    cancelled.cancel.cancel();
    assert!(matches!(
        build_folder(&dir, &cancelled),
        Err(FolderError::Cancelled)
    ));
    let missing = build_folder(&temp.path().join("nowhere"), &options(&quiet));
    assert!(matches!(missing, Err(FolderError::Disk(_))));
}

#[test]
fn files_that_change_or_vanish_meanwhile_are_reported_and_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    // The first file of a batch is hashed after the whole batch was listed.
    write(dir, "stays", b"s");
    write(dir, "vanishes", b"v");
    let skipped = Mutex::new(Vec::new());
    let note = |skip: FolderSkip| skipped.lock().unwrap().push(skip.reason.to_string());
    let vanished = dir.join("vanishes");
    // The progress is told before anything is hashed.
    let remove = |_: FolderProgress| _ = fs::remove_file(&vanished);
    let removing = FolderOptions {
        progress: Some(&remove),
        threads: 1,
        ..options(&note)
    };
    let built = build_folder(dir, &removing).unwrap();
    assert_eq!(names(built.folder.list()), ["stays"]);
    assert!(
        skipped.lock().unwrap().is_empty(),
        "it was gone before it was listed"
    );

    fs::write(dir.join("grows"), vec![1; 1_000]).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, path) = (stop.clone(), dir.join("grows"));
    let writer = std::thread::spawn(move || {
        let mut size = 40_000_000u64;
        let file = fs::File::options().write(true).open(path).unwrap();
        while !stopped.load(Ordering::Relaxed) {
            size += 1;
            file.set_len(size).unwrap();
        }
    });
    while fs::metadata(dir.join("grows")).unwrap().len() < 40_000_000 {
        std::thread::yield_now();
    }
    let built = build_folder(dir, &options(&note));
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(names(built.unwrap().folder.list()), ["stays"]);
    let skipped = skipped.into_inner().unwrap();
    assert!(
        skipped
            .iter()
            .any(|reason| reason.contains("kept changing")),
        "{skipped:?}"
    );
}
