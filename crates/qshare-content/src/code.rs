//! Codes: `7-amber-walrus`, a mailbox number and two words that are a password.

use std::fmt;
use std::str::FromStr;

use bip39::Language;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bits of one word: the list has 2,048.
const WORD_BITS: u32 = 11;
/// Random bits of a code's two words: one guess in 2^22 is right.
pub const CODE_BITS: u32 = 2 * WORD_BITS;
/// Bytes of the longest word in the list.
const WORD_MAX_BYTES: usize = 8;
/// Words that are offered in place of a wrong one.
const NEAREST_MAX: usize = 3;
/// Edits (insertions, deletions, substitutions, swaps) between a wrong word and those offered.
const NEAREST_EDITS_MAX: usize = 2;

/// A code, which stands for a link until it expires.
///
/// Its number names a mailbox at trackers and on the local network, and is public. Its words are
/// the password of a key exchange. They are compared as the list has them, in lower case.
/// [`Code::reveal`] is the only way to print a code; `Debug` shows the number.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Code {
    number: u32,
    words: [u16; 2],
}

/// Why a text is not a code. Holds nothing of the text, except in [`WrongWords`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It does not have the form NUMBER-WORD-WORD.
    #[error("a code is a number and two words, such as 7-amber-walrus")]
    NotACode,
    /// The number exceeds 32 bits.
    #[error("the number of the code is too large")]
    Number,
    /// A word is not in the list.
    #[error("a word of the code is not in the list of words")]
    Words(WrongWords),
}

/// Words that are similar to typed words that are not in the list. They say
/// much about the code: `Debug` is redacted, and only a terminal may show them.
#[derive(Clone, PartialEq, Eq)]
pub struct WrongWords {
    /// For each word: None if it is in the list, else up to three similar ones, nearest first.
    pub nearest: [Option<Vec<&'static str>>; 2],
}

impl fmt::Debug for WrongWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrongWords(..)")
    }
}

impl Code {
    /// Makes a code of a number and 22 random bits: the low [`CODE_BITS`] of `random`.
    pub fn from_random(number: u32, random: u32) -> Code {
        let mask = (1 << WORD_BITS) - 1;
        let words = [random >> WORD_BITS & mask, random & mask];
        Code {
            number,
            words: words.map(|word| word as u16),
        }
    }

    /// Returns whether a text has the form of a code, `^[0-9]+-[a-z]+-[a-z]+$` in any case. Such a
    /// text may be a secret even if its words are not in the list.
    pub fn has_form(text: &str) -> bool {
        split(text).is_some()
    }

    /// Returns the number of the mailbox, which is public.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the password: both words in lower case, with a hyphen between them.
    pub fn password(&self) -> Zeroizing<String> {
        let [first, second] = self.words.map(word);
        Zeroizing::new(format!("{first}-{second}"))
    }

    /// Returns the code as people pass it on.
    pub fn reveal(&self) -> Zeroizing<String> {
        let password = self.password();
        Zeroizing::new(format!("{}-{}", self.number, password.as_str()))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-..)", self.number)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Code, CodeError> {
        let [number, first, second] = split(text).ok_or(CodeError::NotACode)?;
        let number = number.parse().map_err(|_| CodeError::Number)?;
        match [first, second].map(index_of) {
            [Ok(first), Ok(second)] => Ok(Code {
                number,
                words: [first, second],
            }),
            read => Err(CodeError::Words(WrongWords {
                nearest: read.map(Result::err),
            })),
        }
    }
}

/// Returns the words of the list that begin with `start`, in any case and in alphabetical order:
/// for the completion of half-typed words.
pub fn code_words(start: &str) -> &'static [&'static str] {
    let list: &'static [&'static str] = Language::English.word_list();
    let start = start.to_ascii_lowercase();
    let from = list.partition_point(|word| *word < start.as_str());
    let rest = list.get(from..).unwrap_or_default();
    let matching = rest.partition_point(|word| word.starts_with(&start));
    rest.get(..matching).unwrap_or_default()
}

/// Splits a text that has the form of a code.
fn split(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.trim().split('-');
    let mut next = |is_legal: fn(&u8) -> bool| {
        let part = parts.next()?;
        (!part.is_empty() && part.as_bytes().iter().all(is_legal)).then_some(part)
    };
    let split = [
        next(u8::is_ascii_digit)?,
        next(u8::is_ascii_alphabetic)?,
        next(u8::is_ascii_alphabetic)?,
    ];
    parts.next().is_none().then_some(split)
}

