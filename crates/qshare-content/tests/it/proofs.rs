//! The hash tree's functions agree with its definition, and altered input fails verification.

use proptest::prelude::*;
use proptest::sample::Index;
use qshare_content::{ChunkIndex, Chunks, Hash, LEAF_BYTES, LENGTH_MAX_BYTES, tree};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// Computes a node by the tree's definition: node `index` at `height` of the tree over `layer`.
/// The layer lies at height 0, and its missing nodes are `filler`.
fn defined(layer: &[Hash], filler: Hash, height: u8, index: usize) -> Hash {
    if height == 0 {
        return layer.get(index).copied().unwrap_or(filler);
    }
    let left = defined(layer, filler, height - 1, 2 * index);
    let right = defined(layer, filler, height - 1, 2 * index + 1);
    Hash(Sha256::digest([left.0, right.0].as_flattened()).into())
}

fn defined_leaves(bytes: &[u8]) -> Vec<Hash> {
    let count = bytes.len().div_ceil(LEAF_BYTES as usize).max(1);
    (0..count)
        .map(|leaf| {
            let start = leaf * LEAF_BYTES as usize;
            let end = bytes.len().min(start + LEAF_BYTES as usize);
            Hash(Sha256::digest(&bytes[start..end]).into())
        })
        .collect()
}

/// Returns the height at which one node covers `nodes` nodes of height 0.
fn height_over(nodes: usize) -> u8 {
    nodes.next_power_of_two().ilog2() as u8
}

fn random_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn random_hashes(count: usize, seed: u64) -> Vec<Hash> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..count).map(|_| Hash(random.random())).collect()
}

fn bytes_of<'a>(file: &'a [u8], chunks: &Chunks, chunk: ChunkIndex) -> &'a [u8] {
    let range = chunks.range(chunk);
    &file[range.start as usize..range.end as usize]
}

/// Returns `bytes` with one bit flipped.
fn altered(bytes: &[u8], at: &Index, bit: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= 1 << bit;
    bytes
}

fn altered_hashes(hashes: &[Hash], at: &Index, bit: u32) -> Vec<Hash> {
    let mut hashes = hashes.to_vec();
    let count = hashes.len();
    let byte = at.index(count * 32);
    hashes[byte / 32].0[byte % 32] ^= 1 << bit;
    hashes
}

/// Generates lengths of up to a dozen chunks, often at a boundary or one byte beside it.
fn lengths() -> impl Strategy<Value = usize> {
    let beside = |unit: usize, most: usize| {
        (0..=most, 0..3usize).prop_map(move |(count, by)| (count * unit + by).saturating_sub(1))
    };
    prop_oneof![
        0..300_000usize,
        0..1_500_000usize,
        beside(64, 40),
        beside(LEAF_BYTES as usize, 20),
        beside(128 * 1024, 11),
    ]
}

