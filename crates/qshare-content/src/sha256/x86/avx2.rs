//! A kernel that computes eight messages in AVX2, for processors without SHA instructions.

use std::arch::x86_64::*;

use super::compression::Block;

/// Messages that are computed in parallel.
pub(super) const LANES: usize = 8;

type Vector = __m256i;

super::lanes::digest_group_in_lanes!("avx2");

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(word: u32) -> Vector {
    _mm256_set1_epi32(word as i32)
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn exclusive_or(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_xor_si256(_mm256_xor_si256(a, b), c)
}

/// Returns the bits of `yes` where `condition` is one, and those of `no` elsewhere.
#[inline]
#[target_feature(enable = "avx2")]
fn choose(condition: Vector, yes: Vector, no: Vector) -> Vector {
    _mm256_xor_si256(no, _mm256_and_si256(condition, _mm256_xor_si256(yes, no)))
}

/// Returns the bits that are set in at least two of the three vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_or_si256(
        _mm256_and_si256(a, b),
        _mm256_and_si256(c, _mm256_or_si256(a, b)),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift_right<const BITS: i32>(a: Vector) -> Vector {
    _mm256_srli_epi32::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate_right<const BITS: i32>(a: Vector) -> Vector {
    let left = _mm_cvtsi32_si128(32 - BITS);
    _mm256_or_si256(_mm256_srli_epi32::<BITS>(a), _mm256_sll_epi32(a, left))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> Vector {
    // SAFETY: 32 readable bytes, of any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Returns the words of a vector, the lowest first.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of(vector: Vector) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 32 writable bytes, of any alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
    words
}

/// Returns the words of one block of each lane in native byte order: one vector for each word,
/// with one lane for each message.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [&Block; LANES]) -> [Vector; 16] {
    let reversed = _mm256_set_epi64x(
        0x0c0d0e0f_08090a0b,
        0x04050607_00010203,
        0x0c0d0e0f_08090a0b,
        0x04050607_00010203,
    );
    let mut words = [broadcast(0); 16];
    for half in 0..2 {
        let mut square = [broadcast(0); LANES];
        for (row, bytes) in square.iter_mut().zip(rows) {
            *row = _mm256_shuffle_epi8(load(&bytes.as_chunks().0[half]), reversed);
        }
        let [a, b, c, d, e, f, g, h] = square;
        // Lanes 0 and 1, 2 and 3, … word by word; then lanes 0 to 3 and 4 to 7.
        let (ab0, ab2) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd0, cd2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let (ef0, ef2) = (_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f));
        let (gh0, gh2) = (_mm256_unpacklo_epi32(g, h), _mm256_unpackhi_epi32(g, h));
        let low = [
            _mm256_unpacklo_epi64(ab0, cd0),
            _mm256_unpackhi_epi64(ab0, cd0),
            _mm256_unpacklo_epi64(ab2, cd2),
            _mm256_unpackhi_epi64(ab2, cd2),
        ];
        let high = [
            _mm256_unpacklo_epi64(ef0, gh0),
            _mm256_unpackhi_epi64(ef0, gh0),
            _mm256_unpacklo_epi64(ef2, gh2),
            _mm256_unpackhi_epi64(ef2, gh2),
        ];
        for word in 0..4 {
            let (low, high) = (low[word], high[word]);
            words[half * 8 + word] = _mm256_permute2x128_si256::<0x20>(low, high);
            words[half * 8 + 4 + word] = _mm256_permute2x128_si256::<0x31>(low, high);
        }
    }
    words
}