fn word(index: u16) -> &'static str {
    // An index has 11 bits, and the list 2^11 words.
    let list = Language::English.word_list();
    list.get(usize::from(index)).copied().unwrap_or_default()
}

/// Returns the position of a word in the list; else similar words.
fn index_of(typed: &str) -> Result<u16, Vec<&'static str>> {
    let typed = Zeroizing::new(typed.to_ascii_lowercase());
    let list = Language::English.word_list();
    match list.binary_search(&typed.as_str()) {
        Ok(index) => Ok(index as u16),
        Err(_) => Err(nearest(&typed)),
    }
}

fn nearest(typed: &str) -> Vec<&'static str> {
    if typed.len() > WORD_MAX_BYTES + NEAREST_EDITS_MAX {
        return Vec::new();
    }
    let list = Language::English.word_list();
    let mut near: Vec<(usize, &str)> = list
        .iter()
        .map(|word| (strsim::osa_distance(typed, word), *word))
        .filter(|(edits, _)| *edits <= NEAREST_EDITS_MAX)
        .collect();
    near.sort_unstable();
    near.truncate(NEAREST_MAX);
    near.into_iter().map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_list_is_sorted_so_that_it_can_be_searched() {
        let list = Language::English.word_list();
        assert_eq!(list.len(), 1 << WORD_BITS);
        assert!(list.is_sorted());
        assert!(list.iter().all(|word| word.len() <= WORD_MAX_BYTES));
    }

    #[test]
    fn a_code_is_read_in_any_case_with_spaces_around() {
        let code: Code = " 07-Abandon-ZOO\n".parse().unwrap();
        assert_eq!(code.number(), 7);
        assert_eq!(code.password().as_str(), "abandon-zoo");
        assert_eq!(code.reveal().as_str(), "7-abandon-zoo");
        assert_eq!(code, Code::from_random(7, 2047));
    }

    #[test]
    fn a_wrong_word_is_answered_by_similar_ones() {
        let Err(CodeError::Words(wrong)) = "7-wallrus-abandon".parse::<Code>() else {
            panic!("walrus is not in the list");
        };
        assert_eq!(wrong.nearest[1], None);
        let Err(CodeError::Words(wrong)) = "7-abandn-zoo".parse::<Code>() else {
            panic!("abandn is not in the list");
        };
        assert_eq!(wrong.nearest[0].as_ref().unwrap()[0], "abandon");
        let error = "99999999999-abandon-zoo".parse::<Code>();
        assert_eq!(error, Err(CodeError::Number));
        for text in [
            "", "7", "7-a", "7-a-b-c", "x-a-b", "7--b", "7-a-", "7-ä-b", "-a-b",
        ] {
            assert_eq!(text.parse::<Code>(), Err(CodeError::NotACode), "{text}");
        }
    }

    #[test]
    fn debug_output_and_errors_hold_no_words() {
        let code = Code::from_random(7, 2047);
        assert_eq!(format!("{code:?}"), "Code(7-..)");
        let error = "7-abandn-zoo".parse::<Code>().unwrap_err();
        for text in [format!("{error:?}"), error.to_string()] {
            assert!(!text.contains("aband") && !text.contains("zoo"), "{text}");
        }
    }

    #[test]
    fn half_typed_words_are_completed() {
        assert_eq!(code_words("Zoo"), ["zoo"]);
        assert_eq!(code_words("aban"), ["abandon"]);
        assert_eq!(code_words("").len(), 2048);
        assert!(code_words("zz").is_empty());
    }

    proptest! {
        #[test]
        fn every_code_is_read_back(number: u32, random: u32) {
            let code = Code::from_random(number, random);
            prop_assert!(Code::has_form(&code.reveal()));
            prop_assert_eq!(code.reveal().parse::<Code>().unwrap(), code.clone());
            let upper = code.reveal().to_uppercase();
            prop_assert_eq!(upper.parse::<Code>().unwrap(), code);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = text.parse::<Code>();
        }

        #[test]
        fn text_of_the_form_is_recognized_whatever_its_words(
            text in "[ ]{0,2}[0-9]{1,12}-[a-zA-Z]{1,12}-[a-zA-Z]{1,12}[ ]{0,2}"
        ) {
            prop_assert!(Code::has_form(&text));
            prop_assert_ne!(text.parse::<Code>(), Err(CodeError::NotACode));
        }

        #[test]
        fn other_text_is_never_a_code(text in "[0-9a-z.-]{0,16}") {
            prop_assert_eq!(
                text.parse::<Code>() == Err(CodeError::NotACode),
                !Code::has_form(&text)
            );
        }
    }
}
