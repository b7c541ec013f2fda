use proptest::prelude::*;

use std::io;

use super::checker::shared_bytes;
use super::entry::{MAGIC, VERSION};
use super::*;
use crate::{AssetName, ContentInfo, Hash, LENGTH_MAX_BYTES};

fn info(byte: u8, length: u64) -> ContentInfo {
    let root = Hash([byte; 32]);
    ContentInfo { length, root }
}

fn file(name: &str, byte: u8) -> ManifestEntry {
    ManifestEntry {
        name: AssetName::new(name).unwrap(),
        item: ManifestItem::File {
            info: info(byte, u64::from(byte) * 1000),
            executable: byte % 2 == 1,
        },
    }
}

fn link(name: &str, target: &str) -> ManifestEntry {
    ManifestEntry {
        name: AssetName::new(name).unwrap(),
        item: ManifestItem::Symlink(LinkTarget::unchecked(target.into())),
    }
}

fn directory(name: &str) -> ManifestEntry {
    ManifestEntry {
        name: AssetName::new(name).unwrap(),
        item: ManifestItem::EmptyDirectory,
    }
}

fn write(entries: &[ManifestEntry]) -> Result<Vec<u8>, ManifestError> {
    let mut writer = ManifestWriter::new(Vec::new())?;
    for entry in entries {
        writer.add(entry)?;
    }
    writer.finish()
}

fn read(bytes: &[u8]) -> Result<Vec<ManifestEntry>, ManifestError> {
    ManifestReader::new(bytes, None)?.collect()
}

/// A manifest whose entries are written without any checks.
fn forged(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    let mut last = "";
    for (kind, name, rest) in entries {
        let shared = shared_bytes(last, name);
        bytes.extend([*kind, shared as u8, (name.len() - shared) as u8]);
        bytes.extend_from_slice(&name.as_bytes()[shared..]);
        bytes.extend_from_slice(rest);
        last = name;
    }
    bytes
}

const BODY: [u8; 33] = [7; 33];

#[test]
fn a_folder_is_read_back_in_the_order_of_its_components() {
    let entries = [
        directory("a/empty"),
        file("a/x", 1),
        file("a/x y", 2),
        file("a/x.txt", 3),
        file("a.txt", 4),
        file("données/été", 5),
        link("links/up", "../a"),
        file("数据/集", 6),
    ];
    let bytes = write(&entries).unwrap();
    assert_eq!(read(&bytes).unwrap(), entries);
    let list = FolderList::read(&bytes[..], None).unwrap();
    assert_eq!(list.file_count(), 6);
    assert_eq!(list.totals().bytes, 21_000);
    assert_eq!(
        (list.totals().symlinks, list.totals().empty_directories),
        (1, 1)
    );
    assert_eq!(list.file(2).unwrap().name.as_str(), "a/x.txt");
    assert!(list.file(2).unwrap().executable && list.file(6).is_none());
    let id = info(4, 4000).id();
    assert_eq!(list.files_of(&id).collect::<Vec<_>>(), [3]);
    // Shared beginnings are stored once.
    assert!(bytes.len() < 12 + 6 * 40 + 60, "{}", bytes.len());
}

#[test]
fn names_that_escape_or_are_hidden_are_refused() {
    for name in [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a//b",
        ".ssh/x",
        "a\\b",
        "",
        "a/",
        "x.qshare.part",
    ] {
        let refused = read(&forged(&[(0, name, &BODY)]));
        assert!(
            matches!(refused, Err(ManifestError::Name(_))),
            "{name:?}: {refused:?}"
        );
    }
}

#[test]
fn duplicates_disorder_and_a_file_that_is_a_directory_are_refused() {
    let refused = |names: [&str; 2]| read(&forged(&[(0, names[0], &BODY), (0, names[1], &BODY)]));
    for names in [["a", "a"], ["b", "a"], ["a.b", "a/b"]] {
        assert!(
            matches!(refused(names), Err(ManifestError::Order(_))),
            "{names:?}"
        );
    }
    let refused = refused(["a", "a/b"]);
    assert!(matches!(refused, Err(ManifestError::FileAndDirectory(name)) if name == "a"));
    let refused = read(&forged(&[(3, "d", &[]), (0, "d/x", &BODY)]));
    assert!(matches!(refused, Err(ManifestError::FileAndDirectory(_))));
    let refused = read(&forged(&[(2, "d", b"\x01e"), (0, "d/x", &BODY)]));
    assert!(matches!(refused, Err(ManifestError::FileAndDirectory(_))));
}

