//! Names of assets. They come from strangers and end up as paths on somebody's disk.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::ContentId;

/// Suffix of a file that is being downloaded.
pub const PART_SUFFIX: &str = ".qshare.part";
/// Suffix of the record beside it.
pub const META_SUFFIX: &str = ".qshare.meta";

/// Longest name in bytes. PATH_MAX is 4,096 on Linux; a download directory needs its share.
pub const NAME_MAX_BYTES: usize = 1024;
/// NAME_MAX of the usual file systems, which a component must not exceed with our suffix on.
const COMPONENT_MAX_BYTES: usize = 255 - PART_SUFFIX.len();

/// A name under which a file is shared: relative, `/`-separated, NFC, harmless as a path. Copies
/// share the text: a node holds many names in several orders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AssetName(Arc<str>);

/// Why a text cannot be the name of an asset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name cannot be empty")]
    Empty,
    /// More than [`NAME_MAX_BYTES`].
    #[error("the name is longer than {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// A component that would not leave room for our suffix.
    #[error("{0:?} is longer than {COMPONENT_MAX_BYTES} bytes")]
    ComponentTooLong(String),
    /// Absolute, a drive, a backslash, an empty, `.` or `..` component.
    #[error("{0:?} is not a plain relative path")]
    NotRelative(String),
    /// Files that begin with a dot are never shared, nor written for a stranger.
    #[error("{0:?} begins with a dot")]
    Hidden(String),
    /// Control or bidirectional-override characters, which make a name look like another.
    #[error("the name holds the control character U+{:04X}", u32::from(*.0))]
    ControlCharacter(char),
    /// Not in Unicode normal form C.
    #[error("{0:?} is not in Unicode normal form C")]
    NotNormal(String),
    /// Ends like one of qshare's own working files.
    #[error("{0:?} ends like one of qshare's own working files")]
    OwnSuffix(String),
}

impl AssetName {
    /// Checks a name that came from elsewhere.
    pub fn new(text: impl Into<String>) -> Result<AssetName, NameError> {
        let text = text.into();
        check(&text)?;
        Ok(AssetName(text.into()))
    }

    /// Makes a name of a local path's text: brought into normal form C, then checked.
    pub fn from_local(text: &str) -> Result<AssetName, NameError> {
        AssetName::new(text.nfc().collect::<String>())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, none of which is empty, `.`, `..` or begins with a dot.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
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
    let drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
    if drive || text.contains('\\') {
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
    }
    if text.ends_with(PART_SUFFIX) || text.ends_with(META_SUFFIX) {
        return Err(NameError::OwnSuffix(text.into()));
    }
    Ok(())
}

/// Control characters, line and paragraph separators, and the characters that change the
/// direction of the text after them.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
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

/// What a content goes by that nobody has a name for: its id.
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
            "C:/x",
            "c:x",
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
        ] {
            assert!(AssetName::new(text).is_err(), "{text:?}");
        }
        assert!(AssetName::new("x".repeat(COMPONENT_MAX_BYTES)).is_ok());
        assert!(AssetName::new("x".repeat(COMPONENT_MAX_BYTES + 1)).is_err());
        assert!(AssetName::new("x/".repeat(600) + "x").is_err());
    }

    #[test]
    fn local_names_are_brought_into_normal_form() {
        let decomposed = "e\u{301}te\u{301}";
        assert!(AssetName::new(decomposed).is_err());
        assert_eq!(AssetName::from_local(decomposed).unwrap().as_str(), "été");
    }
}
