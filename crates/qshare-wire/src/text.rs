//! Text that another participant wrote, for people to read.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::TEXT_MAX_BYTES;

/// Stands in the place of a character that a terminal would obey.
const NEUTRAL: char = char::REPLACEMENT_CHARACTER;

/// A text of at most [`TEXT_MAX_BYTES`] bytes that is safe to print: it holds no control and no
/// bidirectional formatting characters.
///
/// A terminal obeys control characters (it changes its title, or writes to the clipboard), and
/// bidirectional ones make a line look like another. Constructor and decoder replace each of
/// them by U+FFFD, so code that prints a text needs no check. A longer text is refused when it is
/// decoded, and cut when it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct PeerText(String);

impl PeerText {
    /// Makes a text: neutralizes it and cuts it to its bound.
    pub fn new(text: &str) -> PeerText {
        // Cut first: text beyond the bound need not be processed. Replacing may lengthen the text.
        let end = text.floor_char_boundary(TEXT_MAX_BYTES);
        let mut text = neutralize(&text[..end]).into_owned();
        text.truncate(text.floor_char_boundary(TEXT_MAX_BYTES));
        PeerText(text)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes a text of bytes that may not be UTF-8, such as the reason of a closed connection.
    pub fn from_bytes(bytes: &[u8]) -> PeerText {
        // No character is longer than 4 bytes: a cut one becomes U+FFFD beyond the bound.
        let bytes = &bytes[..bytes.len().min(TEXT_MAX_BYTES + 4)];
        PeerText::new(&String::from_utf8_lossy(bytes))
    }
}

impl Deref for PeerText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for PeerText {
    fn from(text: &str) -> PeerText {
        PeerText::new(text)
    }
}

impl From<String> for PeerText {
    fn from(text: String) -> PeerText {
        PeerText::new(&text)
    }
}

impl<'de> Deserialize<'de> for PeerText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PeerText, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = PeerText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a text of at most {TEXT_MAX_BYTES} bytes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PeerText, E> {
                match text.len() <= TEXT_MAX_BYTES {
                    true => Ok(PeerText::new(text)),
                    false => Err(E::invalid_length(text.len(), &self)),
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Returns whether a terminal obeys a character instead of showing it: C0 and C1 controls, line
/// and paragraph separators, and the bidirectional marks, embeddings, overrides and isolates
/// (Unicode Standard Annex 9).
pub fn is_unsafe_to_print(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Replaces every character that [`is_unsafe_to_print`] by U+FFFD.
pub fn neutralize(text: &str) -> Cow<'_, str> {
    match text.contains(is_unsafe_to_print) {
        true => Cow::Owned(text.replace(is_unsafe_to_print, NEUTRAL.encode_utf8(&mut [0; 4]))),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Option<PeerText> {
        let bytes = postcard::to_stdvec(text).unwrap();
        postcard::from_bytes(&bytes).ok()
    }

    #[test]
    fn terminal_escapes_and_bidirectional_characters_are_neutralized_when_decoded() {
        // A title change, a write to the clipboard (OSC 52), C1's CSI, and an override.
        for hostile in [
            "\x1b]0;pwned\x07",
            "\x1b]52;c;cHduZWQ=\x07",
            "\u{9b}31mred",
            "a\u{202E}gpj.exe",
            "two\r\nlines\u{2028}three",
            "\u{200F}mark\u{061C}",
        ] {
            let text = decoded(hostile).unwrap();
            assert!(!text.contains(is_unsafe_to_print), "{text:?}");
            assert_eq!(text, PeerText::new(hostile));
            assert_eq!(text, PeerText::from_bytes(hostile.as_bytes()));
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in ["", "not here", "größer als 4 MiB – später", "日本語"] {
            assert_eq!(&*decoded(text).unwrap(), text);
        }
    }

    #[test]
    fn a_long_text_is_refused_when_decoded_and_cut_when_made() {
        let long = "é".repeat(TEXT_MAX_BYTES);
        assert_eq!(decoded(&long), None);
        for made in [PeerText::new(&long), PeerText::from_bytes(long.as_bytes())] {
            assert_eq!(&*made, "é".repeat(TEXT_MAX_BYTES / 2));
        }
        // Neutralizing lengthens.
        assert!(PeerText::new(&"\x1b".repeat(TEXT_MAX_BYTES)).len() <= TEXT_MAX_BYTES);
    }

    #[test]
    fn bytes_that_are_no_text_become_one() {
        assert_eq!(&*PeerText::from_bytes(b"a\xffb"), "a\u{FFFD}b");
    }
}
