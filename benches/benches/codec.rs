//! Cost of frequent messages: large announcements, pages of answers, and the two of every chunk.
//!
//! `cargo bench -p qshare-benches --bench codec`

#![expect(clippy::unwrap_used, reason = "the messages are of our own making")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qshare_content::{AssetName, ContentInfo, Hash, NodeId};
use qshare_wire::limits::{ANNOUNCE_ENTRIES_MAX, HAVE_MORE_MAX, MATCHES_MAX};
use qshare_wire::peer::{ChunkRequest, HaveMore};
use qshare_wire::tracker::{
    Announce, AnnounceStage, Entry, EntryKind, Found, Match, NodeContact, Readiness,
};
use qshare_wire::{
    Address, Candidate, CandidateKind, FRAME_HEADER_BYTES, Frame, FrameHeader, Message,
};

/// Bytes that look like a hash, another one for each number.
fn scattered(number: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(0x9e37_79b9) >> (at % 24)) as u8 ^ at as u8;
    }
    bytes
}

fn info(number: usize) -> ContentInfo {
    ContentInfo {
        length: 3_000_000 + number as u64,
        root: Hash(scattered(number)),
    }
}

/// As long as names in a tree of builds or photos are.
fn name(number: usize) -> AssetName {
    let text = format!("projects/some-project/{}/file-{number:06}.bin", number / 50);
    AssetName::new(text).unwrap()
}

fn announce() -> Announce {
    let entry = |number| Entry {
        name: name(number),
        kind: EntryKind::File,
        info: info(number),
        complete: true,
        flags: 0,
        metadata: Vec::new(),
    };
    Announce {
        sequence: 1,
        stage: AnnounceStage::FullMore,
        entries: (0..ANNOUNCE_ENTRIES_MAX).map(entry).collect(),
        removed: Vec::new(),
        extensions: Vec::new(),
    }
}

fn found() -> Found {
    const NODES: u16 = 64;
    let contact = |number: u16| NodeContact {
        node: NodeId(scattered(number.into())),
        candidates: vec![
            Candidate {
                kind: CandidateKind::Observed,
                address: Address::Socket(SocketAddr::from(([192, 0, 2, 1], 50_000 + number))),
            },
            Candidate {
                kind: CandidateKind::Local,
                address: Address::Socket(SocketAddr::from(([10, 0, 0, 1], 64_500))),
            },
        ],
    };
    let found = |number: usize| Match {
        name: name(number),
        kind: EntryKind::File,
        info: info(number),
        complete: 4,
        partial: 0,
        holders: (0..4)
            .map(|holder| ((number as u16 + holder) % NODES, true))
            .collect(),
        metadata: Vec::new(),
    };
    Found {
        readiness: Readiness::Ready,
        matches: (0..MATCHES_MAX).map(found).collect(),
        nodes: (0..NODES).map(contact).collect(),
        more: None,
        near: Vec::new(),
        extensions: Vec::new(),
    }
}

fn have_more(chunks: usize) -> HaveMore {
    HaveMore {
        chunks: (0..chunks as u32).map(|chunk| chunk * 7).collect(),
        queue_bytes: 9_000_000,
    }
}

fn chunk_request() -> ChunkRequest {
    ChunkRequest {
        content: info(7).id(),
        height: 7,
        index: 300,
        path_levels: 0,
        extensions: Vec::new(),
    }
}

/// Writing a message, and reading it as it comes from a stream: header first, then the body.
fn both_ways<M: Message>(criterion: &mut Criterion, what: &str, message: &M) {
    let bytes = Frame::encode(message).unwrap();
    let mut group = criterion.benchmark_group(format!("{what}, {} bytes", bytes.len()));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| Frame::encode(black_box(message)).unwrap());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let (header, body) = black_box(&bytes).split_at(FRAME_HEADER_BYTES);
            let header = FrameHeader::parse(header.try_into().unwrap());
            header.check(M::BODY_MAX_BYTES).unwrap();
            let frame = Frame {
                kind: header.kind,
                body: body.to_vec(),
            };
            frame.decode::<M>().unwrap()
        });
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    both_ways(
        criterion,
        &format!("Announce of {ANNOUNCE_ENTRIES_MAX}"),
        &announce(),
    );
    both_ways(criterion, &format!("Found of {MATCHES_MAX}"), &found());
    both_ways(
        criterion,
        &format!("HaveMore of {HAVE_MORE_MAX}"),
        &have_more(HAVE_MORE_MAX),
    );
    both_ways(criterion, "HaveMore of 8", &have_more(8));
    both_ways(criterion, "ChunkRequest", &chunk_request());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = codec
}
criterion_main!(benches);