#[test]
fn impossible_sizes_are_refused_without_overflow() {
    let sized = |name: &str, length: u64| ManifestEntry {
        name: AssetName::new(name).unwrap(),
        item: ManifestItem::File {
            info: info(1, length),
            executable: false,
        },
    };
    for length in [LENGTH_MAX_BYTES + 1, u64::MAX] {
        assert!(matches!(
            write(&[sized("a", length)]),
            Err(ManifestError::Size(_))
        ));
    }
    let most = COLLECTION_MAX_BYTES / LENGTH_MAX_BYTES;
    let names: Vec<String> = (0..=most).map(|n| format!("{n:06}")).collect();
    let mut writer = ManifestWriter::new(io::sink()).unwrap();
    for name in &names[..most as usize] {
        writer.add(&sized(name, LENGTH_MAX_BYTES)).unwrap();
    }
    let refused = writer.add(&sized(&names[most as usize], 1));
    assert!(matches!(refused, Err(ManifestError::Size(_))));
}

#[test]
fn a_manifest_that_contains_itself_is_refused() {
    let own = info(9, 9000);
    let bytes = write(&[file("a", 1), file("self", 9)]).unwrap();
    let read = FolderList::read(&bytes[..], own);
    assert!(matches!(read, Err(ManifestError::SelfReference(name)) if name == "self"));
}

#[test]
fn links_stay_inside_of_the_folder() {
    for (name, target) in [
        ("a", "b"),
        ("a/b", "../c"),
        ("a/b/c", "../../d/e"),
        ("a/b/c", "../.."),
        ("a", "."),
        ("a/b", ".."),
    ] {
        assert!(write(&[link(name, target)]).is_ok(), "{name} → {target}");
    }
    for (name, target) in [
        ("a", ".."),
        ("a", "../b"),
        ("a/b", "../../c"),
        ("a", "/etc/passwd"),
        ("a/b", "..//etc"),
        ("a", ""),
        ("a", "b/../../c"),
        ("a", "./b"),
        ("a/b", "../"),
        ("a", "b/"),
        ("a", "b\0"),
        ("a", ".ssh/id"),
    ] {
        assert!(write(&[link(name, target)]).is_err(), "{name} → {target}");
        let bytes = [&[target.len() as u8], target.as_bytes()].concat();
        let refused = read(&forged(&[(2, name, &bytes)]));
        assert!(
            matches!(refused, Err(ManifestError::Link { .. })),
            "{name} → {target}"
        );
    }
}

#[test]
fn other_bytes_are_refused_with_a_reason() {
    assert!(matches!(read(b""), Err(ManifestError::NotAManifest)));
    assert!(matches!(
        read(b"#!/bin/sh\necho"),
        Err(ManifestError::NotAManifest)
    ));
    assert!(matches!(
        read(b"qshare\0c\x02\0\0\0"),
        Err(ManifestError::Version(2))
    ));
    assert!(matches!(
        read(&forged(&[(4, "a", &BODY)])),
        Err(ManifestError::Kind(4))
    ));
    let valid = write(&[file("a", 1), link("b", "a"), directory("c")]).unwrap();
    for end in 13..valid.len() {
        // The end of an entry is the end of a shorter folder.
        if let Ok(entries) = read(&valid[..end]) {
            assert!(entries.len() < 3, "{end}");
        }
    }
    let trailing = [&valid[..], &[0]].concat();
    assert!(matches!(read(&trailing), Err(ManifestError::CutOff)));
}

#[test]
fn a_second_encoding_of_the_same_folder_is_refused() {
    let mut bytes = forged(&[(0, "ab", &BODY), (0, "ac", &BODY)]);
    assert!(read(&bytes).is_ok());
    // The second name without its shared beginning.
    let at = 12 + 5 + 33;
    bytes.splice(at..at + 4, [0, 0, 2, b'a', b'c']);
    assert!(matches!(read(&bytes), Err(ManifestError::NotCanonical(_))));
    // A length of two bytes where one would do.
    let padded = [&forged(&[])[..], &[0, 0x80, 0, 1, b'a'], &BODY].concat();
    assert!(matches!(read(&padded), Err(ManifestError::NotCanonical(_))));
}

