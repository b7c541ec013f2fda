//! Compares globs with the `globset` crate, whose syntax they use.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use globset::{GlobBuilder, GlobMatcher};
use proptest::prelude::*;
use qshare_content::NamePattern;

fn reference(glob: &str) -> Option<GlobMatcher> {
    let glob = GlobBuilder::new(glob)
        .literal_separator(true)
        .backslash_escape(false)
        .build();
    glob.ok().map(|glob| glob.compile_matcher())
}

/// Asserts that both implementations agree on one glob and some names.
fn compare(glob: &str, names: &[String]) {
    let (ours, theirs) = (NamePattern::new(glob).ok(), reference(glob));
    assert_eq!(ours.is_some(), theirs.is_some(), "is {glob:?} a glob?");
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return;
    };
    for name in names {
        let matched = theirs.is_match(name);
        assert_eq!(ours.matches(name), matched, "{glob:?} on {name:?}");
        if matched {
            assert!(name.starts_with(ours.literal_prefix()), "{glob:?}");
            assert!(name.ends_with(ours.literal_suffix()), "{glob:?}");
        }
    }
}

/// Generates names from few letters, so that globs of the same letters match some of them.
fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::collection::vec(prop::sample::select(b"aaabbc//.-,]}".to_vec()), 0..12)
        .prop_map(|bytes| String::from_utf8(bytes).unwrap());
    prop::collection::vec(name, 1..20)
}

/// Generates globs as people write them.
fn ordinary() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "ab",
        "/",
        "/",
        "*",
        "?",
        "**",
        "**/",
        "/**",
        "/**/",
        "*.",
        ".",
        "[ab]",
        "[!a]",
        "[a-b]",
        "{a,b}",
        "{a/,b*}",
        "{**/a,b/**}",
        "{a,{b,c}}",
    ]);
    prop::collection::vec(part, 1..7).prop_map(|parts| parts.concat())
}

/// Generates globs that no person would write.
fn junk() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(b"aabc//..**??[[]]{{}},,!^-\\".to_vec());
    prop::collection::vec(piece, 0..16).prop_map(|bytes| String::from_utf8(bytes).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn ordinary_globs_match_what_globset_matches(glob in ordinary(), names in names()) {
        compare(&glob, &names);
    }

    #[test]
    fn any_text_is_the_same_glob_or_none_to_both(glob in junk(), names in names()) {
        compare(&glob, &names);
    }
}

#[test]
fn long_globs_match_what_globset_matches() {
    let names: Vec<String> = (0..40).map(|n| "ab/".repeat(n) + "abc").collect();
    for glob in [
        "{ab/,x}".repeat(30) + "abc",
        "*/".repeat(35) + "*",
        "**/".repeat(40) + "abc",
        "ab/".repeat(20) + "**/" + &"ab/".repeat(15) + "a*",
        "ab/**/".repeat(30) + "abc",
        "[a-b]?/".repeat(30) + "a{b,x}c",
        "?".repeat(200),
    ] {
        compare(&glob, &names);
    }
}
