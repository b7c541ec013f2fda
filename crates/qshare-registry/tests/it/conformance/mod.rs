//! The conformance suite of registries: what every one of them promises to nodes, whether it is
//! kept in the memory of one tracker or shared by several.
//!
//! A test of a registry implements [`Registered`] and runs [`promises`] and
//! [`model::any_history`].

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod lookups;
pub(crate) mod model;
pub(crate) mod registered;
mod sessions;
mod topics;
mod watches;

pub(crate) use registered::{Answer, Change, Found, Registered, Watched};

/// A promise with its name.
pub(crate) type Promise<R> = (&'static str, fn(&mut R));

macro_rules! promises {
    ($(#[$doc:meta])* $name:ident; $($module:ident: $($promise:ident),+;)+) => {
        $(#[$doc])*
        pub(crate) fn $name<R: Registered>() -> Vec<Promise<R>> {
            vec![$($((stringify!($promise), $module::$promise::<R>),)+)+]
        }
    };
}

promises! {
    /// Returns what every registry promises, each to be tried on a new one.
    promises;
    sessions:
        what_was_announced_is_found_with_its_holders,
        the_newest_session_wins,
        a_goodbye_drops_everything,
        after_a_loss_the_lease_keeps_the_entries,
        a_returning_node_takes_over_without_a_gap,
        entries_outlive_the_lease_while_the_next_session_announces,
        a_node_that_returns_after_its_lease_begins_with_nothing,
        an_announcement_that_was_cut_off_drops_nothing,
        differences_add_change_and_remove,
        what_was_withdrawn_never_comes_back;
    lookups:
        names_and_contents_are_independent,
        an_exact_name_wins_over_the_glob_that_it_also_is,
        a_nodes_own_name_finds_what_that_node_calls_so,
        a_prefix_finds_the_ids_that_begin_with_it,
        pages_of_any_size_list_everything_once_and_in_order,
        similar_names_are_offered_only_where_nothing_was_found,
        similar_names_come_best_first_whoever_holds_them,
        what_all_sources_state_is_told_and_what_they_dispute_is_not,
        a_digest_finds_the_contents_that_are_claimed_to_have_it;
    watches:
        a_watcher_hears_who_joins_completes_and_leaves,
        nobody_hears_of_itself;
    topics:
        a_topic_has_holders_for_those_who_know_it,
        no_lookup_lists_a_topic,
        a_watcher_of_a_topic_hears_of_every_change,
        topics_end_with_the_lease_and_with_an_announcement_that_omits_them;
}
