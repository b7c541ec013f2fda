//! What travels with a single file beside its bytes: modification time, execute bit, plain digest.
//!
//! ```text
//! version u8 = 1 │ fields, by ascending tag: tag u8 │ length u8 │ value
//! 1 modified    8 bytes  nanoseconds since 1970, i64 LE, at most MODIFIED_MAX_NS from 1970
//! 2 executable  empty    the owner may execute the file
//! 3 sha256     32 bytes  SHA-256 of the file's bytes
//! 4 disputed    empty    its sources state different modification times
//! ```
//!
//! Nothing at all is encoded as no bytes. Unknown tags are skipped; unknown versions, and anything
//! else, are invalid. All of it is a claim of the node that announces the file.

use crate::Hash;

/// Longest encoded form in bytes.
pub const METADATA_MAX_BYTES: usize = 256;
/// Largest distance of a modification time from 1970 in nanoseconds: 146 years. Times beyond it are
/// not stated. 62 bits leave room for the execute bit in one word.
pub const MODIFIED_MAX_NS: i64 = (1 << 62) - 1;

const VERSION: u8 = 1;
const MODIFIED: u8 = 1;
const EXECUTABLE: u8 = 2;
const SHA256: u8 = 3;
const DISPUTED: u8 = 4;

/// Metadata of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMetadata {
    /// Modification time, nanoseconds since 1970; None if it is unknown or disputed.
    pub modified_ns: Option<i64>,
    /// Whether the owner may execute the file.
    pub executable: bool,
    /// SHA-256 of the file's bytes, as `sha256sum` prints it.
    pub sha256: Option<Hash>,
    /// Whether sources state different modification times.
    pub disputed: bool,
}

/// The bytes are no metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metadata of a file is malformed")]
pub struct MetadataError;

impl FileMetadata {
    /// Returns the encoded form; empty if nothing is known.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        let mut put = |tag, value: &[u8]| {
            bytes.extend([tag, value.len() as u8]);
            bytes.extend(value);
        };
        if let Some(ns) = self.modified_ns.filter(is_stated) {
            put(MODIFIED, &ns.to_le_bytes());
        }
        if self.executable {
            put(EXECUTABLE, &[]);
        }
        if let Some(digest) = &self.sha256 {
            put(SHA256, &digest.0);
        }
        if self.disputed {
            put(DISPUTED, &[]);
        }
        match bytes.len() {
            1 => Vec::new(),
            _ => bytes,
        }
    }

    /// Decodes the encoded form.
    ///
    /// # Errors
    ///
    /// When the bytes are longer than [`METADATA_MAX_BYTES`], of another version, or no ascending
    /// list of valid fields.
    pub fn decode(bytes: &[u8]) -> Result<FileMetadata, MetadataError> {
        let mut metadata = FileMetadata::default();
        let Some((&version, mut rest)) = bytes.split_first() else {
            return Ok(metadata);
        };
        if version != VERSION || bytes.len() > METADATA_MAX_BYTES {
            return Err(MetadataError);
        }
        let mut last = 0;
        while let Some((&[tag, length], after)) = rest.split_first_chunk::<2>() {
            let (value, after) = after
                .split_at_checked(usize::from(length))
                .ok_or(MetadataError)?;
            if tag <= last {
                return Err(MetadataError);
            }
            match (tag, value) {
                (MODIFIED, value) => {
                    let value = value.try_into().map_err(|_| MetadataError)?;
                    let ns = i64::from_le_bytes(value);
                    metadata.modified_ns = Some(ns).filter(is_stated);
                }
                (EXECUTABLE, []) => metadata.executable = true,
                (SHA256, value) => {
                    let value = value.try_into().map_err(|_| MetadataError)?;
                    metadata.sha256 = Some(Hash(value));
                }
                (DISPUTED, []) => metadata.disputed = true,
                (EXECUTABLE | DISPUTED, _) => return Err(MetadataError),
                _ => {}
            }
            last = tag;
            rest = after;
        }
        match rest.is_empty() {
            true => Ok(metadata.settled()),
            false => Err(MetadataError),
        }
    }

    /// Adds what another source states about the same file. Different modification times are
    /// disputed, and stay so. The file counts as executable only if all sources say so. Of two
    /// digests neither is kept: a node that wants one of the files asks for it by its digest. A
    /// source that states nothing changes nothing.
    pub fn merge(&mut self, other: &FileMetadata) {
        let nothing = FileMetadata::default();
        if *other == nothing || *self == nothing {
            *self = if *other == nothing { *self } else { *other };
            return;
        }
        self.disputed |= other.disputed;
        match (self.modified_ns, other.modified_ns) {
            (Some(a), Some(b)) if a != b => self.disputed = true,
            (a, b) => self.modified_ns = a.or(b),
        }
        self.executable &= other.executable;
        self.sha256 = match (self.sha256, other.sha256) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => a.or(b),
        };
        *self = self.settled();
    }

    /// A disputed time is none.
    fn settled(mut self) -> FileMetadata {
        if self.disputed {
            self.modified_ns = None;
        }
        self
    }
}

fn is_stated(ns: &i64) -> bool {
    (-MODIFIED_MAX_NS..=MODIFIED_MAX_NS).contains(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> FileMetadata {
        FileMetadata {
            modified_ns: Some(-1_577_934_245_000_000_001),
            executable: true,
            sha256: Some(Hash([7; 32])),
            disputed: false,
        }
    }

    #[test]
    fn metadata_round_trips_and_nothing_takes_no_bytes() {
        assert_eq!(FileMetadata::decode(&full().encode()), Ok(full()));
        assert_eq!(full().encode().len(), 1 + 10 + 2 + 34);
        assert!(FileMetadata::default().encode().is_empty());
        assert_eq!(FileMetadata::decode(&[]), Ok(FileMetadata::default()));
        let far = FileMetadata {
            modified_ns: Some(i64::MAX),
            ..FileMetadata::default()
        };
        assert!(far.encode().is_empty());
    }

    #[test]
    fn unknown_fields_are_skipped_and_damaged_ones_are_refused() {
        let mut later = full().encode();
        later.extend([200, 3, 1, 2, 3]);
        assert_eq!(FileMetadata::decode(&later), Ok(full()));
        for bytes in [
            &[2][..],
            &[1, 1],
            &[1, 1, 8, 0],
            &[1, 1, 2, 0, 0],
            &[1, 2, 1, 0],
            &[1, 2, 0, 2, 0],
            &[1, 4, 0, 2, 0],
            &[0; 300],
        ] {
            assert_eq!(FileMetadata::decode(bytes), Err(MetadataError), "{bytes:?}");
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_fail_otherwise() {
        let whole = full().encode();
        for end in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole[..end].to_vec();
                bytes.push(byte);
                let _ = FileMetadata::decode(&bytes);
            }
        }
    }

    #[test]
    fn sources_that_disagree_cancel_each_other_for_good() {
        let other = FileMetadata {
            modified_ns: Some(5),
            executable: false,
            ..full()
        };
        let mut merged = full();
        merged.merge(&FileMetadata::default());
        assert_eq!(merged.modified_ns, full().modified_ns);
        merged.merge(&other);
        assert_eq!((merged.modified_ns, merged.disputed), (None, true));
        assert!(!merged.executable && merged.sha256 == Some(Hash([7; 32])));
        merged.merge(&other);
        assert_eq!(merged.modified_ns, None);
        let told = FileMetadata::decode(&merged.encode()).unwrap();
        assert_eq!(told, merged);
    }
}
