//! Identifiers: [`struct@Hash`], [`ContentId`], [`NodeId`] and prefixes of content ids.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256 digest: a leaf, an inner node of a hash tree, or its root. Text: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of a leaf beyond the end of the file (BEP 52).
    pub const ZERO: Hash = Hash([0; 32]);
}

/// The identifier of a file's bytes: `SHA-256("qshare/content/1" ‖ length as u64 LE ‖ root)`.
///
/// The hash covers the length because the root alone does not determine it: the 64 bytes of the
/// root's two children are another file with the same root. Text: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId(pub [u8; 32]);

/// The identifier of a node: SHA-256 of its certificate's DER SubjectPublicKeyInfo.
///
/// Text: 52 characters of lower-case base32 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// A file's length and the root of its hash tree, which suffice to verify its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentInfo {
    /// Length in bytes, at most [`crate::LENGTH_MAX_BYTES`].
    pub length: u64,
    /// Root of the hash tree, equal to BitTorrent v2's `pieces root`.
    pub root: Hash,
}

impl ContentInfo {
    /// Returns the id that this length and root hash to. A (length, root) that arrives for an id
    /// must be compared with the id before either is used.
    pub fn id(&self) -> ContentId {
        let mut hasher = Sha256::new();
        hasher.update(b"qshare/content/1");
        hasher.update(self.length.to_le_bytes());
        hasher.update(self.root.0);
        ContentId(hasher.finalize().into())
    }
}

/// The reason why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdParseError {
    /// The text is not 64 hex digits.
    #[error("a content ID has 64 hex digits, not {0:?}")]
    Content(String),
    /// The text is not 52 characters of lower-case base32.
    #[error("a node ID has 52 characters of lower-case base32, not {0:?}")]
    Node(String),
    /// The text is not 1 to 64 hex digits.
    #[error("an ID prefix has 1 to 64 hex digits, not {0:?}")]
    Prefix(String),
}

fn parse_hex32(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

macro_rules! hex_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "{}({}…)",
                    stringify!($type),
                    HEXLOWER.encode(&self.0[..6])
                )
            }
        }

        impl FromStr for $type {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, IdParseError> {
                parse_hex32(text)
                    .map($type)
                    .ok_or_else(|| IdParseError::Content(text.into()))
            }
        }
    };
}

hex_text!(Hash);
hex_text!(ContentId);

impl ContentId {
    /// Returns the first ten digits, for messages to people.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..5])
    }
}

impl NodeId {
    /// Returns the first ten characters, for messages to people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({}…)", self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<Self, IdParseError> {
        let refused = || IdParseError::Node(text.into());
        if text.len() != 52 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused());
        }
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| refused())?;
        bytes.try_into().map(NodeId).map_err(|_| refused())
    }
}

/// The first hex digits of a content id, as in `id:3fa9`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdPrefix(String);

impl IdPrefix {
    /// Returns the digits, in lower case.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Returns whether the id begins with these digits.
    pub fn matches(&self, id: &ContentId) -> bool {
        let (first, last) = self.range();
        (first..=last).contains(id)
    }

    /// Returns the smallest and the largest id that begin with these digits.
    pub fn range(&self) -> (ContentId, ContentId) {
        let bound = |fill: char| {
            let padded: String = self
                .0
                .chars()
                .chain(std::iter::repeat(fill))
                .take(64)
                .collect();
            ContentId(parse_hex32(&padded).unwrap_or([0; 32]))
        };
        (bound('0'), bound('f'))
    }
}

impl FromStr for IdPrefix {
    type Err = IdParseError;

    fn from_str(text: &str) -> Result<Self, IdParseError> {
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        if valid {
            Ok(IdPrefix(text.to_ascii_lowercase()))
        } else {
            Err(IdParseError::Prefix(text.into()))
        }
    }
}

impl TryFrom<String> for IdPrefix {
    type Error = IdParseError;

    fn try_from(text: String) -> Result<Self, IdParseError> {
        text.parse()
    }
}

impl From<IdPrefix> for String {
    fn from(prefix: IdPrefix) -> String {
        prefix.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_text_is_52_lower_case_characters_and_round_trips() {
        let id = NodeId(std::array::from_fn(|i| i as u8 * 7));
        let text = id.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text, text.to_lowercase());
        assert_eq!(text.parse::<NodeId>().unwrap(), id);
        assert!(text.to_uppercase().parse::<NodeId>().is_err());
    }

    #[test]
    fn content_id_binds_the_length() {
        let root = Hash([7; 32]);
        let one = ContentInfo { length: 1, root }.id();
        let two = ContentInfo { length: 2, root }.id();
        assert_ne!(one, two);
    }

    #[test]
    fn prefix_range_covers_exactly_the_ids_that_begin_with_it() {
        let prefix: IdPrefix = "3Fa".parse().unwrap();
        let (low, high) = prefix.range();
        assert!(low.to_string().starts_with("3fa000"));
        assert!(high.to_string().starts_with("3fafff"));
        assert!(prefix.matches(&low) && prefix.matches(&high));
        assert!(!prefix.matches(&ContentId([0x3f; 32])));
        assert!("".parse::<IdPrefix>().is_err());
        assert!("xyz".parse::<IdPrefix>().is_err());
    }
}
