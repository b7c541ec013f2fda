//! Names of assets, which arrive from the network and become paths on disk.
//!
//! A name is refused if it could leave its directory, refer to a hidden file or a working file, or
//! look like another name. All other names that a file system allows are valid: spaces, colons,
//! names that look like ids or options. Names that only Windows cannot store are refused there,
//! when the file is written ([`AssetName::is_writable_on_windows`]).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::ContentId;

/// Suffix of the part file: the bytes of an unfinished download.
pub const PART_SUFFIX: &str = ".qshare.part";
/// Suffix of the meta file beside it: the state of an unfinished download.
pub const META_SUFFIX: &str = ".qshare.meta";

/// Longest name in bytes. PATH_MAX is 4,096 on Linux, and the path
/// of the download directory is part of it.
pub const NAME_MAX_BYTES: usize = 1024;
/// Longest component in bytes: NAME_MAX of the usual file systems.
const COMPONENT_MAX_BYTES: usize = 255;

/// The name under which a file is shared: a relative path with `/`, in Unicode normal form C, that
/// cannot leave its directory. Clones share the text, since a node indexes names in several ways.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AssetName(Arc<str>);

/// The reason why a text cannot be the name of an asset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The text is longer than [`NAME_MAX_BYTES`].
    #[error("the name is longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// A component of more than 255 bytes.
    #[error("{0:?} is longer than {COMPONENT_MAX_BYTES} bytes")]
    ComponentTooLong(String),
    /// Absolute, with a backslash, or with an empty, `.` or `..` component.
    #[error("{0:?} is not a plain relative path")]
    NotRelative(String),
    /// A component begins with a dot. Hidden files are neither shared nor written under a name
    /// from the network.
    #[error("{0:?} begins with a dot")]
    Hidden(String),
    /// A character that is invisible, or changes how the text around it is displayed.
    #[error("the name holds the control or invisible character U+{:04X}", u32::from(*.0))]
    ControlCharacter(char),
    /// The text is not in Unicode normal form C.
    #[error("{0:?} is not in Unicode normal form C")]
    NotNormal(String),
    /// A component ends with a suffix of qshare's own working files, in upper or lower case.
    #[error("{0:?} ends like one of qshare's own working files")]
    OwnSuffix(String),
}

impl AssetName {
    /// Parses a name from the network or from a user.
    pub fn new(text: impl Into<String>) -> Result<AssetName, NameError> {
        let text = text.into();
        check(&text)?;
        Ok(AssetName(text.into()))
    }

    /// Creates a name from the text of a local path: normalises it to form C, then checks it.
    pub fn from_local(text: &str) -> Result<AssetName, NameError> {
        AssetName::new(text.nfc().collect::<String>())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the components, none of which is empty or begins with a dot.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns whether Windows can store a file under this name. It cannot store names with
    /// reserved characters or device names, `a/b:stream` and `aux.txt` for example.
    pub fn is_writable_on_windows(&self) -> bool {
        self.components().all(is_component_for_windows)
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_MAX_BYTES {
        return Err(NameError::TooLong);
    }
    if let Some(control) = text.chars().find(|&c| is_deceptive(c)) {
        return Err(NameError::ControlCharacter(control));
    }
    if !is_nfc(text) {
        return Err(NameError::NotNormal(text.into()));
    }
    if text.contains('\\') {
        return Err(NameError::NotRelative(text.into()));
    }
    for component in text.split('/') {
        if matches!(component, "" | "." | "..") {
            return Err(NameError::NotRelative(text.into()));
        }
        if component.starts_with('.') {
            return Err(NameError::Hidden(component.into()));
        }
        if component.len() > COMPONENT_MAX_BYTES {
            return Err(NameError::ComponentTooLong(component.into()));
        }
        // Directories too: a directory `x.qshare.part` would block a download of `x`.
        if has_own_suffix(component) {
            return Err(NameError::OwnSuffix(component.into()));
        }
    }
    Ok(())
}

/// Returns whether a file or directory has a suffix of a working file, in any case: many file
/// systems ignore case.
fn has_own_suffix(component: &str) -> bool {
    [PART_SUFFIX, META_SUFFIX].iter().any(|suffix| {
        let at = component.len().checked_sub(suffix.len());
        let tail = at.and_then(|at| component.as_bytes().get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
    })
}

/// Characters that make a name look like another one: control characters, line and paragraph
/// separators, those that change the direction of text, and those without width. The joiners
/// U+200C and U+200D are allowed, since Persian, Indian scripts and emoji are written with them.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Separators, directional marks, embeddings, overrides and isolates.
            '\u{2028}' | '\u{2029}' | '\u{061C}' | '\u{200E}' | '\u{200F}'
            | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            // Soft hyphen, grapheme joiner, Hangul and Mongolian fillers, zero-width space.
            | '\u{00AD}' | '\u{034F}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FFA0}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'
            // Word joiner, invisible operators, deprecated format characters, byte order mark.
            | '\u{2060}'..='\u{2065}' | '\u{206A}'..='\u{206F}' | '\u{FEFF}'
            // Interlinear annotations, musical format characters, tags.
            | '\u{FFF9}'..='\u{FFFB}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Returns whether Windows can store a component. It reserves some characters (a colon
/// names an alternate stream), device names with any extension, and cuts dots and spaces at the
/// end.
fn is_component_for_windows(component: &str) -> bool {
    let reserved = |c: char| matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    let stem = component.split('.').next().unwrap_or(component);
    let stem = stem.trim_end_matches(' ').to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| {
            let mut digits = number.chars();
            let digit = digits.next();
            digit.is_some_and(|c| matches!(c, '0'..='9' | '\u{B9}' | '\u{B2}' | '\u{B3}'))
                && digits.next().is_none()
        })
    };
    let device = matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || numbered("COM")
        || numbered("LPT");
    !component.contains(reserved) && !component.ends_with(['.', ' ']) && !device
}

impl fmt::Display for AssetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for AssetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for AssetName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl TryFrom<String> for AssetName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        AssetName::new(text)
    }
}

