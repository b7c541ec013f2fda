//! A kernel that computes sixteen messages in AVX-512, where a rotation and any logic function of
//! three operands is one instruction.

use std::arch::x86_64::*;

use super::compression::Block;

/// Messages that are computed in parallel.
pub(super) const LANES: usize = 16;

type Vector = __m512i;

super::lanes::digest_group_in_lanes!("avx512f,avx512bw");

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(word: u32) -> Vector {
    _mm512_set1_epi32(word as i32)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

// The number of `ternarylogic` is the result's truth table: bit 4a+2b+c.

#[inline]
#[target_feature(enable = "avx512f")]
fn exclusive_or(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0b1001_0110>(a, b, c)
}

/// Returns the bits of `yes` where `condition` is one, and those of `no` elsewhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn choose(condition: Vector, yes: Vector, no: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0b1100_1010>(condition, yes, no)
}

/// Returns the bits that are set in at least two of the three vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<0b1110_1000>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift_right<const BITS: u32>(a: Vector) -> Vector {
    _mm512_srli_epi32::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate_right<const BITS: i32>(a: Vector) -> Vector {
    _mm512_ror_epi32::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &Block) -> Vector {
    // SAFETY: 64 readable bytes, of any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Returns the words of a vector, the lowest first.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes_of(vector: Vector) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 64 writable bytes, of any alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
    words
}

/// Returns the words of one block of each lane in native byte order: one vector for each word,
/// with one lane for each message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transposed(rows: [&Block; LANES]) -> [Vector; 16] {
    let reversed = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f_08090a0b, 0x04050607_00010203));
    // Within each quarter of a vector: `quads[4 * i + j]` gets, of lanes 4i to 4i+3, the words
    // j, 4+j, 8+j and 12+j, one in each quarter.
    let mut quads = [broadcast(0); 16];
    for i in 0..4 {
        let mut square = [broadcast(0); 4];
        for (j, row) in square.iter_mut().enumerate() {
            *row = _mm512_shuffle_epi8(load(rows[4 * i + j]), reversed);
        }
        let [a, b, c, d] = square;
        let (ab0, ab2) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd0, cd2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[4 * i] = _mm512_unpacklo_epi64(ab0, cd0);
        quads[4 * i + 1] = _mm512_unpackhi_epi64(ab0, cd0);
        quads[4 * i + 2] = _mm512_unpacklo_epi64(ab2, cd2);
        quads[4 * i + 3] = _mm512_unpackhi_epi64(ab2, cd2);
    }
    // Then whole quarters are exchanged: those of lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
    let mut words = [broadcast(0); 16];
    for j in 0..4 {
        let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
        let even_low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let odd_low = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let even_high = _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d);
        let odd_high = _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d);
        words[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high);
        words[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high);
        words[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high);
        words[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high);
    }
    words
}
