//! Fills a registry and prints what an entry costs, and how long calls take:
//!
//! ```text
//! cargo run --release -p qshare-registry --example fill [NODES CONTENTS_PER_NODE [SHARERS]]
//! ```
//!
//! Each file is announced by SHARERS nodes (default: 1). Defaults to the two shapes of a million
//! entries that the memory target is about, with one and with a hundred sharers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::{AssetName, ContentInfo, FileMetadata, Hash, NodeId, Query};
use qshare_registry::{Announced, Find, GroupId, Registry, RegistryConfig, TimeoutReason};

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map_while(|text| text.parse().ok())
        .collect();
    match numbers[..] {
        [nodes, contents] => fill(nodes, contents, 1),
        [nodes, contents, sharers] => fill(nodes, contents, sharers.max(1)),
        _ => {
            // Each in a process of its own, since memory that was freed is not all returned.
            for arguments in ["10000 100 1", "100 10000 1", "10000 100 100"] {
                let this = std::env::current_exe().expect("the path of this program");
                let status = std::process::Command::new(this)
                    .args(arguments.split(' '))
                    .status();
                assert!(status.expect("it starts").success());
            }
        }
    }
}

fn fill(nodes: u64, contents: u64, sharers: u64) {
    println!("{nodes} nodes with {contents} contents each, {sharers} sharing the same:");
    let entries = nodes * contents;
    let owners = nodes / sharers;
    let config = RegistryConfig {
        nodes_max: usize::MAX,
        entries_per_node: usize::MAX,
        entries_total: usize::MAX,
        name_bytes_total: usize::MAX,
        ..RegistryConfig::default()
    };
    let start = Instant::now();
    let mut registry = Registry::new(config, start, 1);
    let before_bytes = resident_bytes();
    let mut sessions = Vec::new();
    let mut slowest = Duration::ZERO;
    for owner in 0..owners {
        // Made per owner, so that the input does not count as the registry's memory.
        let batch: Vec<Announced> = (0..contents).map(|file| announced(owner, file)).collect();
        for sharer in 0..sharers {
            let number = owner * sharers + sharer;
            // Addresses of many networks.
            let [_, a, b, c] = (number as u32).to_be_bytes();
            let observed = SocketAddr::from(([50 + a, b, c, 1], 64500));
            let session = registry
                .handle_session_opened(start, GroupId::OPEN, node_id(number), observed, &[])
                .expect("there is room");
            for batch in batch.chunks(512) {
                let begun = Instant::now();
                registry
                    .handle_announced(start, session, batch)
                    .expect("the session is open");
                slowest = slowest.max(begun.elapsed());
            }
            sessions.push(session);
        }
    }
    rate("announced", entries, start);
    println!("  {slowest:.1?} for the slowest batch of 512");
    let bytes = resident_bytes().saturating_sub(before_bytes);
    let names = registry.counts().name_bytes as u64;
    println!(
        "  {} bytes an entry beyond names, {} with them",
        bytes.saturating_sub(names) / entries.max(1),
        bytes / entries.max(1)
    );

    let lookups = 100_000.min(contents * owners);
    let begun = Instant::now();
    for n in 0..lookups {
        let Announced { name, .. } = announced(n % owners, (n / owners) % contents);
        let query = Query::Name(name.into());
        let (matches, _) = find(&mut registry, start, query, 10);
        assert_eq!(matches, 1);
    }
    rate("looked up by name", lookups, begun);
    let begun = Instant::now();
    for n in 0..lookups {
        let Announced { info, .. } = announced(n % owners, (n / owners) % contents);
        let (matches, _) = find(&mut registry, start, Query::Id(info.id()), 10);
        assert_eq!(matches, 1);
    }
    rate("looked up by id", lookups, begun);

    for (what, glob) in [
        ("dir/**", "node-7/**"),
        ("prefix*", "node-7*/**"),
        ("**/*.ext", "**/*.iso"),
        ("**/suffix", "**/file-0000042.bin"),
        ("all", "**"),
        ("none", "**/*0?1?2?3*x?"),
    ] {
        let (mut calls, mut steps) = (0_u64, 0);
        let mut slowest = Duration::ZERO;
        let begun = Instant::now();
        while calls < 100 {
            let one = Instant::now();
            let (_, took) = find(&mut registry, start, Query::Name(glob.into()), 1_000);
            slowest = slowest.max(one.elapsed());
            steps += took;
            calls += 1;
        }
        let took = begun.elapsed();
        println!(
            "  {what}: {:.1?} a page, {slowest:.1?} the slowest, {} steps of {:.1} ns",
            took / 100,
            steps / calls,
            took.as_nanos() as f64 / steps.max(1) as f64
        );
    }

    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for session in sessions {
        let one = Instant::now();
        registry.handle_session_closed(start, session, false);
        slowest = slowest.max(one.elapsed());
    }
    let expired = start + Duration::from_secs(60);
    let mut calls = 0;
    while registry.counts().entries > 0 || registry.poll_timeout().is_some() {
        let one = Instant::now();
        registry.handle_timeout(expired);
        slowest = slowest.max(one.elapsed());
        calls += 1;
        let due = registry.poll_timeout();
        assert!(due.is_none_or(|due| due.reason == TimeoutReason::WorkIsLeft || due.at <= expired));
    }
    rate("expired", entries, begun);
    println!("  {slowest:.1?} for the slowest of {calls} calls");
    assert_eq!(registry.counts().contents, 0);
}

/// Returns the number of matches and the steps of a lookup.
fn find(registry: &mut Registry, now: Instant, query: Query, limit: usize) -> (usize, u64) {
    let find = Find {
        group: GroupId::OPEN,
        query,
        after: None,
        limit,
        holders: 4,
        asking: None,
        near: false,
    };
    let page = registry.find(now, &find).expect("a valid query");
    (page.matches.len(), page.steps)
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
        is_collection: false,
        complete: true,
        metadata: FileMetadata {
            modified_ns: with_times().then_some(1_577_934_245_123_456_789),
            ..FileMetadata::default()
        },
    }
}

/// Whether entries state a modification time: with a second argument, `times`.
fn with_times() -> bool {
    std::env::args().any(|argument| argument == "times")
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
