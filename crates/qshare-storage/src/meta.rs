//! The format of a meta file, `NAME.qshare.meta`, which holds the state of an unfinished download.
//!
//! ```text
//! offset      bytes         what
//! 0           4096          head, written once: what is being downloaded
//! 4096        S             checkpoint slot 0
//! 4096 + S    S             checkpoint slot 1
//! 4096 + 2S   32 × chunks   chunk hashes, written once, only if there are several chunks
//!
//! head        0   8   magic "qshare\0m"
//!             8   4   version, u32 LE: 1, or 2 with a share key
//!             12  4   length L of the body, u32 LE
//!             16  32  SHA-256 of bytes 0..16 and the body
//!             48  L   body: postcard of (content id, length, root, name), in version 2
//!                     followed by the 16 bytes of the share key
//!
//! slot        0   32  SHA-256 of the content id and the rest of the slot
//!             32  8   generation, u64 LE: the valid slot with the larger one counts
//!             40  8   flags, u64 LE: bit 0 = stopped cleanly
//!             48  24  the part file's size, mtime, ctime (ns since 1970) then, u64, i64, i64 LE
//!             72      durable bitmap, bit i % 8 of byte i / 8 for chunk i
//! ```
//!
//! S is the slot's length rounded up to 4096, so that writing one slot never tears the other.
//! All offsets follow from the content's length, so the slots can be found if the head is damaged.
//! The chunk hashes need no checksum: they are valid if they hash to the root.

use qshare_content::{Bitmap, Chunks, ContentId, ContentInfo, Hash, LENGTH_MAX_BYTES, ShareKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::stamp::Stamp;

/// The first bytes of every meta file. A file with other first bytes is not a meta file.
pub(crate) const MAGIC: [u8; 8] = *b"qshare\0m";
/// The version of a head without a share key, and of one with it.
const VERSION: u32 = 1;
const VERSION_WITH_KEY: u32 = 2;
/// Size of the head, one page of common file systems. The body is at most some 1,200 bytes.
pub(crate) const HEAD_BYTES: u64 = 4096;
const HEAD_BODY_AT: usize = 48;
const SLOT_BITMAP_AT: usize = 72;
/// Alignment of the slots, the usual page size. A torn write damages only the pages it writes.
const ALIGNMENT_BYTES: u64 = 4096;
const CLEAN: u64 = 1;

/// The offsets in the meta file of a content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    chunk_count: u32,
}

impl Layout {
    pub(crate) fn of(chunks: &Chunks) -> Layout {
        Layout {
            chunk_count: chunks.count(),
        }
    }

    /// Returns the size of a slot in bytes, without the padding.
    pub(crate) fn slot_bytes(self) -> usize {
        SLOT_BITMAP_AT + (self.chunk_count as usize).div_ceil(8)
    }

    /// Returns the offset of the slot of a generation.
    pub(crate) fn slot_offset(self, generation: u64) -> u64 {
        let room = (self.slot_bytes() as u64).next_multiple_of(ALIGNMENT_BYTES);
        HEAD_BYTES + generation % 2 * room
    }

    /// Returns the offset of the hash of a chunk.
    pub(crate) fn hash_offset(self, chunk: u32) -> u64 {
        self.slot_offset(0)
            + 2 * (self.slot_offset(1) - self.slot_offset(0))
            + u64::from(chunk) * 32
    }
}

/// The head: the content and name of the download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) id: ContentId,
    pub(crate) info: ContentInfo,
    /// The asset's name, or the file name of a path that the user chose.
    pub(crate) name: String,
    /// The key of a private share. Follows the other fields in version 2.
    #[serde(skip)]
    pub(crate) share_key: Option<ShareKey>,
}

