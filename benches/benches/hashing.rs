//! Hashing of a chunk on one core: leaf by leaf with sha2, and as `tree::chunk_hash` does it.
//!
//! `cargo bench -p qshare-benches --bench hashing`. Read the two of one chunk size against each
//! other: absolute numbers drift with the machine, their ratio does not.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qshare_content::{Chunks, Hash, LEAF_BYTES, tree};
use sha2::{Digest, Sha256};

const KIB: u64 = 1024;

/// What `tree::chunk_hash` computes, with one SHA-256 after the other.
fn leaf_by_leaf(bytes: &[u8]) -> [u8; 32] {
    let mut layer: Vec<[u8; 32]> = bytes
        .chunks(LEAF_BYTES as usize)
        .map(|leaf| Sha256::digest(leaf).into())
        .collect();
    while layer.len() > 1 {
        layer = layer
            .chunks(2)
            .map(|pair| Sha256::digest(pair.as_flattened()).into())
            .collect();
    }
    layer.first().copied().unwrap_or([0; 32])
}

fn hashing(criterion: &mut Criterion) {
    println!("this processor's fastest: {}", tree::fastest_kernel());
    for chunk_kib in [128, 512, 1024, 4096] {
        let chunk_bytes = chunk_kib * KIB;
        // The length whose chunks are as large as this.
        let chunks = Chunks::of_length(chunk_bytes * 512);
        assert_eq!(chunks.chunk_bytes(), chunk_bytes);
        // Several chunks in turn, so that they come from where received bytes would be: not the
        // first-level cache.
        let file: Vec<u8> = (0..16 * KIB * KIB)
            .map(|at: u64| (at.wrapping_mul(at) >> 7) as u8)
            .collect();
        let mut rounds = file.chunks(chunk_bytes as usize).cycle();
        let mut next = || rounds.next().unwrap_or_default();
        assert_eq!(
            tree::chunk_hash(&chunks, next()),
            Hash(leaf_by_leaf(&file[..chunk_bytes as usize]))
        );

        let mut group = criterion.benchmark_group(format!("chunk of {chunk_kib} KiB"));
        group.throughput(Throughput::Bytes(chunk_bytes));
        group.bench_function(
            BenchmarkId::from_parameter("sha2, leaf by leaf"),
            |bencher| {
                bencher.iter(|| leaf_by_leaf(black_box(next())));
            },
        );
        group.bench_function(BenchmarkId::from_parameter("qshare"), |bencher| {
            bencher.iter(|| tree::chunk_hash(&chunks, black_box(next())));
        });
        group.finish();
    }
}

/// The layer above the chunks: messages of 64 bytes, where setting up counts most.
fn parents(criterion: &mut Criterion) {
    let chunks = Chunks::of_length(4096 * 4096 * KIB);
    let hashes: Vec<Hash> = (0..chunks.count())
        .map(|chunk| tree::leaf_hash(&chunk.to_le_bytes()))
        .collect();
    let layer: Vec<[u8; 32]> = hashes.iter().map(|hash| hash.0).collect();
    let mut group = criterion.benchmark_group("root of 4096 chunk hashes");
    group.throughput(Throughput::Elements(4095));
    group.bench_function("sha2, pair by pair", |bencher| {
        bencher.iter(|| {
            let mut layer = black_box(&layer).clone();
            while layer.len() > 1 {
                layer = layer
                    .chunks(2)
                    .map(|pair| Sha256::digest(pair.as_flattened()).into())
                    .collect();
            }
            layer
        });
    });
    group.bench_function("qshare", |bencher| {
        bencher.iter(|| tree::root_of_chunks(&chunks, black_box(&hashes)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .sample_size(20);
    targets = hashing, parents
}
criterion_main!(benches);
