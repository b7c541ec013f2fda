//! Which names beneath a root can be offered.

use std::ffi::OsStr;
use std::path::Path;

use qshare_content::{AssetName, META_SUFFIX, NameError, PART_SUFFIX};

use crate::SkipReason;

/// The name of a path, or the reason why it has none.
pub(crate) enum Naming {
    /// The path can be shared under this name.
    Shared(AssetName),
    /// A hidden path or an unfinished download: skipped without a report.
    Silent,
    /// The path cannot be shared.
    Unfit(SkipReason),
}

/// Returns the name of a path relative to its root.
pub(crate) fn naming(relative: &Path) -> Naming {
    let Some(text) = relative.to_str() else {
        return Naming::Unfit(SkipReason::NotUnicode);
    };
    // Names use `/` on every system.
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

/// Whether an entry has the suffix of an unfinished download, in upper or lower case.
pub(crate) fn is_own_suffix(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    [PART_SUFFIX, META_SUFFIX].iter().any(|suffix| {
        let at = bytes.len().checked_sub(suffix.len());
        let tail = at.and_then(|at| bytes.get(at..));
        tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix.as_bytes()))
    })
}
