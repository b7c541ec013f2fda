//! Globs over names: no pair of them costs more steps than the documented bound, and what matches
//! has the literal ends that the search relies on.
//!
//! The first line of an input is the glob, the others are names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qshare_content::NamePattern;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.lines();
    let Some(glob) = lines.next() else {
        return;
    };
    let Ok(pattern) = NamePattern::new(glob) else {
        return;
    };
    for name in lines {
        let mut steps = 0;
        let matches = pattern.matches_counted(name, &mut steps);
        let bound = 1 + (name.chars().count() as u64 + 1) * (glob.len() as u64 + 1);
        assert!(
            steps <= bound,
            "{steps} steps, at most {bound} are promised"
        );
        if matches {
            assert!(name.starts_with(pattern.literal_prefix()));
            assert!(name.ends_with(pattern.literal_suffix()));
        }
    }
});
