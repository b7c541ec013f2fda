//! A kernel that interleaves several messages with the SHA instructions.
//!
//! `sha256rnds2` computes two rounds, and the next one of the same message depends on it. Its
//! latency on Zen 3 is 4 cycles, so a block of 64 bytes takes 128 cycles. Two interleaved messages
//! take half of that per block (64 measured). The limit is then the issue of instructions:
//! `sha256msg2` alone occupies two cycles there, and a block without dependencies needs 52. Four
//! messages reach 60 cycles; more than four run out of registers.
//!
//! The instructions require words A B E F of the state in one register and C D G H in the other
//! (Intel SDM, SHA256RNDS2).

use std::arch::x86_64::*;

use super::super::digest::Digest;
use super::compression::{
    INITIAL_STATE, ROUND_CONSTANTS, blocks_by_lane, padding_block, rows_at, write_digest,
};

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 readable bytes, of any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Returns four words as a register, the first in the lowest place.
#[inline]
#[target_feature(enable = "sse2")]
fn words(words: [u32; 4]) -> __m128i {
    let [a, b, c, d] = words.map(|word| word as i32);
    _mm_set_epi32(d, c, b, a)
}

/// Computes the digests of up to `N` messages; see [`super::super::kernel::Run`].
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn digest_group<const N: usize>(
    messages: &[u8],
    message_bytes: usize,
    digests: &mut [Digest],
) {
    let lanes = blocks_by_lane::<N>(messages, message_bytes);
    let padding = padding_block(message_bytes);
    let [a, b, c, d, e, f, g, h] = INITIAL_STATE;
    let mut abef = [words([f, e, b, a]); N];
    let mut cdgh = [words([h, g, d, c]); N];
    // Reverses the bytes of each word: the message is big-endian.
    let reversed = words([0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f]);

    let mut next = 0;
    // The loop selects the rows of the next block at its end. At the beginning of the loop the
    // compiler would choose between message and padding at each load.
    let mut rows = rows_at(&lanes, next, &padding);
    loop {
        let (abef_before, cdgh_before) = (abef, cdgh);
        // The last 16 words of the message schedule, by lane.
        let mut schedule = [[reversed; 4]; N];
        // Four rounds of each message in turn. The number is a literal, so that the arrays above
        // have constant indices and stay in registers.
        macro_rules! four_rounds {
            ($($number:literal)*) => {$({
                let [k0, k1, k2, k3] = ROUND_CONSTANTS.as_chunks().0[$number];
                let constants = words([k0, k1, k2, k3]);
                for lane in 0..N {
                    let w = &mut schedule[lane];
                    let next = if $number < 4 {
                        _mm_shuffle_epi8(load(&rows[lane].as_chunks().0[$number % 4]), reversed)
                    } else {
                        let (w16, w12) = (w[$number % 4], w[($number + 1) % 4]);
                        let (w8, w4) = (w[($number + 2) % 4], w[($number + 3) % 4]);
                        let w7 = _mm_alignr_epi8::<4>(w4, w8);
                        _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w16, w12), w7), w4)
                    };
                    w[$number % 4] = next;
                    let low = _mm_add_epi32(next, constants);
                    let high = _mm_shuffle_epi32::<0b1110>(low);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], low);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], high);
                }
            })*};
        }
        four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for lane in 0..N {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
        next += 1;
        if next > lanes[0].len() {
            break;
        }
        rows = rows_at(&lanes, next, &padding);
    }

    for (lane, digest) in digests.iter_mut().enumerate().take(N) {
        let (x, y) = (abef[lane], cdgh[lane]);
        let state = [
            _mm_extract_epi32::<3>(x),
            _mm_extract_epi32::<2>(x),
            _mm_extract_epi32::<3>(y),
            _mm_extract_epi32::<2>(y),
            _mm_extract_epi32::<1>(x),
            _mm_extract_epi32::<0>(x),
            _mm_extract_epi32::<1>(y),
            _mm_extract_epi32::<0>(y),
        ];
        write_digest(state.map(|word| word as u32), digest);
    }
}