/// Returns whether `bytes` have the size and hash of `chunk`.
fn verify_chunk(chunks: &Chunks, chunk: ChunkIndex, hash: &Hash, bytes: &[u8]) -> bool {
    chunk.0 < chunks.count()
        && bytes.len() as u64 == chunks.size(chunk)
        && tree::chunk_hash(chunks, bytes) == *hash
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chunk_hashes_and_root_are_those_of_the_definition(length in lengths(), seed: u64) {
        let file = random_bytes(length, seed);
        let chunks = Chunks::of_length(length as u64);
        let leaves = defined_leaves(&file);
        let height = height_over(leaves.len());
        let root = defined(&leaves, Hash::ZERO, height, 0);

        let hashes: Vec<Hash> = chunks
            .indices()
            .map(|chunk| tree::chunk_hash(&chunks, bytes_of(&file, &chunks, chunk)))
            .collect();
        if chunks.count() > 1 {
            for (index, hash) in hashes.iter().enumerate() {
                let node = defined(&leaves, Hash::ZERO, chunks.height(), index);
                prop_assert_eq!(*hash, node);
            }
        }
        prop_assert_eq!(tree::root_of_chunks(&chunks, &hashes), root);
        prop_assert_eq!(tree::leaf_hashes(&file), leaves.clone());
        prop_assert_eq!(tree::fold_layer(leaves, 0, height), root);
    }

    #[test]
    fn a_chunk_proves_itself_and_only_itself(
        length in lengths(),
        seed: u64,
        at: Index,
        other: Index,
        bit in 0..8u32,
    ) {
        let file = random_bytes(length, seed);
        let chunks = Chunks::of_length(length as u64);
        let chunk = ChunkIndex(at.index(chunks.count() as usize) as u32);
        let bytes = bytes_of(&file, &chunks, chunk);
        let hash = tree::chunk_hash(&chunks, bytes);
        let holds = |chunk, hash: &Hash, bytes: &[u8]| verify_chunk(&chunks, chunk, hash, bytes);
        prop_assert!(holds(chunk, &hash, bytes));

        prop_assert!(!holds(chunk, &altered_hashes(&[hash], &at, bit)[0], bytes));
        prop_assert!(!holds(ChunkIndex(chunks.count()), &hash, &[]));
        prop_assert!(!holds(chunk, &hash, &[bytes, &[0]].concat()));
        prop_assert!(!holds(chunk, &hash, &[bytes, bytes, &[0]].concat()));
        if !bytes.is_empty() {
            prop_assert!(!holds(chunk, &hash, &altered(bytes, &at, bit)));
            prop_assert!(!holds(chunk, &hash, &bytes[..bytes.len() - 1]));
            prop_assert!(!holds(chunk, &hash, &bytes[..other.index(bytes.len())]));
        }
        let other = ChunkIndex(other.index(chunks.count() as usize) as u32);
        if other != chunk {
            prop_assert!(!holds(other, &hash, bytes_of(&file, &chunks, other)));
        }
    }

    #[test]
    fn a_subtree_proves_itself_and_only_itself(
        length in lengths(),
        seed: u64,
        height in 0..=3u8,
        at: Index,
        other: Index,
        bit in 0..8u32,
    ) {
        let file = random_bytes(length, seed);
        let chunks = Chunks::of_length(length as u64);
        let chunk = ChunkIndex(at.index(chunks.count() as usize) as u32);
        let whole = bytes_of(&file, &chunks, chunk);
        let hash = tree::chunk_hash(&chunks, whole);
        let leaves = tree::leaf_hashes(whole);
        let levels = match chunks.count() {
            1 => height_over(leaves.len()),
            _ => chunks.height(),
        };
        let height = height.min(levels);
        let width = (LEAF_BYTES as usize) << height;
        let count = whole.len().div_ceil(width).max(1);
        let index = at.index(count) as u32;
        let start = index as usize * width;
        let bytes = &whole[start..whole.len().min(start + width)];
        let path = tree::subtree_path(&chunks, leaves, height, index);
        let holds = |index, bytes: &[u8], path: &[Hash]| {
            tree::verify_subtree(&chunks, chunk, &hash, height, index, bytes, path)
        };
        prop_assert!(holds(index, bytes, &path));

        if !bytes.is_empty() {
            prop_assert!(!holds(index, &altered(bytes, &at, bit), &path));
            prop_assert!(!holds(index, &bytes[1..], &path));
        }
        prop_assert!(!holds(index, &[bytes, &[0]].concat(), &path));
        prop_assert!(!holds(index, bytes, &[path.as_slice(), &[Hash::ZERO]].concat()));
        if !path.is_empty() {
            prop_assert!(!holds(index, bytes, &altered_hashes(&path, &other, bit)));
            prop_assert!(!holds(index, bytes, &path[1..]));
        }
        for wrong in [other.index(2 * count) as u32, index ^ 1, index + 256, u32::MAX] {
            prop_assert!(wrong == index || !holds(wrong, bytes, &path));
        }
        for wrong in (0..=u8::MAX).filter(|&wrong| wrong != height) {
            let held = tree::verify_subtree(&chunks, chunk, &hash, wrong, index, bytes, &path);
            prop_assert!(!held, "height {} instead of {}", wrong, height);
        }
        let beyond = ChunkIndex(chunks.count());
        prop_assert!(!tree::verify_subtree(&chunks, beyond, &hash, height, index, bytes, &path));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_page_of_chunk_hashes_proves_itself_and_only_itself(
        count in prop_oneof![1..600u32, 4095..4098u32, 4097..20_000u32],
        seed: u64,
        at: Index,
        other: Index,
        bit in 0..8u32,
    ) {
        // Chunks have 4 MiB. Below 512 chunks, the length would imply a smaller chunk size.
        let length = u64::from(count.max(512)) * 4 * 1024 * 1024;
        let chunks = Chunks::of_length(length);
        let hashes = random_hashes(chunks.count() as usize, seed);
        let root = tree::root_of_chunks(&chunks, &hashes);
        let filler = defined(&[], Hash::ZERO, chunks.height(), 0);
        prop_assert_eq!(root, defined(&hashes, filler, height_over(hashes.len()), 0));

        let of_page = |page| {
            let range = tree::page_chunks(&chunks, page);
            &hashes[range.start as usize..range.end as usize]
        };
        let pages = tree::page_count(&chunks);
        let roots: Vec<Hash> = (0..pages).map(|page| tree::page_root(&chunks, of_page(page))).collect();
        let page = at.index(pages as usize) as u32;
        let path = tree::page_path(&chunks, roots, page);
        let holds = |page, hashes: &[Hash], path: &[Hash]| {
            tree::verify_page(&chunks, &root, page, hashes, path)
        };
        let page_hashes = of_page(page);
        prop_assert!(holds(page, page_hashes, &path));

        prop_assert!(!holds(page, &altered_hashes(page_hashes, &other, bit), &path));
        prop_assert!(!holds(page, &page_hashes[1..], &path));
        prop_assert!(!holds(page, &[page_hashes, &[filler]].concat(), &path));
        prop_assert!(!holds(page, &[page_hashes, page_hashes].concat(), &path));
        prop_assert!(!holds(page, page_hashes, &[path.as_slice(), &[root]].concat()));
        if !path.is_empty() {
            prop_assert!(!holds(page, page_hashes, &altered_hashes(&path, &other, bit)));
            prop_assert!(!holds(page, page_hashes, &path[1..]));
        }
        for wrong in [other.index(pages as usize) as u32, page ^ 1, pages, u32::MAX] {
            prop_assert!(wrong == page || !holds(wrong, page_hashes, &path));
        }
        let wrong_root = altered_hashes(&[root], &at, bit)[0];
        prop_assert!(!tree::verify_page(&chunks, &wrong_root, page, page_hashes, &path));
    }

    #[test]
    fn every_node_of_a_layer_has_an_audit_path_to_its_root(
        count in 1..200usize,
        layer_height in 0..6u8,
        more_levels in 0..4u8,
        seed: u64,
    ) {
        let layer = random_hashes(count, seed);
        let levels = height_over(count) + more_levels;
        let filler = defined(&[], Hash::ZERO, layer_height, 0);
        prop_assert_eq!(tree::zero_root(layer_height), filler);
        let root = defined(&layer, filler, levels, 0);
        prop_assert_eq!(tree::fold_layer(layer.clone(), layer_height, levels), root);
        for (index, node) in layer.iter().enumerate() {
            let path = tree::audit_path(layer.clone(), layer_height, index as u64, levels);
            prop_assert_eq!(path.len(), usize::from(levels));
            prop_assert_eq!(tree::root_of_path(*node, index as u64, &path), root);
        }
    }
}

#[test]
fn nodes_beyond_those_that_fit_change_the_root() {
    let layer = random_hashes(6, 1);
    let root = tree::fold_layer(layer[..4].to_vec(), 0, 2);
    assert_ne!(tree::fold_layer(layer[..5].to_vec(), 0, 2), root);
    assert_ne!(tree::fold_layer(layer.clone(), 0, 2), root);
}

#[test]
fn whatever_a_stranger_claims_is_refused_without_a_panic() {
    let hash = Hash([7; 32]);
    for length in [0, 1, LEAF_BYTES, 128 * 1024 + 1, 1 << 34, LENGTH_MAX_BYTES] {
        let chunks = Chunks::of_length(length);
        for chunk in [0, 1, chunks.count(), u32::MAX] {
            let chunk = ChunkIndex(chunk);
            for height in [0, 1, 8, 32, 63, 64, 255] {
                for index in [0, 1, 255, u32::MAX] {
                    for path in [&[][..], &[hash; 255]] {
                        assert!(!tree::verify_subtree(
                            &chunks,
                            chunk,
                            &hash,
                            height,
                            index,
                            &[1],
                            path
                        ));
                    }
                }
            }
        }
        for page in [0, 1, u32::MAX] {
            assert!(!tree::verify_page(&chunks, &hash, page, &[], &[]));
            assert!(!tree::verify_page(
                &chunks,
                &hash,
                page,
                &[hash; 2],
                &[hash; 40]
            ));
        }
    }
}