#[test]
fn too_many_entries_and_too_long_names_are_refused() {
    let bytes = write(&[file("a", 1), file("b", 2), file("c", 3)]).unwrap();
    let mut reader = ManifestReader::new(&bytes[..], None).unwrap();
    reader.checker.entries = MANIFEST_ENTRIES_MAX - 2;
    assert!(reader.next().unwrap().is_ok() && reader.next().unwrap().is_ok());
    assert!(matches!(reader.next(), Some(Err(ManifestError::TooMany))));
    assert!(reader.next().is_none());
    let mut reader = ManifestReader::new(&bytes[..], None).unwrap();
    reader.checker.names_bytes = MANIFEST_NAMES_MAX_BYTES - 2;
    assert!(matches!(
        reader.find_map(Result::err),
        Some(ManifestError::TooLong)
    ));
}

#[test]
fn names_that_differ_in_case_are_permitted_and_reported() {
    let bytes = write(&[
        file("Straße", 1),
        file("a/README", 2),
        file("a/ReadMe", 3),
        file("strasse", 4),
    ]);
    let list = FolderList::read(&bytes.unwrap()[..], None).unwrap();
    assert_eq!(list.case_collisions(10), ["a/ReadMe", "strasse"]);
    assert_eq!(list.case_collisions(1).len(), 1);
}

#[test]
fn times_are_read_back_and_their_number_must_fit() {
    let times = [
        0,
        1_700_000_000_000_000_000,
        1_700_000_000_000_000_001,
        -5,
        i64::MIN,
        i64::MAX,
    ];
    let mut writer = TimesWriter::new(Vec::new()).unwrap();
    times.iter().for_each(|&time| writer.add(time).unwrap());
    let bytes = writer.finish().unwrap();
    let read = |files| TimesReader::new(&bytes[..]).unwrap().read_all(files);
    assert_eq!(read(6).unwrap(), times);
    assert!(matches!(read(7), Err(ManifestError::CutOff)));
    assert!(matches!(read(5), Err(ManifestError::NotCanonical(_))));
    assert!(TimesReader::new(&b"qshare\0c\x01\0\0\0"[..]).is_err());
}

fn any_entries() -> impl Strategy<Value = Vec<ManifestEntry>> {
    let component = prop_oneof!["[a-c]{1,3}", "[A-Cé数]{1,2}", "x{200}"];
    let name = proptest::collection::vec(component, 1..4).prop_map(|parts| parts.join("/"));
    let entry = (name, 0u8..4, any::<u8>()).prop_map(|(name, kind, byte)| match kind {
        0 | 1 => file(&name, byte),
        2 => link(&name, "target"),
        _ => directory(&name),
    });
    proptest::collection::vec(entry, 0..20).prop_map(|mut entries| {
        entries.sort_by(|a, b| cmp_names(a.name.as_str(), b.name.as_str()));
        let mut kept: Vec<ManifestEntry> = Vec::new();
        for entry in entries {
            let clashes = kept.last().is_some_and(|last| {
                let rest = entry.name.as_str().strip_prefix(last.name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if !clashes {
                kept.push(entry);
            }
        }
        kept
    })
}

proptest! {
    #[test]
    fn every_folder_is_read_back(entries in any_entries()) {
        let bytes = write(&entries).unwrap();
        prop_assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn an_altered_byte_is_refused_or_means_another_folder(
        entries in any_entries(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let bytes = write(&entries).unwrap();
        let mut altered = bytes.clone();
        let at = at.index(altered.len());
        altered[at] ^= flip;
        if let Ok(other) = read(&altered) {
            prop_assert_ne!(&other, &entries);
            // The only encoding of what it says.
            prop_assert_eq!(write(&other).unwrap(), altered);
        }
    }

    #[test]
    fn strange_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        let _ = read(&[&header[..], &tail].concat());
        let _ = read(&tail);
    }
}
