//! What bounds a registry.

use std::time::Duration;

/// Bounds and times of a [`crate::Registry`]. With the defaults a registry that strangers
/// fill to the brim takes about a gigabyte.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// How long the entries of a node outlive a connection that was lost without a goodbye:
    /// one idle time-out, so that a node whose address changed is not forgotten meanwhile.
    pub lease: Duration,
    /// How long after the start a lookup that finds nothing is answered with
    /// [`crate::Readiness::Warming`]: the time nodes need to reconnect and announce.
    pub warming: Duration,
    /// Nodes known at once, those whose lease is running included.
    pub nodes_max: usize,
    /// Entries that one node may announce.
    pub entries_per_node: usize,
    /// Entries of all nodes together.
    pub entries_total: usize,
    /// Bytes of names, all nodes together; one (name, content) counts once.
    pub name_bytes_total: usize,
    /// Addresses kept for one node besides the observed one; more are ignored.
    pub candidates_per_node: usize,
    /// Contents that one session may watch.
    pub watches_per_session: usize,
    /// Changes kept for a watch that is not read; further ones are not told.
    pub changes_per_watch: usize,
    /// Changes kept for all watches of a group together, some 150 bytes each. Beyond that a watch
    /// has its equal share of them at least, so that those who read nothing keep nobody else from
    /// being told; there are at most twice as many then.
    pub changes_total: usize,
    /// A watcher hears of this many holders for certain; once there are more, of a share of
    /// the changes, so that what a watcher is told does not grow with the swarm.
    pub watched_holders: usize,
    /// Matches in one page.
    pub page_max: usize,
    /// Holders in one sample.
    pub holders_max: usize,
    /// Holders in one sample that share a /24 (IPv4) or /48 (IPv6): whoever rents one network
    /// must not fill the sample. Loopback and private addresses are not counted.
    pub holders_per_network: usize,
    /// Names that a lookup by id gives for one content.
    pub names_per_content: usize,
    /// Steps of work of one lookup, some 4 ns each; then it ends with a cursor.
    pub lookup_steps_max: u64,
    /// Names compared when looking for similar ones.
    pub near_scan_names: usize,
    /// Steps of work of looking for similar names; then the best so far are offered.
    pub near_steps_max: u64,
    /// Similar names offered.
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
            // 1 ms: nobody notices a tracker that is busy for so long.
            lookup_steps_max: 250_000,
            near_scan_names: 1_000,
            near_steps_max: 100_000,
            near_max: 5,
        }
    }
}
