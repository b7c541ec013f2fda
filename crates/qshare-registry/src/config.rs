//! The limits of a registry.

use std::time::Duration;

/// Limits and times of a [`crate::Registry`].
///
/// With the defaults, a registry that attackers have filled takes about 700 MB: 2 million entries
/// of 190 bytes, 256 MiB of names and 50,000 nodes of 1 kB. Changes that watchers have not read
/// take up to 100 bytes each in addition.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// How long the entries of a node outlive a connection that was lost without a goodbye. The
    /// value is one idle time-out, so that the entries of a node whose address changed survive its
    /// reconnect.
    pub lease: Duration,
    /// How long after the start a lookup that finds nothing is answered with
    /// [`crate::Readiness::Warming`]: the time that nodes need to notice a restart, to reconnect
    /// and to announce.
    pub warming: Duration,
    /// Limit on the nodes with a session or a lease. In a full registry, a node of the network with
    /// the most nodes is evicted for a node of another network.
    pub nodes_max: usize,
    /// Limit on the entries of one node.
    pub entries_per_node: usize,
    /// Limit on the entries of all nodes together. In a full registry, an entry of the heaviest
    /// node of the heaviest network is evicted for an entry of a node that uses less.
    pub entries_total: usize,
    /// Limit on the bytes of names of all nodes together; a name counts once for each content.
    /// Entries are evicted as for [`RegistryConfig::entries_total`].
    pub name_bytes_total: usize,
    /// Addresses kept for one node besides the observed one; more are ignored.
    pub candidates_per_node: usize,
    /// Contents that one session may watch.
    pub watches_per_session: usize,
    /// Changes kept for a watch that is not read; further ones are dropped.
    pub changes_per_watch: usize,
    /// Limit on the changes kept for all watches of a group together, about 150 bytes each. Beyond
    /// that, each watch may still have an equal share, so that sessions that read nothing do not
    /// block the others. At most twice this number is kept then.
    pub changes_total: usize,
    /// Up to this many holders, all changes are reported to a watcher. Beyond that, only a sample
    /// is reported, so that the messages to one watcher do not grow with the swarm.
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
    /// Limit on the steps of one lookup, about 4 ns each; the lookup then ends with a cursor.
    pub lookup_steps_max: u64,
    /// Names compared in a search for similar ones.
    pub near_scan_names: usize,
    /// Limit on the steps of a search for similar names; it then ends with the best names so far.
    pub near_steps_max: u64,
    /// Similar names returned.
    pub near_max: usize,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            lease: Duration::from_secs(30),
            warming: Duration::from_secs(17),
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
            // About 1 ms, which delays other sessions less than the network delays a packet.
            lookup_steps_max: 250_000,
            near_scan_names: 1_000,
            near_steps_max: 100_000,
            near_max: 5,
        }
    }
}
