//! Cost of the scheduler's decisions: which chunk to request from which peer, and which request to
//! answer next.
//!
//! `cargo bench -p qshare-benches --bench picker`. Times are per chunk (a whole download divided
//! by its chunks, everything that is told to the scheduler on the way included) and per answer.

#![expect(clippy::unwrap_used, reason = "the events are of our own making")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use qshare_content::{Bitmap, ChunkIndex, Chunks, ContentId};
use qshare_swarm::{Fetch, FetchAction, FetchConfig, PeerKey, RequestId, Serve, ServeConfig};

/// A download of 4 MiB chunks that knows its peers: every fourth has all, the others have about
/// half, each in a pattern of its own.
fn fetch(now: Instant, peers: u64, chunks: u32) -> Fetch {
    const CHUNK_BYTES: u64 = 4 << 20;
    let length = u64::from(chunks) * CHUNK_BYTES;
    let cut = Chunks::of_length(length);
    assert_eq!(cut.count(), chunks);
    let config = FetchConfig {
        // Every peer is asked for as many as it may have waiting, which is the hardest case.
        in_flight_max_bytes: u64::MAX,
        ..FetchConfig::default()
    };
    let mut fetch = Fetch::new(cut, Bitmap::new(chunks), config, 1);
    for peer in 0..peers {
        let key = PeerKey(peer);
        fetch.handle_peer_joined(now, key);
        let mut has = Bitmap::new(chunks);
        for chunk in cut.indices() {
            if peer % 4 == 0 || (u64::from(chunk.0) / (peer + 1)) % 2 == 1 {
                has.insert(chunk);
            }
        }
        fetch.handle_have_all(now, key, has, 0);
    }
    fetch
}

/// Runs a download to its end: what was asked for first comes first, one chunk a millisecond.
fn download(mut now: Instant, mut fetch: Fetch) -> Fetch {
    let mut asked: VecDeque<RequestId> = VecDeque::new();
    while !fetch.is_complete() {
        while let Some(action) = fetch.poll_action(now) {
            match action {
                FetchAction::Request { request, .. } => asked.push_back(request),
                FetchAction::Withdraw { request } => {
                    asked.retain(|&waiting| waiting != request);
                    fetch.handle_withdrawn(now, request);
                }
                FetchAction::Abandon { request } => asked.retain(|&waiting| waiting != request),
                FetchAction::DropPeer { peer, reason } => panic!("{peer:?} dropped: {reason:?}"),
            }
        }
        now += Duration::from_millis(1);
        fetch.handle_timeout(now);
        if let Some(request) = asked.pop_front() {
            fetch.handle_started(now, request);
            fetch.handle_received(now, request);
            fetch.handle_verified(now, request);
        }
    }
    fetch
}

fn fetching(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("fetch");
    for (peers, chunks) in [(8, 1024), (40, 4096)] {
        group.throughput(Throughput::Elements(chunks.into()));
        group.bench_function(format!("{peers} peers, {chunks} chunks"), |bencher| {
            bencher.iter_batched(
                || fetch(now, peers, chunks),
                |fetch| download(now, black_box(fetch)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// One answer ends, the next starts, and the client that was answered requests another chunk.
fn serving(criterion: &mut Criterion) {
    const WAITING: u32 = 256;
    const CLIENTS: u32 = 32;
    const CHUNK_BYTES: u64 = 2 << 20;
    let now = Instant::now();
    let mut serve = Serve::new(ServeConfig::default(), 1);
    let mut asked = 0;
    let mut ask = |serve: &mut Serve| {
        let client = PeerKey(u64::from(asked % CLIENTS));
        let content = ContentId([(asked % 3) as u8; 32]);
        let chunk = ChunkIndex(asked.wrapping_mul(7919) % 1024);
        asked = asked.wrapping_add(1);
        serve
            .handle_request(now, client, content, chunk, CHUNK_BYTES)
            .unwrap()
    };
    for _ in 0..WAITING {
        ask(&mut serve);
    }
    let mut group = criterion.benchmark_group("serve");
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{WAITING} waiting"), |bencher| {
        bencher.iter(|| {
            let ticket = serve.poll_start(now).unwrap();
            serve.handle_finished(now, ticket, CHUNK_BYTES);
            ask(&mut serve)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    targets = fetching, serving
}
criterion_main!(benches);
