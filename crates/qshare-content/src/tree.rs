//! The hash tree of BEP 52, and the verification of a chunk and of a page of chunk hashes.
//!
//! A leaf is the SHA-256 of 16 KiB (the last leaf of a file may cover fewer bytes). An inner node
//! is the SHA-256 of its two children. Leaves beyond the end of the file, up to the next power of
//! two, are 32 zero bytes. A chunk is an aligned subtree ([`Chunks::height`]), and its hash is the
//! root of that subtree. The tree of a file of one chunk ends at the next power of two of its own
//! leaves, so the hash of its chunk is the root.
//!
//! ```
//! use qshare_content::{tree, Chunks};
//!
//! let file = vec![7u8; 300_000];
//! let chunks = Chunks::of_length(file.len() as u64);
//! let hashes: Vec<_> = chunks
//!     .indices()
//!     .map(|chunk| {
//!         let range = chunks.range(chunk);
//!         tree::chunk_hash(&chunks, &file[range.start as usize..range.end as usize])
//!     })
//!     .collect();
//! assert_eq!(hashes.len(), 3);
//! let root = tree::root_of_chunks(&chunks, &hashes);
//! assert_ne!(root, hashes[0]);
//! ```

use std::sync::LazyLock;

use crate::sha256::{self, Digest};
use crate::{ChunkIndex, Chunks, Hash, LEAF_BYTES};

/// Chunk hashes in a page, the answer to one hash request: 128 KiB of hashes.
pub const PAGE_CHUNKS: u32 = 4096;

/// Returns the hash of one leaf of at most [`LEAF_BYTES`] bytes.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Hash(sha256::digest(bytes))
}

/// Returns the hashes of all leaves of `bytes`, which begin at a leaf boundary. No bytes are one
/// empty leaf.
///
/// Leaves are hashed in parallel; the speed grows with their number, up to sixteen.
pub fn leaf_hashes(bytes: &[u8]) -> Vec<Hash> {
    hashes(leaf_digests(bytes))
}

/// Returns the name of the kernel that hashes leaves on this processor, for logs and
/// measurements; "SHA-NI x4" for example.
pub fn fastest_kernel() -> &'static str {
    sha256::fastest_kernel()
}

/// Returns the hash of an inner node.
pub fn parent_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(sha256::digest([left.0, right.0].as_flattened()))
}

/// Returns the root of a subtree of `1 << height` leaves that all lie beyond the end of the file.
pub fn zero_root(height: u8) -> Hash {
    // The tree of the largest file has height 30.
    static BY_HEIGHT: LazyLock<[Hash; 31]> = LazyLock::new(|| {
        let mut roots = [Hash::ZERO; 31];
        for height in 1..roots.len() {
            roots[height] = parent_hash(&roots[height - 1], &roots[height - 1]);
        }
        roots
    });
    let highest = height.min(30);
    (highest..height).fold(BY_HEIGHT[usize::from(highest)], |hash, _| {
        parent_hash(&hash, &hash)
    })
}

/// Folds a layer of nodes of height `layer_height` into its root, `levels` levels higher. Nodes
/// that are missing up to `1 << levels` lie beyond the end of the file. More nodes than that make
/// the tree higher, so that each of them affects the root.
pub fn fold_layer(layer: Vec<Hash>, layer_height: u8, levels: u8) -> Hash {
    fold(digests(layer), layer_height, levels)
}

fn leaf_digests(bytes: &[u8]) -> Vec<Digest> {
    let (leaves, rest) = bytes.as_chunks::<{ LEAF_BYTES as usize }>();
    let short = !rest.is_empty() || bytes.is_empty();
    let mut digests = Vec::with_capacity(leaves.len() + 1);
    digests.resize(leaves.len(), [0; 32]);
    sha256::digest_each(leaves.as_flattened(), LEAF_BYTES as usize, &mut digests);
    if short {
        digests.push(sha256::digest(rest));
    }
    digests
}

fn hashes(digests: Vec<Digest>) -> Vec<Hash> {
    digests.into_iter().map(Hash).collect()
}

fn digests(hashes: Vec<Hash>) -> Vec<Digest> {
    hashes.into_iter().map(|hash| hash.0).collect()
}

/// Returns the smallest height at which one subtree covers `nodes` nodes.
fn height_over(nodes: u64) -> u8 {
    nodes.max(1).next_power_of_two().ilog2() as u8
}

/// Replaces a layer of nodes of height `height` with their parents.
fn ascend(layer: &mut Vec<Digest>, height: u8) {
    // Several groups of the widest kernel, and only 2 KiB of stack.
    const BATCH: usize = 64;
    if layer.len() % 2 == 1 {
        layer.push(zero_root(height).0);
    }
    let parents = layer.len() / 2;
    let mut batch = [[0; 32]; BATCH];
    for start in (0..parents).step_by(BATCH) {
        let end = parents.min(start + BATCH);
        let batch = &mut batch[..end - start];
        sha256::digest_each(layer[2 * start..2 * end].as_flattened(), 64, batch);
        layer[start..end].copy_from_slice(batch);
    }
    layer.truncate(parents);
}

/// See [`fold_layer`].
fn fold(mut layer: Vec<Digest>, layer_height: u8, levels: u8) -> Hash {
    let mut height = layer_height;
    let top = layer_height.saturating_add(levels);
    while height < top || layer.len() > 1 {
        ascend(&mut layer, height);
        height = height.saturating_add(1);
    }
    layer
        .first()
        .map_or_else(|| zero_root(top), |digest| Hash(*digest))
}

