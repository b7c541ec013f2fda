//! What people type or paste in place of a name: links, addresses, ids and queries. What can be
//! parsed is printed in a form that parses to the same value.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use qshare_content::{ContentId, Hash, Link, NodeAddress, NodeId, Query, TrackerAddress};

fn round_trip<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else {
        return;
    };
    match value.to_string().parse::<T>() {
        Ok(again) => assert_eq!(again, value),
        Err(_) => panic!("{value:?} is printed as {value}, which cannot be parsed"),
    }
}

/// A link with the text as its fields, whose id fits its size and root: no fuzzer finds a SHA-256.
fn link_with(fields: &str) -> String {
    let valid = qshare_content::ContentInfo {
        length: 42,
        root: Hash([5; 32]),
    };
    let (id, length, root) = (valid.id(), valid.length, valid.root);
    format!("qshare:{id},s={length},r={root},{fields}")
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    round_trip::<Link>(text);
    round_trip::<Link>(&link_with(text));
    round_trip::<TrackerAddress>(text);
    round_trip::<NodeAddress>(text);
    round_trip::<Query>(text);
    round_trip::<ContentId>(text);
    round_trip::<NodeId>(text);
});
