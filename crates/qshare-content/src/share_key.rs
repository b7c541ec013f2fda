//! The key of a private share, and the topic under which the share is announced.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ContentId;

/// The secret of a private share: 128 random bits, zeroed when dropped. A node that knows it may
/// fetch the share's content.
///
/// Text: 26 characters of lower-case base32 without padding. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroize, ZeroizeOnDrop)]
pub struct ShareKey([u8; 16]);

/// The text is not a share key. The error does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share key has 26 characters of lower-case base32")]
pub struct ShareKeyError;

/// What trackers and neighbours see of a private content:
/// `SHA-256("qshare/topic/1" ‖ share key ‖ content id)`.
///
/// It reveals neither key nor id. It is the same for all holders and at all times, so an observer
/// of two announcements of one topic knows that they are for one content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Topic(pub [u8; 32]);

impl ShareKey {
    /// Length of the text in characters.
    pub const TEXT_CHARS: usize = 26;

    /// Makes a key from bytes, which must come from a cryptographic random generator.
    pub fn from_bytes(bytes: [u8; 16]) -> ShareKey {
        ShareKey(bytes)
    }

    /// Returns the secret bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the secret text, as links contain it.
    pub fn to_text(&self) -> String {
        BASE32_NOPAD.encode(&self.0).to_ascii_lowercase()
    }

    /// Returns the topic of a content under this key.
    pub fn topic(&self, content: &ContentId) -> Topic {
        let mut hasher = Sha256::new();
        hasher.update(b"qshare/topic/1");
        hasher.update(self.0);
        hasher.update(content.0);
        Topic(hasher.finalize().into())
    }
}

impl FromStr for ShareKey {
    type Err = ShareKeyError;

    fn from_str(text: &str) -> Result<ShareKey, ShareKeyError> {
        // Decoding into a buffer of another length would panic.
        if text.len() != ShareKey::TEXT_CHARS || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ShareKeyError);
        }
        let mut upper = text.to_ascii_uppercase();
        let mut key = ShareKey([0; 16]);
        let decoded = BASE32_NOPAD.decode_mut(upper.as_bytes(), &mut key.0);
        upper.zeroize();
        match decoded {
            Ok(16) => Ok(key),
            _ => Err(ShareKeyError),
        }
    }
}

impl fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareKey(…)")
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({}…)", HEXLOWER.encode(&self.0[..3]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_as_text_and_is_not_shown() {
        let key = ShareKey::from_bytes(std::array::from_fn(|at| at as u8 * 17));
        let text = key.to_text();
        assert_eq!(text, "aaisem2ekvthpcezvk54zxpo74");
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "ShareKey(…)");
        // The last two bits of the text belong to no byte.
        let altered = format!("{}5", &text[..25]);
        for wrong in [
            "",
            "a",
            &text.to_uppercase(),
            &format!("{text}a"),
            &altered,
            &"é".repeat(13),
        ] {
            assert_eq!(wrong.parse::<ShareKey>(), Err(ShareKeyError), "{wrong}");
        }
    }

    /// Computed with Python's hashlib.
    #[test]
    fn the_topic_is_that_of_the_specification() {
        let key = ShareKey::from_bytes(std::array::from_fn(|at| at as u8));
        let topic = key.topic(&ContentId([0xab; 32]));
        assert_eq!(
            HEXLOWER.encode(&topic.0),
            "7edbcb2cdcdbc67cb964e180b8fc4b9e322e46af91fbe1063e5ff60767274b53"
        );
        assert_ne!(key.topic(&ContentId([0xac; 32])), topic);
    }
}
