//! Manifests and modification times from strangers. What is accepted is the only encoding of what
//! it says, so writing it again gives the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qshare_content::manifest::{
    FolderList, ManifestEntry, ManifestReader, ManifestWriter, TimesReader, TimesWriter,
};

const MANIFEST_HEADER: &[u8] = b"qshare\0c\x01\0\0\0";
const TIMES_HEADER: &[u8] = b"qshare\0t\x01\0\0\0";

fn check_manifest(bytes: &[u8]) {
    let Ok(reader) = ManifestReader::new(bytes, None) else {
        return;
    };
    let Ok(entries) = reader.collect::<Result<Vec<ManifestEntry>, _>>() else {
        assert!(FolderList::read(bytes, None).is_err());
        return;
    };
    let mut writer = ManifestWriter::new(Vec::new()).expect("a Vec takes everything");
    for entry in &entries {
        writer.add(entry).expect("a manifest that was read can be written");
    }
    assert_eq!(writer.finish().expect("a Vec takes everything"), bytes);
    let list = FolderList::read(bytes, None).expect("it was valid just now");
    for at in 0..list.file_count() {
        let file = list.file(at).expect("its files are numbered from 0");
        assert!(list.files_of(&file.info.id()).any(|found| found == at));
    }
}

fn check_times(bytes: &[u8]) {
    for files in [0, 1, 2, 3, 8] {
        let Ok(reader) = TimesReader::new(bytes) else {
            return;
        };
        let Ok(times) = reader.read_all(files) else {
            continue;
        };
        let mut writer = TimesWriter::new(Vec::new()).expect("a Vec takes everything");
        for time in times {
            writer.add(time).expect("a Vec takes everything");
        }
        assert_eq!(writer.finish().expect("a Vec takes everything"), bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    check_manifest(data);
    check_manifest(&[MANIFEST_HEADER, data].concat());
    check_times(&[TIMES_HEADER, data].concat());
});
