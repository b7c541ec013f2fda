//! Which names beneath a root can be offered.

use std::ffi::OsStr;
use std::path::Path;

use qshare_content::{AssetName, META_SUFFIX, NameError, PART_SUFFIX};

use crate::SkipReason;

/// What a path is called.
pub(crate) enum Naming {
    /// It can be told to others under this name.
    Shared(AssetName),
    /// Hidden, or an unfinished download: left out silently.
    Silent,
    /// It cannot be told to others.
    Unfit(SkipReason),
}

/// The name of a path relative to its root.
pub(crate) fn naming(relative: &Path) -> Naming {
    let Some(text) = relative.to_str() else {
        return Naming::Unfit(SkipReason::NotUnicode);
    };
    // Names use `/` whatever the system does.
    let text = if std::path::MAIN_SEPARATOR == '/' {
        text.to_owned()
    } else {
        text.replace(std::path::MAIN_SEPARATOR, "/")
    };
    match AssetName::from_local(&text) {
        Ok(name) => Naming::Shared(name),
        Err(NameError::Hidden(_) | NameError::OwnSuffix(_)) => Naming::Silent,
        Err(error) => Naming::Unfit(error.into()),
    }
}

/// Whether an entry is hidden: it begins with a dot.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether an entry is called as an unfinished download is, in whatever case.
pub(crate) fn is_own_suffix(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    [PART_SUFFIX, META_SUFFIX].iter().any(|suffix| {
        let at = bytes.len().checked_sub(suffix.len());
        let tail = at.and_then(|at| bytes.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
    })
}