/// Uses the id of a content that has no name as its name.
impl From<ContentId> for AssetName {
    fn from(id: ContentId) -> AssetName {
        AssetName(id.to_string().into())
    }
}

impl From<AssetName> for String {
    fn from(name: AssetName) -> String {
        name.0.as_ref().into()
    }
}

impl std::borrow::Borrow<str> for AssetName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_in_several_scripts_are_accepted() {
        for text in [
            "a",
            "a/b.txt",
            "données/été.csv",
            "файл",
            "数据/集.bin",
            "a b",
            "-x",
            "a..b",
            "שלום",
            "C:/x",
            "c:x",
            "a/b:stream",
            "12:30",
            ":",
            " a ",
            "AUX",
            "می\u{200C}خواهم",
            "👩\u{200D}🚀.png",
        ] {
            assert_eq!(AssetName::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        for text in [
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "",
        ] {
            assert!(AssetName::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hidden_deceptive_and_overlong_names_are_refused() {
        for text in [
            ".bashrc",
            "a/.ssh/id",
            "a\nb",
            "a\u{202E}gpj.exe",
            "a\0b",
            "x.qshare.part",
            "X.QSHARE.META",
            "x.qshare.part/y",
            "a/.Qshare.Meta/y",
            "invoice\u{200B}.pdf",
            "\u{FEFF}a",
            "pay\u{AD}roll",
            "a\u{E0041}",
        ] {
            assert!(AssetName::new(text).is_err(), "{text:?}");
        }
        assert!(AssetName::new("x".repeat(COMPONENT_MAX_BYTES)).is_ok());
        assert!(AssetName::new("x".repeat(COMPONENT_MAX_BYTES + 1)).is_err());
        assert!(AssetName::new("x/".repeat(600) + "x").is_err());
    }

    #[test]
    fn names_that_windows_reserves_are_told_apart() {
        for text in [
            "a/b:stream",
            "aux.txt",
            "d/NUL",
            "com1",
            "LPT\u{B9}.x",
            "a.",
            "b /c",
            "w?",
        ] {
            assert!(
                !AssetName::new(text).unwrap().is_writable_on_windows(),
                "{text}"
            );
        }
        for text in [
            "a/b",
            "auxiliary",
            "com",
            "com10",
            "null.txt",
            "a.b c",
            "été",
        ] {
            assert!(
                AssetName::new(text).unwrap().is_writable_on_windows(),
                "{text}"
            );
        }
    }

    #[test]
    fn local_names_are_brought_into_normal_form() {
        let decomposed = "e\u{301}te\u{301}";
        assert!(AssetName::new(decomposed).is_err());
        assert_eq!(AssetName::from_local(decomposed).unwrap().as_str(), "été");
    }
}
