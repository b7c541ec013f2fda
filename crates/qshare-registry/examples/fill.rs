//! Fills a registry and prints what an entry costs, every file on so many nodes:
//!
//! ```text
//! cargo run --release -p qshare-registry --example fill [ENTRIES [NODES_PER_FILE]]
//! ```

use std::net::SocketAddr;
use std::time::Instant;

use qshare_content::{AssetName, ContentInfo, Hash, NodeId, Query};
use qshare_registry::{Announced, Find, GroupId, Registry, RegistryConfig};

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .map_while(|text| text.parse::<u64>().ok());
    let entries = numbers.next().unwrap_or(1_000_000);
    let sharers = numbers.next().unwrap_or(1).max(1);
    fill(entries / sharers, (100 / sharers).max(1), sharers);
}

/// `files` files, divided among `owners` sets of `sharers` nodes that share the same.
fn fill(files: u64, owners: u64, sharers: u64) {
    let entries = files * sharers;
    let files = files / owners;
    let config = RegistryConfig {
        entries_per_node: usize::MAX,
        entries_total: usize::MAX,
        ..RegistryConfig::default()
    };
    let start = Instant::now();
    let mut registry = Registry::new(config, start, 1);
    let before_bytes = resident_bytes();
    let mut sessions = Vec::new();
    for owner in 0..owners {
        // Made per owner, so that the input does not count as the registry's memory.
        let batch: Vec<Announced> = (0..files).map(|file| announced(owner, file)).collect();
        for sharer in 0..sharers {
            let node = node_id(owner * sharers + sharer);
            let observed = SocketAddr::from(([10, 0, 0, 1], 64500));
            let session = registry
                .handle_session_opened(start, GroupId::OPEN, node, observed, &[])
                .expect("there is room");
            for batch in batch.chunks(1_000) {
                registry
                    .handle_announced(start, session, batch)
                    .expect("the session is open");
            }
            sessions.push(session);
        }
    }
    rate("announced", entries, start);
    let bytes = resident_bytes().saturating_sub(before_bytes);
    println!("  {} bytes an entry", bytes / entries.max(1));

    let lookups = 100_000.min(files * owners);
    let begun = Instant::now();
    for n in 0..lookups {
        let Announced { name, .. } = announced(n % owners, n / owners);
        let query = Query::Name(name.into());
        let page = find(&mut registry, start, query, 10);
        assert_eq!(page, 1);
    }
    rate("looked up by name", lookups, begun);

    let begun = Instant::now();
    let pages = 100;
    for n in 0..pages {
        let query = Query::Name(format!("node-{}/**", n % owners));
        find(&mut registry, start, query, 1_000);
    }
    rate("pages of 1,000", pages, begun);

    let begun = Instant::now();
    for session in sessions {
        registry.handle_session_closed(start, session, true);
    }
    rate("dropped", entries, begun);
    assert_eq!(registry.counts().contents, 0);
}

fn find(registry: &mut Registry, now: Instant, query: Query, limit: usize) -> usize {
    let find = Find {
        group: GroupId::OPEN,
        query,
        after: None,
        limit,
        holders: 4,
        asking: None,
    };
    registry
        .find(now, &find)
        .expect("a valid query")
        .matches
        .len()
}

fn announced(owner: u64, file: u64) -> Announced {
    let mut root = [0; 32];
    root[..8].copy_from_slice(&owner.to_le_bytes());
    root[8..16].copy_from_slice(&file.to_le_bytes());
    let text = format!("node-{owner}/directory-{}/file-{file:07}.bin", file / 1_000);
    Announced {
        name: AssetName::new(text).expect("a plain name"),
        info: ContentInfo {
            length: file,
            root: Hash(root),
        },
        complete: true,
    }
}

fn node_id(n: u64) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    NodeId(id)
}

fn rate(what: &str, count: u64, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("  {:.0} {what} a second", count as f64 / seconds);
}

/// Memory of this process that is in use (VmRSS), 0 where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
