//! Every kind of query, over pages.

use std::collections::BTreeSet;

use qshare_content::{AssetName, FileMetadata, Hash, Query};
use qshare_registry::{Announced, similar_names};

use super::registered::{Registered, entry, info, listed, part, query};

pub(super) fn names_and_contents_are_independent<R: Registered>(r: &mut R) {
    r.join(1, &[entry("same", 1), entry("other", 1)]);
    r.join(2, &[entry("same", 2)]);
    r.agree_on_names("same", &["same", "same"]);
    r.agree_on_names("**", &["other", "same", "same"]);
    r.agree_on_names(&info(1).id().to_string(), &["other", "same"]);
    let holder = r.node(1);
    r.agree(vec![holder], |r, place| {
        let answer = r.find(place, "other");
        let holders = answer.matches.iter().flat_map(|found| found.holders.keys());
        holders.copied().collect()
    });
}

pub(super) fn an_exact_name_wins_over_the_glob_that_it_also_is<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a[1]", 1)]);
    r.join(2, &[entry("a1", 2)]);
    r.agree_on_names("a[1]", &["a[1]"]);
    r.withdraw(1, &[entry("a[1]", 1)]);
    r.agree_on_names("a[1]", &["a1"]);
    // Several contents of one name have pages like others.
    r.announce(1, &[entry("a[1]", 1), entry("a[1]", 3)]);
    r.announce(2, &[entry("a[1]", 3), entry("a[1]", 4)]);
    let expected = listed(&[entry("a[1]", 1), entry("a[1]", 3), entry("a[1]", 4)]);
    for limit in [1, 2, 5] {
        r.agree(expected.clone(), |r, place| {
            r.listing(place, &query("a[1]"), limit)
        });
    }
}

pub(super) fn a_nodes_own_name_finds_what_that_node_calls_so<R: Registered>(r: &mut R) {
    r.join(1, &[entry("dir/a", 1)]);
    r.join(2, &[entry("dir/a", 2)]);
    for (node, content) in [(1, 1), (2, 2)] {
        let text = format!("{}/dir/a", r.node(node));
        r.agree(vec![info(content)], |r, place| {
            let matches = r.find(place, &text).matches.into_iter();
            matches.map(|found| found.info).collect()
        });
    }
    // Whoever else has the content is a holder, too.
    r.join(4, &[entry("else", 2)]);
    let text = format!("{}/dir/a", r.node(2));
    let holders = BTreeSet::from([r.node(2), r.node(4)]);
    r.agree((2, holders), |r, place| {
        let found = r.find(place, &text).matches.into_iter().next();
        found.map_or_else(Default::default, |found| {
            (found.complete, found.holders.into_keys().collect())
        })
    });
    for (node, name) in [(2, "dir/b"), (3, "dir/a")] {
        let text = format!("{}/{name}", r.node(node));
        r.agree_on_names(&text, &[]);
    }
}

pub(super) fn a_prefix_finds_the_ids_that_begin_with_it<R: Registered>(r: &mut R) {
    let entries: Vec<Announced> = (0..120).map(|n| entry(&format!("f{n}"), n)).collect();
    let (one, two) = entries.split_at(70);
    r.join(1, one);
    r.join(2, two);
    for prefix in ["0", "f", "12"] {
        let ids = entries.iter().map(|entry| entry.info.id());
        let mut expected: Vec<_> = ids
            .filter(|id| id.to_string().starts_with(prefix))
            .collect();
        expected.sort();
        let query = Query::IdPrefix(prefix.parse().unwrap());
        r.agree(expected, |r, place| {
            let listing = r.listing(place, &query, 3).into_iter();
            listing.map(|(_, id)| id).collect()
        });
    }
}

pub(super) fn pages_of_any_size_list_everything_once_and_in_order<R: Registered>(r: &mut R) {
    let entries: Vec<Announced> = (0..60)
        .map(|n| entry(&format!("d{}/f{:02}.{}", n % 3, n / 2, n % 2), n))
        .collect();
    // Every other one is known twice, to different trackers.
    let of = |rest: usize| {
        let chosen = entries.iter().enumerate();
        let chosen = chosen.filter(move |(at, _)| at % 4 == 0 || at % 2 == rest);
        chosen.map(|(_, entry)| entry.clone()).collect::<Vec<_>>()
    };
    r.join(1, &of(0));
    r.join(2, &of(1));
    for limit in [1, 7, 60] {
        r.agree(listed(&entries), |r, place| {
            r.listing(place, &query("**"), limit)
        });
        for (glob, chosen) in [
            ("d1/*", "d1/"),
            ("d1/f2*", "d1/f2"),
            ("**/f03.1", "d1/f03.1"),
        ] {
            let expected = entries
                .iter()
                .filter(|entry| entry.name.as_str().starts_with(chosen));
            r.agree(listed(expected), |r, place| {
                r.listing(place, &query(glob), limit)
            });
        }
        let ending = entries
            .iter()
            .filter(|entry| entry.name.as_str().ends_with(".1"));
        // The order is that of reversed names where the ending selects fewer.
        r.agree(listed(ending), |r, place| {
            let mut listing = r.listing(place, &query("**/*.1"), limit);
            listing.sort();
            listing
        });
    }
}