/// The result of decoding a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadRead {
    /// A head whose id, length and root agree.
    Good(Head),
    /// A meta file by its magic, with a damaged head.
    Damaged,
    /// A head of a later version.
    Newer(u32),
    /// Not a meta file.
    NotOurs,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Serialising plain fields into a Vec cannot fail; an empty body would read as damaged.
        let mut body = postcard::to_stdvec(self).unwrap_or_default();
        let mut version = VERSION;
        if let Some(key) = &self.share_key {
            version = VERSION_WITH_KEY;
            body.extend_from_slice(key.as_bytes());
        }
        let mut bytes = Vec::with_capacity(HEAD_BODY_AT + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head_checksum(&bytes, &body));
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Decodes the first bytes of a file, up to [`HEAD_BYTES`].
    pub(crate) fn decode(bytes: &[u8]) -> HeadRead {
        if !bytes.starts_with(&MAGIC) {
            return HeadRead::NotOurs;
        }
        Head::decode_ours(bytes).unwrap_or(HeadRead::Damaged)
    }

    fn decode_ours(bytes: &[u8]) -> Option<HeadRead> {
        let fixed = bytes.get(..16)?;
        let length = u32_at(bytes, 12)? as usize;
        let body = bytes.get(HEAD_BODY_AT..HEAD_BODY_AT.checked_add(length)?)?;
        if bytes.get(16..HEAD_BODY_AT)? != head_checksum(fixed, body) {
            return None;
        }
        let version = u32_at(bytes, 8)?;
        let (body, share_key) = match version {
            VERSION => (body, None),
            VERSION_WITH_KEY => {
                let (body, key) = body.split_last_chunk::<16>()?;
                (body, Some(ShareKey::from_bytes(*key)))
            }
            _ => return Some(HeadRead::Newer(version)),
        };
        let head: Head = postcard::from_bytes(body).ok()?;
        let head = Head { share_key, ..head };
        let valid = head.info.length <= LENGTH_MAX_BYTES && head.info.id() == head.id;
        valid.then_some(HeadRead::Good(head))
    }
}

fn head_checksum(fixed: &[u8], body: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(fixed)
        .chain_update(body)
        .finalize()
        .into()
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    /// After a clean stop: size and times of the part file.
    pub(crate) clean: Option<PartLook>,
    pub(crate) durable: Bitmap,
}

/// Size and times of a part file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartLook {
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

impl From<Stamp> for PartLook {
    fn from(stamp: Stamp) -> PartLook {
        PartLook {
            size: stamp.size,
            mtime_ns: stamp.mtime_ns,
            ctime_ns: stamp.ctime_ns,
        }
    }
}

impl Slot {
    pub(crate) fn encode(&self, id: &ContentId) -> Vec<u8> {
        let look = self.clean.unwrap_or(PartLook {
            size: 0,
            mtime_ns: 0,
            ctime_ns: 0,
        });
        let flags = if self.clean.is_some() { CLEAN } else { 0 };
        let mut bytes = vec![0; 32];
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&look.size.to_le_bytes());
        bytes.extend_from_slice(&look.mtime_ns.to_le_bytes());
        bytes.extend_from_slice(&look.ctime_ns.to_le_bytes());
        bytes.extend_from_slice(&self.durable.to_bytes());
        let checksum = slot_checksum(id, &bytes[32..]);
        bytes[..32].copy_from_slice(&checksum);
        bytes
    }

    /// Decodes a slot; None if it is damaged or belongs to another content.
    pub(crate) fn decode(bytes: &[u8], id: &ContentId, chunks: &Chunks) -> Option<Slot> {
        if bytes.get(..32)? != slot_checksum(id, bytes.get(32..)?) {
            return None;
        }
        let clean = (u64_at(bytes, 40)? & CLEAN != 0).then_some(PartLook {
            size: u64_at(bytes, 48)?,
            mtime_ns: u64_at(bytes, 56)? as i64,
            ctime_ns: u64_at(bytes, 64)? as i64,
        });
        Some(Slot {
            generation: u64_at(bytes, 32)?,
            clean,
            durable: Bitmap::from_bytes(chunks.count(), bytes.get(SLOT_BITMAP_AT..)?)?,
        })
    }
}

fn slot_checksum(id: &ContentId, rest: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(id.0)
        .chain_update(rest)
        .finalize()
        .into()
}

/// Returns a head with this body, valid or not, and a matching checksum.
#[cfg(fuzzing)]
pub(crate) fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head_checksum(&bytes, body));
    bytes.extend_from_slice(body);
    bytes
}

/// A slot with these bytes after its checksum, which fits.
#[cfg(fuzzing)]
pub(crate) fn slot_with_checksum(id: &ContentId, rest: &[u8]) -> Vec<u8> {
    [&slot_checksum(id, rest), rest].concat()
}

