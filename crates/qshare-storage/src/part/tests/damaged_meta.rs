//! Meta files of which bytes were altered or cut off.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{CHUNK, Fixture};
use crate::disk::RealDisk;
use crate::part::{OpenError, Opened};

/// Alters one byte of the meta file of a stopped download.
fn alter_meta(fixture: &Fixture, at: usize, by: u8) {
    let path = fixture.path("dir/file.qshare.meta");
    let mut bytes = fs::read(&path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= by;
    fs::write(&path, bytes).unwrap();
}

/// The directory of a stopped download, to be copied for each try.
fn stopped() -> Fixture {
    let fixture = Fixture::new(4 * CHUNK);
    let part = fixture.open();
    part.set_hashes(fixture.content.hashes.clone()).unwrap();
    fixture.fill(&part, [0, 1, 3]);
    part.close().unwrap();
    fixture
}

fn check_altered(fixture: &Fixture, meta: &Path, original: &[u8], at: usize, by: u8) {
    let at = at % original.len();
    alter_meta(fixture, at, by);
    let hashes_at = original.len() - 4 * 32;
    if at < 8 {
        let refused = fixture.try_open(Arc::new(RealDisk));
        assert!(matches!(refused, Err(OpenError::NotOurs(_))), "{at}");
    } else {
        let part = fixture.open();
        assert_eq!(part.has_hashes(), at < hashes_at, "{at}");
        part.set_hashes(fixture.content.hashes.clone()).unwrap();
        assert_eq!(part.verified(), fixture.set([0, 1, 3]), "{at}");
        fixture.check(&part);
        drop(part);
    }
    fs::write(meta, original).unwrap();
}

#[test]
fn no_altered_byte_of_a_meta_file_costs_more_than_hashing() {
    let fixture = stopped();
    let meta = fixture.path("dir/file.qshare.meta");
    let original = fs::read(&meta).unwrap();
    // Each byte that means something; the rest is padding.
    let slots = [4096..4096 + 80, 8192..8192 + 80];
    let hashes = original.len() - 4 * 32..original.len();
    for at in (0..200).chain(slots.into_iter().flatten()).chain(hashes) {
        check_altered(&fixture, &meta, &original, at, 0x40);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_alteration_of_a_meta_file_yields_a_wrong_byte(
        alterations in proptest::collection::vec((8usize.., 1u8..), 1..20),
        cut in 8usize..20_000,
    ) {
        let fixture = stopped();
        let meta = fixture.path("dir/file.qshare.meta");
        for (at, by) in alterations {
            alter_meta(&fixture, 8 + at % 12_000, by);
        }
        let bytes = fs::read(&meta).unwrap();
        fs::write(&meta, &bytes[..cut.min(bytes.len())]).unwrap();
        // The magic may have been hit by a wrapped position; then nothing is touched.
        if let Ok(Opened::Part(part)) = fixture.try_open(Arc::new(RealDisk)) {
            fixture.check(&part);
            fixture.complete(part);
        }
    }
}