pub(super) fn similar_names_are_offered_only_where_nothing_was_found<R: Registered>(r: &mut R) {
    r.join(1, &[entry("docs/report.csv", 1), entry("zoo", 2)]);
    r.agree(vec!["docs/report.csv".to_owned()], |r, place| {
        r.find(place, "reprot.csv").near
    });
    r.agree(Vec::new(), |r, place| r.find(place, "docs/report.csv").near);
}

pub(super) fn similar_names_come_best_first_whoever_holds_them<R: Registered>(r: &mut R) {
    let names = [
        "zz/report.csv",
        "old/raport.csv",
        "report.csv.bak",
        "my report.csv",
        "unlike",
    ];
    for (node, name) in (1..).zip(names) {
        r.join(node, &[entry(name, node)]);
    }
    let all: Vec<AssetName> = names.iter().map(|&n| AssetName::new(n).unwrap()).collect();
    let near = similar_names("report.csv", &all, 5);
    assert_eq!(near.len(), 4);
    let near: Vec<String> = near.iter().map(ToString::to_string).collect();
    r.agree(near, |r, place| r.find(place, "report.csv").near);
    // What nobody has any more is not offered.
    r.leave(1);
    r.agree(3, |r, place| r.find(place, "report.csv").near.len());
}

fn stating(entry: Announced, modified_ns: i64) -> Announced {
    Announced {
        metadata: FileMetadata {
            modified_ns: Some(modified_ns),
            executable: true,
            ..FileMetadata::default()
        },
        ..entry
    }
}

pub(super) fn what_all_sources_state_is_told_and_what_they_dispute_is_not<R: Registered>(
    r: &mut R,
) {
    r.join(1, &[stating(entry("a", 1), 5)]);
    // The same content by another name, and a partial holder, state nothing about this one.
    r.join(2, &[stating(entry("b", 1), 6)]);
    r.join(3, &[part("a", 1)]);
    let stated = |text: String| {
        move |r: &mut R, place: usize| {
            let matches = r.find(place, &text).matches;
            let metadata = matches.first().map(|found| found.metadata);
            metadata.map(|stated| (stated.modified_ns, stated.executable, stated.disputed))
        }
    };
    r.agree(Some((Some(5), true, false)), stated("a".into()));
    r.announce(3, &[stating(entry("a", 1), 7)]);
    r.agree(Some((None, true, true)), stated("a".into()));
    let own = format!("{}/a", r.node(3));
    r.agree(Some((Some(7), true, false)), stated(own));
    // A node that states another digest replaces its first one; a withdrawal removes it.
    r.announce(3, &[stating(entry("a", 1), 5)]);
    r.agree(Some((Some(5), true, false)), stated("a".into()));
    r.announce(3, &[stating(entry("a", 1), 8)]);
    r.withdraw(3, &[entry("a", 1)]);
    r.agree(Some((Some(5), true, false)), stated("a".into()));
}

pub(super) fn a_digest_finds_the_contents_that_are_claimed_to_have_it<R: Registered>(r: &mut R) {
    let with_digest = |entry: Announced, digest: u8| Announced {
        metadata: FileMetadata {
            sha256: Some(Hash([digest; 32])),
            ..FileMetadata::default()
        },
        ..entry
    };
    let digest = |byte: u8| format!("sha256:{}", Hash([byte; 32]));
    r.join(1, &[with_digest(entry("a", 1), 9), entry("b", 2)]);
    r.agree_on_names(&digest(9), &["a"]);
    r.agree_on_names(&digest(8), &[]);
    r.join(
        2,
        &[with_digest(entry("a", 1), 9), with_digest(entry("c", 3), 9)],
    );
    r.agree_on_names(&digest(9), &["a", "c"]);
    r.withdraw(1, &[entry("a", 1)]);
    r.agree_on_names(&digest(9), &["a", "c"]);
    r.announce(2, &[entry("c", 3)]);
    r.agree_on_names(&digest(9), &["a"]);
    r.leave(2);
    r.agree_on_names(&digest(9), &[]);
}
