//! Sessions, announcements and leases.

use std::collections::BTreeMap;

use super::registered::{Registered, entry, info, part};

pub(super) fn what_was_announced_is_found_with_its_holders<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a", 1)]);
    r.join(2, &[part("a", 1)]);
    let holders = BTreeMap::from([(r.node(1), true), (r.node(2), false)]);
    r.agree((1, 1, holders), |r, place| {
        let answer = r.find(place, "a");
        let found = answer.matches.first();
        found.map_or_else(Default::default, |found| {
            assert_eq!(found.info, info(1));
            (found.complete, found.partial, found.holders.clone())
        })
    });
}

pub(super) fn the_newest_session_wins<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a", 1), entry("b", 2)]);
    r.join(1, &[entry("b", 2), entry("c", 3)]);
    r.agree_on_names("*", &["b", "c"]);
    r.pass_a_lease();
    r.agree_on_names("*", &["b", "c"]);
    r.leave(1);
    r.agree_on_names("*", &[]);
}

pub(super) fn a_goodbye_drops_everything<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a", 1), part("b", 2)]);
    r.join(2, &[entry("c", 3)]);
    r.agree_on_names("*", &["a", "b", "c"]);
    r.leave(1);
    r.agree_on_names("*", &["c"]);
    r.agree_on_names(&info(1).id().to_string(), &[]);
}

pub(super) fn after_a_loss_the_lease_keeps_the_entries<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a", 1)]);
    r.lose(1);
    r.agree_on_names("a", &["a"]);
    r.pass_a_lease();
    r.agree_on_names("a", &[]);
    r.agree_on_names("*", &[]);
}

pub(super) fn a_returning_node_takes_over_without_a_gap<R: Registered>(r: &mut R) {
    r.join(1, &[entry("gone", 2), entry("kept", 1)]);
    r.lose(1);
    r.begin(1, &[entry("kept", 1), entry("new", 3)]);
    r.agree_on_names("*", &["gone", "kept", "new"]);
    r.end(1);
    r.agree_on_names("*", &["kept", "new"]);
    r.pass_a_lease();
    r.agree_on_names("*", &["kept", "new"]);
}

pub(super) fn entries_outlive_the_lease_while_the_next_session_announces<R: Registered>(r: &mut R) {
    r.join(1, &[entry("later", 2), entry("kept", 1)]);
    r.lose(1);
    r.begin(1, &[entry("kept", 1)]);
    r.pass_a_lease();
    r.agree_on_names("*", &["kept", "later"]);
    // One holder counts once, however many trackers know it.
    let holders = BTreeMap::from([(r.node(1), true)]);
    for name in ["kept", "later"] {
        r.agree((1, holders.clone()), |r, place| {
            let matches = r.find(place, name).matches.into_iter().next();
            matches.map_or_else(Default::default, |found| (found.complete, found.holders))
        });
    }
    r.announce(1, &[entry("later", 2)]);
    r.end(1);
    r.agree_on_names("*", &["kept", "later"]);
    r.leave(1);
    r.agree_on_names("*", &[]);
}

pub(super) fn a_node_that_returns_after_its_lease_begins_with_nothing<R: Registered>(r: &mut R) {
    // Several nodes, since their trackers handle them at different times.
    let nodes = 1..=4;
    for node in nodes.clone() {
        r.join(node, &[entry("gone", node)]);
    }
    for node in nodes.clone() {
        r.lose(node);
    }
    r.pass_a_lease();
    for node in nodes {
        r.begin(node, &[]);
    }
    r.agree_on_names("*", &[]);
}

pub(super) fn an_announcement_that_was_cut_off_drops_nothing<R: Registered>(r: &mut R) {
    r.join(1, &[entry("a", 1), entry("b", 2)]);
    r.begin(1, &[entry("a", 1)]);
    r.lose(1);
    r.agree_on_names("*", &["a", "b"]);
    r.join(1, &[entry("b", 2)]);
    r.agree_on_names("*", &["b"]);
}

pub(super) fn differences_add_change_and_remove<R: Registered>(r: &mut R) {
    r.join(1, &[part("a", 1), entry("b", 2)]);
    r.announce(1, &[entry("a", 1)]);
    r.withdraw(1, &[entry("b", 2), entry("never was", 3)]);
    r.agree(vec![("a".to_owned(), 1, 0)], |r, place| {
        let matches = r.find(place, "**").matches.into_iter();
        matches.map(|m| (m.name, m.complete, m.partial)).collect()
    });
}

pub(super) fn what_was_withdrawn_never_comes_back<R: Registered>(r: &mut R) {
    r.join(1, &[entry("x", 1), entry("y", 2)]);
    r.withdraw(1, &[entry("x", 1)]);
    r.lose(1);
    r.agree_on_names("*", &["y"]);
    r.join(1, &[entry("y", 2)]);
    r.agree_on_names("*", &["y"]);
    r.pass_a_lease();
    r.agree_on_names("*", &["y"]);
    r.agree_on_names("x", &[]);
}
