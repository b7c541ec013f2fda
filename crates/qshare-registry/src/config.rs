//! The limits of a registry.

use std::time::Duration;

/// Limits and times of a [`crate::Registry`].
///
/// With the defaults, a registry that strangers have filled takes some 700 MB: 2 million entries
/// of 190 bytes, 256 MiB of names and 50,000 nodes of 1 kB. Changes that watchers have not read
/// come on top, up to 100 bytes each.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// How long the entries of a node outlive a connection that was lost without a goodbye. One
    /// idle time-out, so that a node whose address changed is not forgotten meanwhile.
    pub lease: Duration,
    /// How long after the start a lookup that finds nothing is answered with
    /// [`crate::Readiness::Warming`]: the time that nodes need to reconnect and announce.
    pub warming: Duration,
    /// Nodes with a session or a lease. In a full registry a node of the network that has most
    /// makes room for a node of another one.
    pub nodes_max: usize,
    /// Entries of one node.
    pub entries_per_node: usize,
    /// Entries of all nodes together. In a full registry an entry of the heaviest node of the
    /// heaviest network makes room for one of a node that uses less.
    pub entries_total: usize,
    /// Bytes of names, all nodes together; a name counts once for each content. Room is made as
    /// for [`RegistryConfig::entries_total`].
    pub name_bytes_total: usize,
    /// Addresses kept for one node besides the observed one; more are ignored.
    pub candidates_per_node: usize,
    /// Contents that one session may watch.
    pub watches_per_session: usize,
    /// Changes kept for a watch that is not read; further ones are dropped.
    pub changes_per_watch: usize,
    /// Changes kept for all watches of a group together, some 150 bytes each. Beyond that each
    /// watch may still have an equal share, so that sessions that read nothing do not keep others
    /// from being told; at most twice this number is kept then.
    pub changes_total: usize,
    /// Up to this many holders a watcher is told of all changes. Beyond it is told of a share of
    /// them, so that what it is told does not grow with the swarm.
    pub watched_holders: usize,
    /// Matches of one page.
    pub page_max: usize,
    /// Holders of one sample.
    pub holders_max: usize,
    /// Holders of one sample that share a /24 (IPv4) or /48 (IPv6), so that one party with one
    /// network cannot fill the sample. Loopback and private addresses are not limited.
    pub holders_per_network: usize,
    /// Names that a lookup by id returns for one content.
    pub names_per_content: usize,
    /// Steps of work of one lookup, some 4 ns each; then it ends with a cursor.
    pub lookup_steps_max: u64,
    /// Names compared in a search for similar ones.
    pub near_scan_names: usize,
    /// Steps of work of a search for similar names; then it ends with the best so far.
    pub near_steps_max: u64,
    /// Similar names returned.
    pub near_max: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            lease: Duration::from_secs(30),
            warming: Duration::from_secs(10),
            nodes_max: 50_000,
            entries_per_node: 250_000,
            entries_total: 2_000_000,
            name_bytes_total: 256 << 20,
            candidates_per_node: 8,
            watches_per_session: 1_024,
            changes_per_watch: 1_024,
            changes_total: 500_000,
            watched_holders: 128,
            page_max: 1_024,
            holders_max: 256,
            holders_per_network: 3,
            names_per_content: 16,
            // About 1 ms, which delays other sessions less than a packet's way does.
            lookup_steps_max: 250_000,
            near_scan_names: 1_000,
            near_steps_max: 100_000,
            near_max: 5,
        }
    }
}
