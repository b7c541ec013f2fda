//! What watchers hear.

use std::collections::BTreeMap;

use super::registered::{Registered, Watched, entry, info, part, until_believed};

pub(super) fn a_watcher_hears_who_joins_completes_and_leaves<R: Registered>(r: &mut R) {
    let (two, three) = (r.node(2), r.node(3));
    r.join(2, &[part("a", 1)]);
    r.join(1, &[]);
    let (watch, mut believes) = r.watch(1, Watched::Content(info(1).id()));
    assert_eq!(believes, BTreeMap::from([(two, false)]));
    r.announce(2, &[entry("a", 1)]);
    let complete = BTreeMap::from([(two, true)]);
    until_believed(r, watch, &mut believes, &complete);
    r.join(3, &[part("other name", 1)]);
    let both = BTreeMap::from([(two, true), (three, false)]);
    until_believed(r, watch, &mut believes, &both);
    r.leave(3);
    until_believed(r, watch, &mut believes, &complete);
    // A session with another tracker changes nothing, and neither does a loss within the lease.
    r.join(2, &[entry("a", 1)]);
    r.lose(2);
    until_believed(r, watch, &mut believes, &complete);
    r.pass_a_lease();
    until_believed(r, watch, &mut believes, &BTreeMap::new());
}

pub(super) fn nobody_hears_of_itself<R: Registered>(r: &mut R) {
    let two = r.node(2);
    r.join(1, &[entry("a", 1)]);
    let (watch, mut believes) = r.watch(1, Watched::Content(info(1).id()));
    assert!(believes.is_empty());
    r.withdraw(1, &[entry("a", 1)]);
    r.announce(1, &[part("a", 1)]);
    r.join(2, &[entry("a", 1)]);
    until_believed(r, watch, &mut believes, &BTreeMap::from([(two, true)]));
}