/// Encodes chunk hashes.
pub(crate) fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Decodes [`encode_hashes`], ignoring an incomplete hash at the end.
pub(crate) fn decode_hashes(bytes: &[u8]) -> Vec<Hash> {
    let (hashes, _tail) = bytes.as_chunks::<32>();
    hashes.iter().copied().map(Hash).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use qshare_content::ChunkIndex;

    fn head(length: u64) -> Head {
        let info = ContentInfo {
            length,
            root: Hash([5; 32]),
        };
        Head {
            id: info.id(),
            info,
            name: "dir/été.bin".into(),
            share_key: None,
        }
    }

    #[test]
    fn slots_and_hashes_do_not_overlap() {
        for length in [0, 1, 1 << 20, 10 << 30, LENGTH_MAX_BYTES] {
            let chunks = Chunks::of_length(length);
            let layout = Layout::of(&chunks);
            let slot = layout.slot_bytes() as u64;
            assert!(layout.slot_offset(0) >= HEAD_BYTES);
            assert!(layout.slot_offset(0) + slot <= layout.slot_offset(1));
            assert!(layout.slot_offset(1) + slot <= layout.hash_offset(0));
            assert_eq!(layout.slot_offset(2), layout.slot_offset(0));
            assert_eq!(layout.slot_offset(1) % ALIGNMENT_BYTES, 0);
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let mut bytes = head(7).encode();
        bytes[8] = 3;
        assert_eq!(Head::decode(&bytes), HeadRead::Damaged);
        let body = bytes[HEAD_BODY_AT..].to_vec();
        let checksum = head_checksum(&bytes[..16], &body);
        bytes[16..HEAD_BODY_AT].copy_from_slice(&checksum);
        assert_eq!(Head::decode(&bytes), HeadRead::Newer(3));
    }

    #[test]
    fn a_head_with_a_share_key_has_version_2() {
        let share_key = Some(ShareKey::from_bytes([7; 16]));
        let private = Head {
            share_key,
            ..head(7)
        };
        let bytes = private.encode();
        assert_eq!((bytes[8], head(7).encode()[8]), (2, 1));
        assert_eq!(Head::decode(&bytes), HeadRead::Good(private));
    }

    #[test]
    fn the_longest_name_fits_into_the_head() {
        let mut head = head(1);
        head.name = "x".repeat(qshare_content::NAME_MAX_BYTES);
        assert!(head.encode().len() as u64 <= HEAD_BYTES);
    }

    proptest! {
        #[test]
        fn heads_round_trip_and_no_altered_byte_passes(
            length in 0..=LENGTH_MAX_BYTES, at: usize, by in 1u8..) {
            let head = head(length);
            let bytes = head.encode();
            let mut padded = bytes.clone();
            padded.resize(HEAD_BYTES as usize, 0);
            prop_assert_eq!(Head::decode(&padded), HeadRead::Good(head));
            let at = at % bytes.len();
            padded[at] ^= by;
            let expected = if at < 8 { HeadRead::NotOurs } else { HeadRead::Damaged };
            prop_assert_eq!(Head::decode(&padded), expected);
        }

        #[test]
        fn slots_round_trip_and_no_altered_byte_passes(
            generation: u64,
            clean: Option<(u64, i64, i64)>,
            set in proptest::collection::vec(0u32..40, 0..40),
            at: usize,
            by in 1u8..,
        ) {
            let chunks = Chunks::of_length(40 * 128 * 1024);
            let id = ContentId([9; 32]);
            let mut durable = Bitmap::new(chunks.count());
            for chunk in set {
                durable.insert(ChunkIndex(chunk));
            }
            let clean = clean.map(|(size, mtime_ns, ctime_ns)| PartLook { size, mtime_ns, ctime_ns });
            let slot = Slot { generation, clean, durable };
            let mut bytes = slot.encode(&id);
            prop_assert_eq!(bytes.len(), Layout::of(&chunks).slot_bytes());
            prop_assert_eq!(Slot::decode(&bytes, &id, &chunks), Some(slot));
            prop_assert_eq!(Slot::decode(&bytes, &ContentId([8; 32]), &chunks), None);
            let at = at % bytes.len();
            bytes[at] ^= by;
            prop_assert_eq!(Slot::decode(&bytes, &id, &chunks), None);
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::decode(&bytes);
            let _ = Head::decode(&[&MAGIC[..], &bytes].concat());
            let _ = Slot::decode(&bytes, &ContentId([1; 32]), &Chunks::of_length(1));
        }
    }
}
