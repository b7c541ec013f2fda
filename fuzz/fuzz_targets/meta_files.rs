//! Meta files of unfinished downloads, as they lie on disk, and with checksums that fit.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| qshare_storage::fuzzing::read_meta_file(data));
