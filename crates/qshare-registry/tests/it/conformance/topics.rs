//! Topics of private shares: found by those who know them, and by nobody else.

use std::collections::BTreeMap;

use qshare_content::{ContentId, Topic};

use super::registered::{Registered, Watched, entry, query, until_believed};

const TOPIC: Topic = Topic([0x5a; 32]);
const OTHER: Topic = Topic([1; 32]);

fn agree_on_holders<R: Registered>(r: &mut R, topic: Topic, holders: &[(u8, bool)]) {
    let expected: BTreeMap<_, _> = holders.iter().map(|&(n, all)| (r.node(n), all)).collect();
    r.agree(expected, |r, place| r.holders(place, Watched::Topic(topic)));
}

pub(super) fn a_topic_has_holders_for_those_who_know_it<R: Registered>(r: &mut R) {
    r.join(1, &[]);
    r.join(2, &[]);
    r.announce_topics(1, &[(TOPIC, true)], &[]);
    r.announce_topics(2, &[(TOPIC, false)], &[]);
    agree_on_holders(r, TOPIC, &[(1, true), (2, false)]);
    agree_on_holders(r, OTHER, &[]);
    r.announce_topics(2, &[(TOPIC, true)], &[]);
    r.announce_topics(1, &[], &[TOPIC, OTHER]);
    agree_on_holders(r, TOPIC, &[(2, true)]);
}

pub(super) fn no_lookup_lists_a_topic<R: Registered>(r: &mut R) {
    r.join(1, &[entry("public", 1)]);
    r.announce_topics(1, &[(TOPIC, true), (OTHER, true)], &[]);
    agree_on_holders(r, TOPIC, &[(1, true)]);
    let public = vec![("public".to_owned(), entry("public", 1).info.id())];
    for glob in ["**", "*", "*c"] {
        r.agree(public.clone(), |r, place| {
            r.listing(place, &query(glob), 10)
        });
    }
    for place in 0..r.places() {
        for digit in "0123456789abcdef".chars() {
            let listed = r.listing(place, &query(&format!("id:{digit}")), 10);
            assert!(
                listed.iter().all(|(name, _)| name == "public"),
                "{listed:?}"
            );
        }
        let id = ContentId(TOPIC.0);
        let by_node = format!("{}/topic", r.node(1));
        for text in [id.to_string(), by_node, "topic".into(), "topi".into()] {
            let answer = r.find(place, &text);
            assert!(answer.matches.is_empty(), "{text}: {answer:?}");
            assert!(answer.near.iter().all(|name| name == "public"));
        }
        assert!(r.holders(place, Watched::Content(id)).is_empty());
    }
}

pub(super) fn a_watcher_of_a_topic_hears_of_every_change<R: Registered>(r: &mut R) {
    let two = r.node(2);
    r.join(1, &[]);
    r.join(2, &[]);
    let (watch, mut believes) = r.watch(1, Watched::Topic(TOPIC));
    assert!(believes.is_empty());
    for complete in [false, true] {
        r.announce_topics(2, &[(TOPIC, complete)], &[]);
        let expected = BTreeMap::from([(two, complete)]);
        until_believed(r, watch, &mut believes, &expected);
    }
    r.leave(2);
    until_believed(r, watch, &mut believes, &BTreeMap::new());
}

pub(super) fn topics_end_with_the_lease_and_with_an_announcement_that_omits_them<R: Registered>(
    r: &mut R,
) {
    r.join(1, &[]);
    r.announce_topics(1, &[(TOPIC, true), (OTHER, true)], &[]);
    agree_on_holders(r, OTHER, &[(1, true)]);
    r.begin(1, &[]);
    r.announce_topics(1, &[(TOPIC, true)], &[]);
    r.end(1);
    agree_on_holders(r, OTHER, &[]);
    agree_on_holders(r, TOPIC, &[(1, true)]);
    r.lose(1);
    agree_on_holders(r, TOPIC, &[(1, true)]);
    r.pass_a_lease();
    agree_on_holders(r, TOPIC, &[]);
}