/// Returns the levels of the tree inside a chunk of `leaves` leaves. The only chunk of a file is
/// the whole tree.
fn chunk_levels(chunks: &Chunks, leaves: u64) -> u8 {
    if chunks.count() == 1 {
        height_over(leaves)
    } else {
        chunks.height()
    }
}

/// Returns the hash of a chunk from its bytes.
pub fn chunk_hash(chunks: &Chunks, bytes: &[u8]) -> Hash {
    let leaves = leaf_digests(bytes);
    let levels = chunk_levels(chunks, leaves.len() as u64);
    fold(leaves, 0, levels)
}

/// Returns the root of a file from the hashes of all its chunks.
pub fn root_of_chunks(chunks: &Chunks, hashes: &[Hash]) -> Hash {
    let levels = height_over(u64::from(chunks.count()));
    fold_layer(hashes.to_vec(), chunks.height(), levels)
}

/// Returns the audit path of node `index` of `layer`: the siblings on its way to the root over
/// `levels` levels, lowest first.
///
/// The nodes of `layer` have height `layer_height`; missing nodes lie beyond the end of the file.
pub fn audit_path(layer: Vec<Hash>, layer_height: u8, mut index: u64, levels: u8) -> Vec<Hash> {
    let mut layer = digests(layer);
    let mut path = Vec::with_capacity(levels.into());
    for height in layer_height..layer_height.saturating_add(levels) {
        let sibling = usize::try_from(index ^ 1).ok().and_then(|at| layer.get(at));
        path.push(sibling.map_or_else(|| zero_root(height), |digest| Hash(*digest)));
        ascend(&mut layer, height);
        index /= 2;
    }
    path
}

/// Returns the root that `hash`, node `index` of its layer, and its audit path hash to.
pub fn root_of_path(hash: Hash, mut index: u64, path: &[Hash]) -> Hash {
    path.iter().fold(hash, |hash, sibling| {
        let right = index % 2 == 1;
        index /= 2;
        if right {
            parent_hash(sibling, &hash)
        } else {
            parent_hash(&hash, sibling)
        }
    })
}

/// Returns the number of pages of chunk hashes of a file.
pub fn page_count(chunks: &Chunks) -> u32 {
    chunks.count().div_ceil(PAGE_CHUNKS)
}

/// Returns the chunks whose hashes are in page `page`.
pub fn page_chunks(chunks: &Chunks, page: u32) -> std::ops::Range<u32> {
    let start = page.saturating_mul(PAGE_CHUNKS).min(chunks.count());
    start..start.saturating_add(PAGE_CHUNKS).min(chunks.count())
}

/// Returns the levels of the tree inside a page; all levels if the file has one page.
fn page_levels(chunks: &Chunks) -> u8 {
    height_over(u64::from(chunks.count().min(PAGE_CHUNKS)))
}

/// Returns the levels of the tree above a page, which is the length of its audit path.
pub fn page_path_levels(chunks: &Chunks) -> u8 {
    height_over(u64::from(chunks.count())) - page_levels(chunks)
}

/// Returns the root of one page of chunk hashes.
pub fn page_root(chunks: &Chunks, hashes: &[Hash]) -> Hash {
    fold_layer(hashes.to_vec(), chunks.height(), page_levels(chunks))
}

/// Returns the audit path of page `page` from the roots of all pages.
pub fn page_path(chunks: &Chunks, page_roots: Vec<Hash>, page: u32) -> Vec<Hash> {
    let height = chunks.height() + page_levels(chunks);
    audit_path(page_roots, height, page.into(), page_path_levels(chunks))
}

/// Verifies that `hashes` are those of `page`, with the page's audit path and the file's root.
pub fn verify_page(
    chunks: &Chunks,
    root: &Hash,
    page: u32,
    hashes: &[Hash],
    path: &[Hash],
) -> bool {
    hashes.len() == page_chunks(chunks, page).len()
        && !hashes.is_empty()
        && path.len() == usize::from(page_path_levels(chunks))
        && root_of_path(page_root(chunks, hashes), page.into(), path) == *root
}

/// Verifies that `bytes` are those of a subtree of `1 << height` leaves in a chunk, with its audit
/// path and the chunk's hash. `index` counts such subtrees within the chunk.
pub fn verify_subtree(
    chunks: &Chunks,
    chunk: ChunkIndex,
    chunk_hash: &Hash,
    height: u8,
    index: u32,
    bytes: &[u8],
    path: &[Hash],
) -> bool {
    let size = chunks.size(chunk);
    let levels = chunk_levels(chunks, size.div_ceil(LEAF_BYTES));
    // No chunk has a higher subtree, and a shift by its height might overflow.
    if chunk.0 >= chunks.count() || height > levels {
        return false;
    }
    let start = (u64::from(index) << height) * LEAF_BYTES;
    let end = (start + (LEAF_BYTES << height)).min(size);
    // An empty file has one leaf of no bytes.
    let exists = start < end || (start == 0 && size == 0);
    exists
        && bytes.len() as u64 == end - start
        && path.len() == usize::from(levels - height)
        && root_of_path(fold(leaf_digests(bytes), 0, height), index.into(), path) == *chunk_hash
}

/// Returns the audit path for [`verify_subtree`] from the leaves of the whole chunk. It is empty if
/// the subtree is the whole chunk.
pub fn subtree_path(chunks: &Chunks, leaves: Vec<Hash>, height: u8, index: u32) -> Vec<Hash> {
    let levels = chunk_levels(chunks, leaves.len() as u64);
    if height >= levels {
        return Vec::new();
    }
    let mut path = audit_path(leaves, 0, u64::from(index) << height, levels);
    path.drain(..usize::from(height));
    path
}
