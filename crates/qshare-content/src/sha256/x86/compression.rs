//! The constants and the padding of SHA-256, and the blocks of several messages.

use super::super::digest::{BLOCK_BYTES, Digest};

/// First state (FIPS 180-4, section 5.3.3).
pub(super) const INITIAL_STATE: [u32; 8] = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

/// Constants of the 64 rounds (FIPS 180-4, section 4.2.2).
pub(super) const ROUND_CONSTANTS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

/// A block of 64 bytes, the input of one compression.
pub(super) type Block = [u8; BLOCK_BYTES];

/// Returns the padding block of a message of `message_bytes` bytes, a multiple of 64 (FIPS 180-4,
/// section 5.1.1).
pub(super) fn padding_block(message_bytes: usize) -> Block {
    let mut block = [0; BLOCK_BYTES];
    block[0] = 0x80;
    block[56..].copy_from_slice(&(message_bytes as u64 * 8).to_be_bytes());
    block
}

/// Returns the blocks of each lane. A lane without a message repeats the last message.
pub(super) fn blocks_by_lane<const LANES: usize>(
    messages: &[u8],
    message_bytes: usize,
) -> [&[Block]; LANES] {
    let last = (messages.len() / message_bytes).saturating_sub(1);
    std::array::from_fn(|lane| {
        let message = &messages[lane.min(last) * message_bytes..][..message_bytes];
        message.as_chunks().0
    })
}

/// Returns block `block` of each lane, or the padding block after the message's last block.
///
/// This is not a closure in the kernel: such a closure is compiled for more instructions than
/// `from_fn`, so it would not be inlined.
#[inline]
pub(super) fn rows_at<'a, const LANES: usize>(
    lanes: &[&'a [Block]; LANES],
    block: usize,
    padding: &'a Block,
) -> [&'a Block; LANES] {
    std::array::from_fn(|lane| lanes[lane].get(block).unwrap_or(padding))
}

/// Writes the words of one lane's final state as a digest.
pub(super) fn write_digest(words: impl IntoIterator<Item = u32>, digest: &mut Digest) {
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
}
