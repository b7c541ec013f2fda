//! Compares the hash tree with vectors of an independent implementation, `vectors/make.py`. That
//! script implements BEP 52 with Python's hashlib. It also compares its results with libtorrent's
//! `pieces root` and `piece layers`, and documents what that comparison covered.

use qshare_content::{Chunks, ContentInfo, Hash, tree};
use sha2::{Digest, Sha256};

/// A file that both implementations can generate: see `Dense` and `Sparse` in `vectors/make.py`.
enum Content {
    Dense,
    Sparse,
}

const DENSE_PERIOD: u64 = 65_521;
const SPARSE_STEP: u64 = 1_000_000_007;

impl Content {
    fn bytes(&self, range: std::ops::Range<u64>) -> Vec<u8> {
        let start = range.start;
        match self {
            Content::Dense => range
                .map(|at| {
                    let at = at % DENSE_PERIOD;
                    ((at * at) >> 7) as u8
                })
                .collect(),
            Content::Sparse => {
                let mut bytes = vec![0; (range.end - start) as usize];
                for mark in Self::marks(range) {
                    bytes[(mark * SPARSE_STEP - start) as usize] = 1 + mark as u8;
                }
                bytes
            }
        }
    }

    fn marks(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
        range.start.div_ceil(SPARSE_STEP)..range.end.div_ceil(SPARSE_STEP)
    }

    fn chunk_hashes(&self, chunks: &Chunks) -> Vec<Hash> {
        let zeros = tree::chunk_hash(chunks, &vec![0; chunks.chunk_bytes() as usize]);
        let hash = |chunk| {
            let range = chunks.range(chunk);
            let whole = chunks.size(chunk) == chunks.chunk_bytes();
            if whole && matches!(self, Content::Sparse) && Self::marks(range.clone()).is_empty() {
                zeros
            } else {
                tree::chunk_hash(chunks, &self.bytes(range))
            }
        };
        chunks.indices().map(hash).collect()
    }
}

struct Vector {
    content: Content,
    length: u64,
    chunk_bytes: u64,
    chunks: u32,
    root: String,
    layer: String,
    id: String,
}

fn number(field: &str) -> u64 {
    field.parse().expect("a number")
}

fn vectors() -> Vec<Vector> {
    include_str!("vectors/hash_tree.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split(' ');
            let mut next = || fields.next().expect("seven fields in a line");
            Vector {
                content: match next() {
                    "dense" => Content::Dense,
                    "sparse" => Content::Sparse,
                    other => panic!("unknown content {other}"),
                },
                length: number(next()),
                chunk_bytes: number(next()),
                chunks: number(next()) as u32,
                root: next().into(),
                layer: next().into(),
                id: next().into(),
            }
        })
        .collect()
}

#[test]
fn lengths_of_every_class_have_the_cut_root_and_id_of_the_vectors() {
    let vectors = vectors();
    assert!(vectors.len() > 30);
    for vector in vectors {
        let length = vector.length;
        let chunks = Chunks::of_length(length);
        assert_eq!(chunks.chunk_bytes(), vector.chunk_bytes, "length {length}");
        assert_eq!(chunks.count(), vector.chunks, "length {length}");

        let hashes = vector.content.chunk_hashes(&chunks);
        let layer: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        let layer = Hash(Sha256::digest(layer).into());
        assert_eq!(layer.to_string(), vector.layer, "length {length}");

        let root = tree::root_of_chunks(&chunks, &hashes);
        assert_eq!(root.to_string(), vector.root, "length {length}");
        let id = ContentInfo { length, root }.id();
        assert_eq!(id.to_string(), vector.id, "length {length}");
    }
}

#[test]
fn both_pages_of_a_file_of_more_than_4096_chunks_prove_themselves_against_its_root() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector.chunks > 4096).unwrap();
    let chunks = Chunks::of_length(vector.length);
    let hashes = vector.content.chunk_hashes(&chunks);
    let root: Hash = vector.root.parse().unwrap();

    assert_eq!(tree::page_count(&chunks), 2);
    let page = |page| {
        let range = tree::page_chunks(&chunks, page);
        &hashes[range.start as usize..range.end as usize]
    };
    let page_roots: Vec<Hash> = (0..2)
        .map(|at| tree::page_root(&chunks, page(at)))
        .collect();
    for at in 0..2 {
        let path = tree::page_path(&chunks, page_roots.clone(), at);
        assert!(tree::verify_page(&chunks, &root, at, page(at), &path));
        assert!(!tree::verify_page(&chunks, &root, 1 - at, page(at), &path));
    }
}
