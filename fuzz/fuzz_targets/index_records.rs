//! Records of the index of shared files: damaged ones are never served.
#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use qshare_storage::fuzzing::IndexRecords;

thread_local! {
    static RECORDS: OnceCell<IndexRecords> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    RECORDS.with(|records| records.get_or_init(IndexRecords::open).read(data));
});
